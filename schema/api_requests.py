"""The bodies that the execution API accepts, for the functions that validate them and for the models that the gateway shows of them.

A wrong one raises Pydantic's `ValidationError`, which becomes a 422 naming the field. What names symbols and slots is parsed with the
settings: they are known or the request is wrong. NaN and infinities, which JSON readers let through, are refused. The first line of a
model's docstring is its description at the gateway.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from schema.settings import Settings
from schema.slot import NAME, PERSONAL, Slot, decision_id_of

State = Literal["active", "reduce_only", "halted"]

QUANTUM = Decimal("1e-9")
SUM_TOLERANCE = 1e-9


def _known(symbol: str, info: ValidationInfo) -> str:
    symbols: Sequence[str] = (info.context or {})["settings"].universe.symbols
    if symbol not in symbols:
        raise ValueError(f"must be one of {', '.join(symbols)}")
    return symbol


def _whole(quantity: Decimal) -> Decimal:
    if quantity != quantity.quantize(QUANTUM):
        raise ValueError("must have at most 9 decimals")
    return quantity


def _a_model_s(strategy: str) -> str:
    if strategy in PERSONAL:
        raise ValueError(f"may not be one of {', '.join(sorted(PERSONAL))}")
    return strategy


def _of_the_schedule(slot: str, info: ValidationInfo) -> str:
    names: Sequence[str] = (info.context or {})["settings"].schedule.slots
    if Slot.parse(slot).name not in names:
        raise ValueError(f"must be <session>/{' or <session>/'.join(names)}")
    return slot


def _at_most_one(weights: dict[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    if not total <= 1 + SUM_TOLERANCE:
        raise ValueError(f"must sum to at most 1, was {total:.12g}")
    return weights


def _of_strategy_and_slot(decision_id: str, info: ValidationInfo) -> str:
    known = "strategy" in info.data and "slot" in info.data  # else they are wrong themselves
    if known and decision_id != (made := decision_id_of(info.data["strategy"], info.data["slot"])):
        raise ValueError(f"must be strategy and slot, {made}")
    return decision_id


KnownSymbol = Annotated[str, AfterValidator(_known)]
Weight = Annotated[float, Field(strict=True, ge=0, le=1 + SUM_TOLERANCE, allow_inf_nan=False)]
Weights = Annotated[
    dict[KnownSymbol, Weight],
    Field(min_length=1, description="symbol: share of equity; the sum is at most 1"),
    AfterValidator(_at_most_one),
]
Score = Annotated[float, Field(strict=True, allow_inf_nan=False)]
SlotText = Annotated[str, Field(pattern=rf"^\d{{4}}-\d{{2}}-\d{{2}}/{NAME}$"), AfterValidator(_of_the_schedule)]
Strategy = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$"), AfterValidator(_a_model_s)]
Quantity = Annotated[
    Decimal,
    Field(gt=0, lt=1_000_000_000, allow_inf_nan=False, description="shares, at most nine decimals"),
    AfterValidator(_whole),
]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Reason = Annotated[str, Field(min_length=1, max_length=300)]


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def sha256(self) -> str:
        """Return the hash that tells the same body from another under one id; the order of keys does not count."""
        return hashlib.sha256(repr(sorted(_flat(self.model_dump(mode="json")))).encode()).hexdigest()


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flat(item, f"{path}/{key}")]
    return [(path, repr(value))]


class DecisionRequest(Body):
    """Target weights of one slot.

    A symbol that `weights` leaves out is not traded: its position is carried as it is. A symbol with weight 0 is sold whole. Weights are
    shares of equity before the cash buffer. `scores`, what the policy said of each name, are kept and decide nothing.
    """

    slot: SlotText
    strategy: Strategy
    model_version: Annotated[str, Field(min_length=1, max_length=200)]
    data_as_of: Annotated[date, Field(description="the session whose close was observed")]
    weights: Weights
    scores: Annotated[dict[KnownSymbol, Score], Field(description="symbol: what the policy said; kept")] = Field(default_factory=dict)
    feature_hash: Digest
    observation_hash: Digest
    decision_id: Annotated[str, AfterValidator(_of_strategy_and_slot)]


class OrderRequest(Body):
    """One market order.

    A person's. `key` is the caller's own: the same key is the same order.
    """

    key: Key
    symbol: Annotated[str, Field(pattern=re.compile(r"^[A-Z][A-Z0-9.]{0,9}$"))]
    side: Literal["buy", "sell"]
    quantity: Quantity


class FlattenRequest(Body):
    """Sell every position."""

    reason: Reason


class StateRequest(Body):
    """Who may trade, and why."""

    state: State
    reason: Reason
    version: Annotated[int, Field(ge=0, description="of the state that the caller has seen: 409 if it has changed since")] | None = None
    account: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=100,
                description="with active: the broker's account that this app goes on with, after another one halted it",
            ),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _an_account_is_taken_by_going_on(self) -> Self:
        if self.account is not None and self.state != "active":
            raise ValueError("account is for the state active only: it says which account this app goes on with")
        return self


B = TypeVar("B", bound=Body)


def parse(model: type[B], text: str | None, *, settings: Settings) -> B:
    """Return the valid body in `text`; raise `ValidationError` naming every wrong field.

    Not the resolver's validation: of a list of orders it takes the first, and what Python's JSON cannot read it lets out as an error.
    """
    return model.model_validate_json(text or "", context={"settings": settings})
