"""The ledger's items as frozen Pydantic models: what is stored, in which type, under which key.

A model knows its own key and index attributes (`keys`), so that no caller builds one by hand. Money and quantities are `Decimal`;
scores and weights are float64 and survive the round trip bit for bit, because DynamoDB keeps their shortest decimal form. Times are
ISO 8601 UTC strings from events or from the broker's clock. `docs/ledger.md` lists every access pattern.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1

Side = Literal["buy", "sell"]
State = Literal["active", "reduce_only", "halted"]

#: The strategy whose slots the schedule decides.
AGENT = "agent"
#: Strategies of a person's orders: no slot, no data and no model to be late or stale, and the whole session to trade in.
MANUAL, FLATTEN = "manual", "flatten"
PERSONAL = frozenset({MANUAL, FLATTEN})

#: States of an order that no message of the broker can change any more. `refused` is ours: it was never sent.
TERMINAL = frozenset({"filled", "canceled", "expired", "rejected", "replaced", "refused"})

# DynamoDB keeps 38 significant digits and boto3 refuses more, so what exceeds them is rounded here, half to even.
_NUMBERS = Context(prec=38, rounding=ROUND_HALF_EVEN)


def to_attribute(value: object) -> Any:
    """Turn a model's value into what DynamoDB stores: floats by their shortest decimal form; NaN and infinities are refused."""
    match value:
        case bool() | None | str() | int() | bytes():
            return value
        case float() | Decimal():
            number = _NUMBERS.create_decimal(repr(value) if isinstance(value, float) else value)
            if not number.is_finite():
                raise ValueError(f"the ledger stores finite numbers only, was {value!r}")
            return number
        case Mapping():
            return {str(key): to_attribute(item) for key, item in value.items()}
        case list() | tuple():
            return [to_attribute(item) for item in value]
        case _:
            raise TypeError(f"the ledger cannot store {type(value).__name__}")


def plain(number: Decimal) -> str:
    """Every digit, without an exponent or trailing zeros."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class Record(BaseModel):
    """One item. `keys` gives its primary key and, where it has one, its place in an index."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    kind: ClassVar[str]

    def keys(self) -> dict[str, str]:
        raise NotImplementedError

    def item(self) -> dict[str, Any]:
        """Return the item to put; absent values are left out."""
        body = {name: to_attribute(value) for name, value in self.model_dump(exclude_none=True).items()}
        return {**body, **self.keys(), "kind": self.kind, "schema": SCHEMA}

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Self:
        return cls.model_validate(dict(item))


class Leg(BaseModel):
    """One planned order of a decision: what its risk verdict and its intent will be judged by."""

    model_config = ConfigDict(frozen=True)
    symbol: str
    side: Side
    quantity: Decimal
    price: float
    client_order_id: str
    attempt: int = 0

    @property
    def price_reference(self) -> Decimal:
        return Decimal(repr(self.price))


class Decision(Record):
    """One decision and its batch. `plan` is written once, before the first order; `buys_final` once, after the last sell."""

    kind: ClassVar[str] = "decision"
    decision_id: str
    strategy: str
    slot: str
    body_sha256: str
    received_at: str
    state: Literal["working", "done"] = "working"
    verdict: str = "pending"
    reason: str | None = None
    model_version: str = ""
    data_as_of: str = ""
    feature_hash: str = ""
    observation_hash: str = ""
    code_version: str = ""
    weights: dict[str, float] = Field(default_factory=dict)
    plan: tuple[Leg, ...] | None = None
    refused: dict[str, str] = Field(default_factory=dict)
    buys_final: bool = False
    sizing_equity: float | None = None
    window_ends: str | None = None

    def keys(self) -> dict[str, str]:
        index = {"unsettled": "decisions", "unsettled_sk": self.decision_id} if self.state == "working" else {}
        month = {"month": f"decisions#{self.received_at[:7]}", "month_sk": f"{self.received_at}#{self.decision_id}"}
        return {**decision_key(self.decision_id), **month, **index}


class OrderRecord(Record):
    """One intent and what became of it. `status` is ours until the broker has answered, then the broker's own word."""

    kind: ClassVar[str] = "order"
    client_order_id: str
    decision_id: str
    slot: str
    symbol: str
    side: Side
    quantity: Decimal
    price: float
    attempt: int = 0
    status: str = "pending"
    reason: str | None = None
    risk: str | None = None
    created_at: str
    updated_at: str | None = None
    unknown_since: str | None = None
    missing_since: str | None = None
    broker_id: str | None = None
    filled_quantity: Decimal = Decimal(0)
    filled_average_price: Decimal | None = None
    filled_at: str | None = None
    fills: int = 0
    version: int = 0

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def traded(self) -> Decimal:
        """Dollars this order has moved, or may still move while it can change."""
        price = self.filled_average_price if self.filled_average_price is not None else Decimal(repr(self.price))
        return (self.filled_quantity if self.terminal else self.quantity) * price

    def keys(self) -> dict[str, str]:
        index = {} if self.terminal else {"unsettled": "orders", "unsettled_sk": self.client_order_id}
        return {
            **order_key(self.client_order_id),
            "month": f"orders#{self.created_at[:7]}",
            "month_sk": f"{self.created_at}#{self.client_order_id}",
            **index,
        }


class Fill(Record):
    """One rise of an order's cumulative filled quantity. Append-only; `sequence` counts from 1 within its order."""

    kind: ClassVar[str] = "fill"
    client_order_id: str
    decision_id: str
    sequence: int
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    cumulative: Decimal
    time: str

    def keys(self) -> dict[str, str]:
        return {
            "pk": f"order#{self.client_order_id}",
            "sk": f"fill#{self.sequence:06d}",
            "month": f"fills#{self.time[:7]}",
            "month_sk": f"{self.time}#{self.client_order_id}#{self.sequence:06d}",
        }


class Held(BaseModel):
    """A position in a snapshot: shares, and the session's closing price."""

    model_config = ConfigDict(frozen=True)
    quantity: Decimal
    close: Decimal


class Snapshot(Record):
    """The account after a session's close, from the broker. Taken once a session."""

    kind: ClassVar[str] = "snapshot"
    session: str
    cash: Decimal
    equity: Decimal
    positions: dict[str, Held] = Field(default_factory=dict)
    orders: int = 0
    fills: int = 0
    open_orders: int = 0
    taken_at: str

    def keys(self) -> dict[str, str]:
        return {"pk": "snapshot", "sk": self.session}


class TradingState(Record):
    kind: ClassVar[str] = "state"
    state: State = "active"
    reason: str = "never set"
    since: str | None = None
    by: str | None = None

    def keys(self) -> dict[str, str]:
        return {"pk": "state", "sk": "trading"}


class StateChange(Record):
    """The audit trail of the trading state: append-only, one item a change."""

    kind: ClassVar[str] = "state_change"
    state: State
    was: State
    reason: str
    time: str
    by: str

    def keys(self) -> dict[str, str]:
        return {"pk": f"state_change#{self.time[:7]}", "sk": f"{self.time}#{self.state}"}


class Breakers(Record):
    """What the drawdown and daily-loss breakers remember, and the account this app is pinned to (the first it saw).

    `tripped`, by name with its detail, latches until a person sets the trading state to active again.
    """

    kind: ClassVar[str] = "breakers"
    peak_equity: Decimal = Decimal(0)
    last_close_equity: Decimal = Decimal(0)
    last_close_session: str | None = None
    tripped: dict[str, str] = Field(default_factory=dict)
    account_id: str | None = None
    version: int = 0

    def keys(self) -> dict[str, str]:
        return {"pk": "state", "sk": "breakers"}


class ServedModel(Record):
    """Who decides (`incumbent`) or only watches (`shadow`)."""

    kind: ClassVar[str] = "model"
    role: Literal["incumbent", "shadow"]
    policy: Literal["equal-weight", "random", "endpoint"]
    spec: str
    endpoint: str | None = None
    model_version: str
    kappa: float
    feature_hash: str = ""
    since: str
    trained_until: str | None = None
    model_hash: str | None = None

    def keys(self) -> dict[str, str]:
        return {"pk": "model", "sk": self.role}


class ShadowDecision(Record):
    kind: ClassVar[str] = "shadow_decision"
    slot: str
    model_version: str
    data_as_of: str
    weights: dict[str, float]
    scores: dict[str, float] = Field(default_factory=dict)
    observation_hash: str = ""
    time: str

    def keys(self) -> dict[str, str]:
        return {
            "pk": f"shadow#{self.slot}",
            "sk": self.model_version,
            "month": f"shadow#{self.slot[:7]}",
            "month_sk": f"{self.slot}#{self.model_version}",
        }


class AlertRecord(Record):
    """One alert of a rule in a session, whose key makes the second of the same a no-op."""

    kind: ClassVar[str] = "alert"
    rule: str
    session: str
    subject: str
    detail: str
    time: str

    def keys(self) -> dict[str, str]:
        return {"pk": f"alert#{self.session[:7]}", "sk": f"{self.session}#{self.rule}"}


def decision_key(decision_id: str) -> dict[str, str]:
    return {"pk": f"decision#{decision_id}", "sk": "decision"}


def order_key(client_order_id: str) -> dict[str, str]:
    return {"pk": f"order#{client_order_id}", "sk": "order"}
