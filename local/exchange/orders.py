"""What an account is made of: orders as asked for and as they are, fills, positions, and the refusal of a request. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Literal
from uuid import UUID

from local.exchange.money import EXACT, RATIOS
from trading_env.errors import PapertapeError

NAMESPACE = UUID("6f8a4f5e-3a52-5b1e-9c1c-7b1d4d1d6a52")


class Refused(PapertapeError):  # noqa: N818 the vendor's word for it
    """The request is turned down for good: HTTP `status`, the vendor's `code` and `message`, and the numbers behind it.

    The vendor's gateway, which knows keys and no orders, has no code.
    """

    def __init__(self, status: int, code: int | None, message: str, **details: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.details = status, code, message, details


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


class OrderType(StrEnum):
    MARKET = "market"
    LIMIT = "limit"


class TimeInForce(StrEnum):
    DAY = "day"
    GTC = "gtc"
    OPG = "opg"
    CLS = "cls"
    IOC = "ioc"
    FOK = "fok"


class Status(StrEnum):
    ACCEPTED = "accepted"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    DONE_FOR_DAY = "done_for_day"
    REPLACED = "replaced"


OPEN = frozenset({Status.ACCEPTED, Status.PARTIALLY_FILLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """An order as asked for; exactly one of `quantity` (shares) and `notional` (US dollars) is given."""

    symbol: str
    side: Side
    kind: OrderType = OrderType.MARKET
    quantity: Decimal | None = None
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.DAY
    client_order_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be different in an order that takes another's place; None stays as it was, but for the id, which is always a new one."""

    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    time_in_force: TimeInForce | None = None
    client_order_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeOrder:
    """One state of an order. `reserved` is the cash that an open buy keeps; `ended_at` is when it filled or ended.

    `filled_price` is the average of its fills, to ten decimals where it is one; `filled_amount` is their exact sum. `status_override` is
    what it shows in place of its status, until it is released. `replaces` and `replaced_by` are ids of orders.
    """

    sequence: int
    id: str
    client_order_id: str
    ticket: Ticket
    status: Status
    submitted_at: datetime
    expires_at: datetime
    updated_at: datetime
    reserved: Decimal = Decimal(0)
    filled_quantity: Decimal = Decimal(0)
    filled_price: Decimal | None = None
    filled_amount: Decimal = Decimal(0)
    ended_at: datetime | None = None
    status_override: str | None = None
    replaces: str | None = None
    replaced_by: str | None = None

    def __hash__(self) -> int:
        """Cheap, and enough: an order is rarely in one status twice."""
        return hash((self.id, self.status))

    @property
    def open(self) -> bool:
        return self.status in OPEN

    @property
    def shown_status(self) -> str:
        return self.status_override or self.status.value

    @property
    def rest(self) -> Decimal:
        """Shares that are not filled yet, of an order for shares."""
        return EXACT.subtract(self.ticket.quantity or Decimal(0), self.filled_quantity)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeFill:
    """A trade of an order; `total` shares of it are filled with this one, `left` are not."""

    id: str
    order_id: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    at: datetime
    total: Decimal
    left: Decimal

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """What a corporate action did to the account: a split added `quantity` shares and `amount` US dollars, a dividend paid `amount` for
    `quantity` shares."""

    id: str
    kind: Literal["SPLIT", "DIV"]
    symbol: str
    quantity: Decimal
    amount: Decimal
    at: datetime


@dataclass(frozen=True, slots=True)
class ExchangePosition:
    """Shares held and what they cost, in US dollars, without fees."""

    quantity: Decimal
    cost: Decimal

    @property
    def average_price(self) -> Decimal:
        return RATIOS.divide(self.cost, self.quantity)
