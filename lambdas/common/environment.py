"""What a function reads from its environment variables, as frozen Pydantic models.

`read(Model)` returns a valid model or raises `VariablesError`, one line that names the variable. Every AWS endpoint override is
refused unless it points to this machine, so a stray variable can never send orders, data or credentials elsewhere. The broker's own
addresses have a stricter guard in `lambdas.common.broker.alpaca`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schema.loopback import refuse_foreign_endpoints
from trading_env.errors import PapertapeError


class VariablesError(PapertapeError, RuntimeError):
    """A variable is missing, malformed, or points to a place that is not allowed."""


class Variables(BaseModel):
    """Base of a function's variables: the field `ledger_table` is read from LEDGER_TABLE."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=str.upper, populate_by_name=True)


class LedgerVariables(Variables):
    ledger_table: str


class LakeVariables(Variables):
    raw_bucket: str
    processed_bucket: str


class AlertVariables(Variables):
    alert_topic_arn: str


class TimeBudget(Variables):
    """How long one run of an executor works and waits, in seconds of the wall clock; it never waits for the market.

    `batch_budget_seconds` counts from the function's first line, before which a cold start may take ten and after which the gateway waits
    29 in all. `lease_seconds` is longer than the function can live, so that only a dead
    holder's lease runs out. A pause between two questions about orders begins at `order_poll_seconds` and doubles.
    """

    batch_budget_seconds: float = Field(default=17.0, ge=0, le=840)
    lease_seconds: float = Field(default=60.0, gt=0, le=900)
    lease_timeout_seconds: float = Field(default=3.0, ge=0, le=60)
    lease_poll_seconds: float = Field(default=0.2, gt=0, le=10)
    order_timeout_seconds: float = Field(default=5.0, ge=0, le=300)
    order_poll_seconds: float = Field(default=0.25, gt=0, le=10)


V = TypeVar("V", bound=Variables)


def read(model: type[V], *, environ: Mapping[str, str] | None = None) -> V:
    """Return `model` filled from `environ` (default: the process's own)."""
    variables = os.environ if environ is None else environ
    refuse_foreign_endpoints(variables)
    try:
        return model.model_validate(dict(variables))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
        raise VariablesError(f"environment variables of this function: {problems}; the stack that owns it sets them") from None
