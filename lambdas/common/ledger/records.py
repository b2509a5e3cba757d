"""The ledger's items: what is stored, in which type, under which key.

A model knows its own key and index attributes (`keys`), so that no caller builds one by hand. Times are ISO 8601 UTC strings from events or
from the broker's clock. `docs/ledger.md` lists every access pattern.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lambdas.common.ledger.explanation import Explanation
from lambdas.common.ledger.item import Record
from schema.api_requests import State
from trading_env.orders.order_state import ENDED, Life, OrderStatus, Side

#: Whose orders are found at the broker and not in the ledger: external ones (stored as "foreign"), or ours when the ledger was lost. No
#: decision has such an id.
EXTERNAL, RECOVERED = "foreign", "recovered"

#: States of an order that nobody asks for any more.
TERMINAL = ENDED


class PlannedOrder(BaseModel):
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
    """One decision and its batch. `plan` is written before the first order, `buys_final` once, after the last sell.

    After that an order is only ever added to the plan: the second attempt at one that the broker turned down.
    """

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
    scores: dict[str, float] = Field(default_factory=dict)
    plan: tuple[PlannedOrder, ...] | None = None
    refused: dict[str, str] = Field(default_factory=dict)
    buys_final: bool = False
    sizing_equity: float | None = None
    window_ends: str | None = None

    def keys(self) -> dict[str, str]:
        index = {"unsettled": "decisions", "unsettled_sk": self.decision_id} if self.state == "working" else {}
        month = {"month": f"decisions#{self.received_at[:7]}", "month_sk": f"{self.received_at}#{self.decision_id}"}
        return {**decision_key(self.decision_id), **month, **index}


_STATUSES = frozenset(status.value for status in OrderStatus)


def _status_as_stored(value: object) -> object:
    """Items of before keep the broker's own word for an order that it works."""
    return OrderStatus.NEW if isinstance(value, str) and value not in _STATUSES else value


StoredStatus = Annotated[OrderStatus, BeforeValidator(_status_as_stored)]


class OrderRecord(Record):
    """One order and what became of it. `status` is ours until the broker has shown the order, then the broker's.

    `refusal` classes the broker's definite no (`port.Refusal`). An order that a person put in the place of ours has `replaces`, ours
    has `replaced_by`: client order ids. `sent_at` is when it was last about to be sent again. `price` is what it was sized at,
    `arrival_price` the quote mid read last before it was first sent.
    """

    kind: ClassVar[str] = "order"
    client_order_id: str
    decision_id: str
    slot: str
    symbol: str
    side: Side
    quantity: Decimal
    price: float
    arrival_price: float | None = None
    attempt: int = 0
    status: StoredStatus = OrderStatus.PENDING
    reason: str | None = None
    refusal: str | None = None
    risk: str | None = None
    created_at: str
    sent_at: str | None = None
    updated_at: str | None = None
    unknown_since: str | None = None
    missing_since: str | None = None
    broker_id: str | None = None
    replaces: str | None = None
    replaced_by: str | None = None
    filled_quantity: Decimal = Decimal(0)
    filled_average_price: Decimal | None = None
    filled_at: str | None = None
    fills: int = 0
    version: int = 0

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def in_doubt(self) -> bool:
        """Whether the broker may have it or not."""
        return self.status in {OrderStatus.PENDING, OrderStatus.UNKNOWN} and self.broker_id is None

    @property
    def life(self) -> Life:
        average = self.filled_average_price
        return Life(status=self.status, shown=self.broker_id is not None, filled=self.filled_quantity, average=average)

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


class OrderOfDay(Record):
    """Where an order of a day is found at once: an index of the table may lag, and risk counts the orders of the last second."""

    kind: ClassVar[str] = "order_of_day"
    day: str
    client_order_id: str

    def keys(self) -> dict[str, str]:
        return {"pk": f"day#{self.day}", "sk": f"order#{self.client_order_id}"}


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
    """The account after a session's close, from the broker. Taken once per session.

    `closes` are the prices of what was ordered and is not held; `carried`, by name, why a position has the price of an earlier session;
    `drift`, by name, what our fills and the splits since the last snapshot do not explain.
    """

    kind: ClassVar[str] = "snapshot"
    session: str
    cash: Decimal
    equity: Decimal
    positions: dict[str, Held] = Field(default_factory=dict)
    orders: int = 0
    fills: int = 0
    open_orders: int = 0
    account_id: str | None = None
    closes: dict[str, Decimal] = Field(default_factory=dict)
    carried: dict[str, str] = Field(default_factory=dict)
    drift: dict[str, str] = Field(default_factory=dict)
    taken_at: str

    def keys(self) -> dict[str, str]:
        return {"pk": "snapshot", "sk": self.session}


class Attribution(Record):
    """Why a session's book differs from the ideal execution of its decision, in dollars by part (trading_env/evaluation/attribution.py).

    `live` and `ideal` are by how much the book's worth changed. Written once, at the next decision, from bars that were not known before.
    """

    kind: ClassVar[str] = "attribution"
    session: str
    decision_id: str | None = None
    live: float
    ideal: float
    parts: dict[str, float]

    def keys(self) -> dict[str, str]:
        return {"pk": "attribution", "sk": self.session}


class TradingState(Record):
    """`automatic`: no person set it. `version` counts the changes."""

    kind: ClassVar[str] = "state"
    state: State = "active"
    reason: str = "never set"
    since: str | None = None
    by: str | None = None
    automatic: bool = False
    version: int = 0

    def keys(self) -> dict[str, str]:
        return {"pk": "state", "sk": "trading"}


class StateChange(Record):
    """The audit trail of the trading state: append-only, one item per change, numbered by the state's version.

    `rearmed` are the breakers that it cleared, with their details; `account` the account that it took for this app's own.
    """

    kind: ClassVar[str] = "state_change"
    state: State
    was: State
    reason: str
    time: str
    by: str
    automatic: bool = False
    rearmed: dict[str, str] = Field(default_factory=dict)
    account: str | None = None
    version: int

    def keys(self) -> dict[str, str]:
        return {"pk": f"state_change#{self.time[:7]}", "sk": f"{self.time}#{self.version:06d}"}


class Breakers(Record):
    """What the drawdown and daily-loss breakers remember, and the account this app is pinned to (the first it traded).

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


class BrokerState(Record):
    """The broker's clock and account as reconcile read them last: what a status can say of now without asking the broker."""

    kind: ClassVar[str] = "broker_state"
    now: str
    is_open: bool
    next_open: str
    next_close: str
    account_id: str
    equity: Decimal

    def keys(self) -> dict[str, str]:
        return {"pk": "state", "sk": "broker"}


class ServedModel(Record):
    """What was approved (`incumbent`) or rejected (`shadow`), by the gate or by a person; `roles` says which of the two trades.

    `refused`: the gate's own sentences about the checks that failed; none of a model that it passed, or whose verdict is not known.
    `model_uri`: the s3:// archive that its endpoint serves.
    """

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
    evaluated_until: str | None = None
    model_hash: str | None = None
    model_uri: str | None = None
    refused: tuple[str, ...] = ()

    @property
    def known_until(self) -> date:
        """The last session that it was trained or judged on, else its deployment: its age counts from here."""
        return date.fromisoformat((self.evaluated_until or self.trained_until or self.since)[:10])

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
    explanation: Explanation | None = None
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
