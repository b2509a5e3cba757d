"""One question to an endpoint before a pointer moves to it: InService says that a server listens, not that it has loaded the model.

Promise: returns when the endpoint has answered an observation of the package's own shape with one finite score per name, as the very
model, feature table and slots that the package was registered with. Else `ProbeError` says what it did instead. The package in S3 is
verified before an endpoint is made: what decides when the endpoint does not is the same model, and one of other slots than the settings'
is not served at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lambdas.common.lake.lake import read_object
from lambdas.deploy_model.packages import DeploymentError, ModelPackage
from trading_env.simulation.artifact import CARD, ArtifactError, read_artifact, slots_problem

NAMES = ("A", "B")
ATTEMPTS = 3  # an endpoint that was made just now is cold


class ProbeError(DeploymentError):
    """The endpoint does not serve the package, whatever its status says."""


class Card(BaseModel):
    """What of policy.json says how wide an observation is, and between which slots its rows lie."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    features: list[str]
    context: list[str]
    slots: tuple[str, ...] = ()


class ProbeDiagnostics(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    feature_hash: str
    slots: tuple[str, ...] = ()


class ProbeResponse(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())
    scores: list[Annotated[float, Field(strict=True)]]
    model_version: str
    diagnostics: ProbeDiagnostics


def fitting(*, s3: Any, package: ModelPackage, slots: Sequence[str]) -> Card:
    """The card in the package's archive, if its model is of `slots` (none for daily bars); else `ProbeError`."""
    card = _card(s3, package)
    if card.slots != tuple(slots):
        raise ProbeError(f"{package.arn}: policy.json: {slots_problem(wanted=slots, was=card.slots)}; train with the settings' slots")
    return card


def probe(*, runtime: Any, package: ModelPackage, card: Card, endpoint: str, wait: Callable[[], bool]) -> None:
    """Ask `endpoint`, and ask again after a `wait` when no answer came; `wait` answers False when no time is left."""
    body = json.dumps(observation(card)).encode()
    for attempt in range(ATTEMPTS):
        try:
            response = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Accept="application/json", Body=body)
            return _compare(response["Body"].read(), package=package, card=card, endpoint=endpoint)
        except (ClientError, BotoCoreError) as error:
            if attempt == ATTEMPTS - 1 or not wait():
                raise ProbeError(f"endpoint {endpoint} is in service and does not answer: {error}") from error
    return None


def observation(card: Card) -> dict[str, Any]:
    """Two names of which nothing is held, everything at its mean, all in cash: `trading_env.data.observation` in plain numbers."""
    nothing_held, tradable = 0.0, 1.0
    names = [value for _ in NAMES for value in (*(0.0 for _ in card.features), nothing_held, tradable)]
    return {"schema": 1, "as_of": "2000-01-03", "symbols": list(NAMES), "observation": [*names, 1.0, *(0.0 for _ in card.context)]}


def _card(s3: Any, package: ModelPackage) -> Card:
    where = urlsplit(package.model_data)
    content = read_object(s3, bucket=where.netloc, key=where.path.lstrip("/"))
    if content is None:
        raise ProbeError(f"{package.arn}: {package.model_data} is not there; register it again")
    try:
        return Card.model_validate_json(read_artifact(content, expected_hash=package.metadata.model_hash)[CARD])
    except (ArtifactError, ValidationError) as error:
        raise ProbeError(f"{package.arn}: {package.model_data}: {error}; register it again") from error


def _compare(body: bytes, *, package: ModelPackage, card: Card, endpoint: str) -> None:
    try:
        answer = ProbeResponse.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise ProbeError(f"endpoint {endpoint} answers no scores: {where}: {first['msg']}") from error
    problem = ""
    if answer.model_version != package.metadata.model_hash:
        problem = f"model_version must be {package.metadata.model_hash}, was {answer.model_version}"
    elif answer.diagnostics.feature_hash != package.metadata.feature_hash:
        problem = f"feature_hash must be {package.metadata.feature_hash}, was {answer.diagnostics.feature_hash}"
    elif answer.diagnostics.slots != card.slots:
        problem = slots_problem(wanted=card.slots, was=answer.diagnostics.slots)
    elif len(answer.scores) != len(NAMES) or not all(map(math.isfinite, answer.scores)):
        problem = f"scores must be {len(NAMES)} finite numbers, was {answer.scores}"
    if problem:
        raise ProbeError(f"endpoint {endpoint}: {problem}")
