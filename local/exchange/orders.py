"""What an account is made of: orders as asked for and as they are, fills, positions, and the refusal of a request. Values only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Literal, Self
from uuid import UUID

from local.exchange.money import EXACT, RATIOS, SHOWN
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
    STOP = "stop"
    STOP_LIMIT = "stop_limit"
    TRAILING_STOP = "trailing_stop"


class OrderClass(StrEnum):
    """Which orders stand together: an entry with exits (bracket, oto), or two exits of which one fills (oco)."""

    SIMPLE = "simple"
    BRACKET = "bracket"
    OCO = "oco"
    OTO = "oto"


class TimeInForce(StrEnum):
    DAY = "day"
    GTC = "gtc"
    OPG = "opg"
    CLS = "cls"
    IOC = "ioc"
    FOK = "fok"


class Status(StrEnum):
    """An order is accepted until the session in which it is routed, then new; a leg is held until it is its turn."""

    ACCEPTED = "accepted"
    NEW = "new"
    HELD = "held"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    DONE_FOR_DAY = "done_for_day"
    REPLACED = "replaced"


OPEN = frozenset({Status.ACCEPTED, Status.NEW, Status.HELD, Status.PARTIALLY_FILLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """An order as asked for; exactly one of `quantity` (shares) and `notional` (US dollars) is given.

    A trailing stop has one of `trail_price` (US dollars) and `trail_percent`. `legs` are the exits that come with it: take profit first.
    """

    symbol: str
    side: Side
    kind: OrderType = OrderType.MARKET
    quantity: Decimal | None = None
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.DAY
    client_order_id: str | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    extended_hours: bool = False
    order_class: OrderClass = OrderClass.SIMPLE
    legs: tuple[Ticket, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be different in an order that takes another's place; None stays as it was, but for the id, which is always a new one."""

    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail: Decimal | None = None
    time_in_force: TimeInForce | None = None
    client_order_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeOrder:
    """One state of an order. `reserved` is the cash that an open buy keeps; `ended_at` is when it filled or ended.

    `filled_price` is the average of its fills, to ten decimals where it is one; `filled_amount` is their exact sum. `status_override` is
    what it shows in place of its status, until it is released. `replaces` and `replaced_by` are ids of orders. A stop is `triggered` once
    the market has reached it, and an ordinary order from then on; `high_water` is the best price that a trailing stop has seen.
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
    triggered: bool = False
    high_water: Decimal | None = None

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

    def filled(self, quantity: Decimal, *, price: Decimal, at: datetime) -> ExchangeOrder:
        """The order with a fill more; what that makes of its status is the book's to say."""
        whole = EXACT.add(self.filled_quantity, quantity)
        amount = EXACT.add(self.filled_amount, EXACT.multiply(quantity, price))
        average = RATIOS.divide(amount, whole).quantize(SHOWN, context=RATIOS) if self.filled_quantity else price
        changed = replace(self, filled_quantity=whole, filled_amount=amount, filled_price=average, updated_at=at)
        return replace(changed, status_override=None, reserved=Decimal(0))


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

    @classmethod
    def of(cls, order: ExchangeOrder, *, name: str, quantity: Decimal, price: Decimal, fee: Decimal, left: Decimal) -> Self:
        """The fill that `order` has just got, with the id `name`."""
        return cls(
            id=name,
            order_id=order.id,
            client_order_id=order.client_order_id,
            symbol=order.ticket.symbol,
            side=order.ticket.side,
            quantity=quantity,
            price=price,
            fee=fee,
            at=order.updated_at,
            total=order.filled_quantity,
            left=left,
        )

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
