"""Between which slots the rows lie that a registered model was trained on, from the `policy.json` in its archive.

Promise: None where the archive says nothing that can be read; `deploy_model` verifies it before anything serves it. Failure: botocore's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from lambdas.common.lake.lake import read_object
from trading_env.simulation.artifact import CARD, ArtifactError, read_artifact


class _SlotsOfCard(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    slots: tuple[str, ...] = ()


def slots_of(s3: Any, described: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The slots of the package that SageMaker `described`; () is a model of daily bars."""
    where = urlsplit(described["InferenceSpecification"]["Containers"][0].get("ModelDataUrl", ""))
    content = read_object(s3, bucket=where.netloc, key=where.path.lstrip("/")) if where.scheme == "s3" else None
    if content is None:
        return None
    try:
        return _SlotsOfCard.model_validate_json(read_artifact(content)[CARD]).slots
    except (ArtifactError, ValidationError):
        return None
