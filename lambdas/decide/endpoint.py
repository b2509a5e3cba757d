"""Ask a SageMaker endpoint for scores, and believe the answer only when it is exactly what its pointer in the ledger promises.

`ask` returns one finite float64 per symbol, within what a policy can say, or raises `EndpointError`, one line that names what was wrong:
not reached, refused, not JSON, wrong length, not finite, out of range, another model, another feature table, other slots. The caller
never gets a partial or repaired answer. How far the observation lies outside of what the model was trained on comes with it, where the
endpoint tells.

No answer is asked for again while the caller's `Retries` allow it: an endpoint that is asked once a day is cold each time. An answer that
cannot be believed is not: the next one would be no better.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Annotated, Any

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lambdas.common.ledger.records import ServedModel
from trading_env.errors import PapertapeError
from trading_env.simulation.artifact import slots_problem

REQUEST_SCHEMA = 1
#: A policy's scores are logs of a mean of portfolios that no seed lets fall below e^-20 of the largest share, over at most 500 names.
SCORE_LIMIT = 50.0
LONGEST_PAUSE = 30.0


class EndpointError(PapertapeError, RuntimeError):
    """The endpoint gave no answer that may be traded on; `silent` when it gave none at all, which may pass."""

    def __init__(self, detail: str, *, silent: bool = False) -> None:
        super().__init__(detail)
        self.silent = silent


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How long an endpoint that gives no answer is asked again. All in seconds; `monotonic` and `sleep` are of one clock.

    An attempt may take `attempt`, and the last one has ended by `until`. The first pause is `pause`; it doubles up to `LONGEST_PAUSE`.
    """

    until: float = float("-inf")
    attempt: float = 0.0
    pause: float = 2.0
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def within(self, seconds: float) -> Retries:
        """The same, over in so many seconds from now at the latest."""
        return replace(self, until=min(self.until, self.monotonic() + seconds))

    def once(self) -> Retries:
        """One attempt."""
        return replace(self, until=float("-inf"))


class Diagnostics(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    feature_hash: str
    slots: tuple[str, ...] = ()
    outside: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None


@dataclass(frozen=True, eq=False)
class Scores:
    """`values` (A,) in the order of the symbols asked for; `outside`: the share of the inputs beyond the envelope of training.

    `fallback` says why they were not the endpoint's; None when they were, or when a rule scores.
    """

    values: NDArray[np.float64]
    outside: float | None = None
    fallback: str | None = None


class EndpointResponse(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())
    scores: list[Annotated[float, Field(strict=True)]]
    model_version: str
    diagnostics: Diagnostics


def ask_again(
    *,
    retries: Retries,
    runtime: Any,
    model: ServedModel,
    as_of: date,
    symbols: Sequence[str],
    observation: NDArray[np.float32],
    slots: Sequence[str] = (),
) -> Scores:
    """`ask` until there is an answer, or no time for another attempt; then the last attempt's error."""
    pause = retries.pause
    while True:
        try:
            return ask(runtime=runtime, model=model, as_of=as_of, symbols=symbols, observation=observation, slots=slots)
        except EndpointError as error:
            if not error.silent or retries.monotonic() + pause + retries.attempt > retries.until:
                raise
        retries.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def ask(
    *,
    runtime: Any,
    model: ServedModel,
    as_of: date,
    symbols: Sequence[str],
    observation: NDArray[np.float32],
    slots: Sequence[str] = (),
) -> Scores:
    """Invoke `model.endpoint` with the observation of a row of the session `as_of`; `slots` are those that rows are cut at, if any."""
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
        raise EndpointError(f"endpoint {model.endpoint}: no answer ({error})", silent=not _refused(error)) from error
    return _believe(body=body, model=model, count=len(symbols), slots=tuple(slots))


def _refused(error: Exception) -> bool:
    """The model itself answered that the request is wrong: it would do so again."""
    status = error.response.get("OriginalStatusCode", 500) if isinstance(error, ClientError) else 500
    return 400 <= int(status) < 500


def _believe(*, body: bytes, model: ServedModel, count: int, slots: tuple[str, ...]) -> Scores:
    try:
        answer = EndpointResponse.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise EndpointError(f"endpoint {model.endpoint}: {where}: {first['msg']}") from error
    problem = ""
    if answer.model_version != model.model_version:
        problem = f"model_version must be {model.model_version}, was {answer.model_version}"
    elif answer.diagnostics.feature_hash != model.feature_hash:
        problem = f"feature_hash must be {model.feature_hash}, was {answer.diagnostics.feature_hash}"
    elif answer.diagnostics.slots != slots:
        problem = slots_problem(wanted=slots, was=answer.diagnostics.slots)
    elif len(answer.scores) != count:
        problem = f"scores must have {count} values, was {len(answer.scores)}"
    else:
        problem = score_problem(answer.scores)
    if problem:
        raise EndpointError(f"endpoint {model.endpoint}: {problem}")
    return Scores(np.asarray(answer.scores, dtype=np.float64), answer.diagnostics.outside)


def score_problem(scores: Sequence[float]) -> str:
    """Why these scores are none that a policy can give; empty when they may be."""
    if not all(map(math.isfinite, scores)):
        return "scores must be finite"
    largest = max(map(abs, scores))
    return f"scores must lie within {SCORE_LIMIT:g} of 0, was {largest:g}" if largest > SCORE_LIMIT else ""
