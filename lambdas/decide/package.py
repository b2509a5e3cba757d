"""The scores of a served model without its endpoint: from the archive that the endpoint serves, in this process, with NumPy.

Promise: the archive's content has the hash that the pointer in the ledger names, and on one platform the scores are the endpoint's bit
for bit, for it runs the same code on the same numbers. Anything else raises `PackageError`: no archive, another hash, another feature
table, other slots, an observation that does not fit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.common.lake.lake import read_object
from lambdas.common.ledger.records import ServedModel
from lambdas.decide.endpoint import Scores, score_problem
from trading_env.data.features import FEATURE_HASH
from trading_env.data.observation import Layout, Observation, ObservationError
from trading_env.errors import PapertapeError
from trading_env.simulation.artifact import ArtifactError, read_artifact
from trading_env.simulation.policy import NumpyPolicy, PolicyError, load_policy, outside


class PackageError(PapertapeError, RuntimeError):
    """The model's package gives no scores that may be traded on."""


def score_package(
    *, s3: Any, model: ServedModel, observation: Observation, feature_hash: str = FEATURE_HASH, slots: Sequence[str] = ()
) -> Scores:
    """Verify the package of `model` and score `observation`, of a row between `slots`, with it."""
    policy = verified_policy(s3, model, feature_hash=feature_hash, slots=slots)
    try:
        values = policy.scores(observation)
        card = policy.card
        layout = Layout(assets=len(observation.symbols), features=len(card.features), context=len(card.context))
        far = outside(policy, observation.vector, layout)
    except (ObservationError, PolicyError) as error:
        raise PackageError(f"{model.model_uri}: {error}") from error
    if problem := score_problem([float(value) for value in values]):
        raise PackageError(f"{model.model_uri}: {problem}")
    return Scores(values, far)


def verified_policy(s3: Any, model: ServedModel, *, feature_hash: str, slots: Sequence[str] = ()) -> NumpyPolicy:
    """The policy in the package of `model`, which has the hash that the pointer names; raises PackageError."""
    if model.model_uri is None:
        raise PackageError(f"the pointer to model {model.model_version} names no package")
    where = urlsplit(model.model_uri)
    try:
        content = read_object(s3, bucket=where.netloc, key=where.path.lstrip("/"))
    except (ClientError, BotoCoreError) as error:
        raise PackageError(f"{model.model_uri} cannot be read: {error}") from error
    if content is None:
        raise PackageError(f"{model.model_uri} is not there")
    try:
        files = read_artifact(content, expected_hash=model.model_version)
        with tempfile.TemporaryDirectory() as folder:
            for name, body in files.items():
                (Path(folder) / name).write_bytes(body)
            return load_policy(Path(folder), expected_feature_hash=feature_hash, slots=slots)
    except (ArtifactError, PolicyError) as error:
        raise PackageError(f"{model.model_uri}: {error}") from error
