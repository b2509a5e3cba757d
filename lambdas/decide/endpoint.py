"""Ask a SageMaker endpoint for scores, and believe the answer only when it is exactly what its pointer in the ledger promises.

`scores` returns one finite float64 a symbol or raises `EndpointError`, one line that names what was wrong: not reached, refused, not
JSON, wrong length, not finite, another model, another feature table. The caller never sees a partial or repaired answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lambdas.common.records import ServedModel

REQUEST_SCHEMA = 1


class EndpointError(RuntimeError):
    """The endpoint gave no answer that may be traded on."""


class Diagnostics(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    feature_hash: str


class Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())
    scores: list[Annotated[float, Field(strict=True)]]
    model_version: str
    diagnostics: Diagnostics


def scores(
    *, runtime: Any, model: ServedModel, as_of: date, symbols: Sequence[str], observation: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Invoke `model.endpoint` with the observation of the close of `as_of`; (A,) scores in the order of `symbols`."""
    request = {
        "schema": REQUEST_SCHEMA,
        "as_of": as_of.isoformat(),
        "symbols": list(symbols),
        "observation": [float(value) for value in observation],
    }
    try:
        response = runtime.invoke_endpoint(
            EndpointName=model.endpoint,
            ContentType="application/json",
            Accept="application/json",
            Body=json.dumps(request, allow_nan=False).encode(),
        )
        body = response["Body"].read()
    except (ClientError, BotoCoreError) as error:
        raise EndpointError(f"endpoint {model.endpoint}: no answer ({error})") from error
    return _believe(body=body, model=model, count=len(symbols))


def _believe(*, body: bytes, model: ServedModel, count: int) -> NDArray[np.float64]:
    try:
        answer = Answer.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise EndpointError(f"endpoint {model.endpoint}: {where}: {first['msg']}") from error
    problem = ""
    if answer.model_version != model.model_version:
        problem = f"model_version must be {model.model_version}, was {answer.model_version}"
    elif answer.diagnostics.feature_hash != model.feature_hash:
        problem = f"feature_hash must be {model.feature_hash}, was {answer.diagnostics.feature_hash}"
    elif len(answer.scores) != count:
        problem = f"scores must have {count} values, was {len(answer.scores)}"
    elif not all(map(math.isfinite, answer.scores)):
        problem = "scores must be finite"
    if problem:
        raise EndpointError(f"endpoint {model.endpoint}: {problem}")
    return np.asarray(answer.scores, dtype=np.float64)
