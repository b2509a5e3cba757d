"""What this app needs of a broker and of a market-data vendor: two ports, the records that pass through them, and how a call can end.

An adapter (`alpaca` is one) translates its vendor's words into these and lets none through; `connection` says which adapter is used.
Quantities and money are `Decimal`, times are UTC, and nothing that a vendor left out is made up.

BrokerError
├── BrokerUnavailable   a read failed: nothing is known, which is never "nothing there"
│   ├── NotFound        a read was answered: the broker does not have this
│   └── QueryRefused    a read was answered: the broker does not take this question
├── Rejected            a definite refusal of an order; says why as far as it is understood
│   └── AlreadyAccepted the client order id was used before: the order was accepted then, ask for it
├── RateLimited         too many questions, and the budget is not back in time: the order was not accepted
├── Unresolved          an order may or may not have been accepted; only the broker can tell
└── BrokerRefused       configuration: address, secret or switches; one line with the remedy
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, Protocol

from schema.exchange_time import new_york_date
from schema.slot import MinutesFeed
from trading_env.errors import PapertapeError
from trading_env.orders.order_state import BrokerStatus, Side

#: Why an order was refused, as far as anything follows from it.
Refusal = Literal["wash_trade", "buying_power", "not_fractionable", "inactive", "other"]


class BrokerError(PapertapeError, RuntimeError):
    """Base of what an adapter raises."""


class BrokerUnavailable(BrokerError):  # noqa: N818 -- the tree names outcomes
    """A read failed."""


class NotFound(BrokerUnavailable):
    """The broker answered that it does not have this."""


class QueryRefused(BrokerUnavailable):
    """The broker answered that the question is not allowed as it was asked."""


class Rejected(BrokerError):  # noqa: N818
    """A definite refusal of an order."""

    def __init__(self, message: str, *, refusal: Refusal = "other") -> None:
        super().__init__(message)
        self.refusal = refusal


class AlreadyAccepted(Rejected):
    """The client order id was accepted before."""


class RateLimited(BrokerError):  # noqa: N818
    """Too many questions until the time to try again ended; not accepted."""


class Unresolved(BrokerError):  # noqa: N818
    """Nobody but the broker knows whether the order was accepted."""


class BrokerRefused(BrokerError):  # noqa: N818
    """This configuration may not reach a broker."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The broker's time; the only "now" of the market rules. All UTC."""

    now: datetime
    is_open: bool
    next_open: datetime
    next_close: datetime

    @property
    def session_date(self) -> date:
        """Date in New York now; `sessions` tells whether it is a session."""
        return new_york_date(self.now)


@dataclass(frozen=True, kw_only=True)
class Session:
    date: date
    open: datetime
    close: datetime


@dataclass(frozen=True, kw_only=True)
class Account:
    """`status` is the broker's word for it, to be shown; `blocked` is what counts."""

    id: str
    status: str
    cash: Decimal
    buying_power: Decimal
    equity: Decimal
    blocked: bool


@dataclass(frozen=True, kw_only=True)
class Position:
    symbol: str
    quantity: Decimal
    available: Decimal


@dataclass(frozen=True, kw_only=True)
class Order:
    """An order as the broker shows it. `id`, `replaced_by` and `replaces` are the broker's own ids."""

    id: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    filled_quantity: Decimal
    filled_average_price: Decimal | None
    status: BrokerStatus
    submitted_at: str
    filled_at: str | None
    replaced_by: str | None = None
    replaces: str | None = None


@dataclass(frozen=True, kw_only=True)
class Quote:
    symbol: str
    ts: str
    bid: float
    bid_size: float
    ask: float
    ask_size: float


@dataclass(frozen=True, kw_only=True)
class Trade:
    symbol: str
    ts: str
    price: float


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A listed name as the broker trades it: whether at all now, and whether in fractions of a share."""

    symbol: str
    tradable: bool
    fractionable: bool


class Submittable(Protocol):
    """What `submit` needs to know of an order."""

    @property
    def symbol(self) -> str: ...
    @property
    def side(self) -> str: ...
    @property
    def quantity(self) -> Decimal: ...
    @property
    def client_order_id(self) -> str: ...


class Calendar(Protocol):
    def sessions(self, start: date, end: date) -> list[Session]:
        """Return the sessions from `start` to `end`, both included; half days have their own close."""


class Broker(Calendar, Protocol):
    """One account: its orders, its positions, its clock. A read that fails raises `BrokerUnavailable`."""

    @property
    def list_limit(self) -> int:
        """What one list of orders holds at most."""

    @property
    def real_money(self) -> bool:
        """Whether a switch for real money is on, be it one of several."""

    def clock(self) -> Clock: ...

    def account(self) -> Account: ...

    def positions(self) -> dict[str, Position]:
        """Return the positions by symbol. A failed query raises; it is never an empty book."""

    def open_orders(self) -> list[Order]:
        """Return at most `list_limit` orders that the broker works."""

    def orders_since(self, moment: datetime) -> list[Order]:
        """Return at most `list_limit` orders submitted after `moment`, whatever became of them, oldest first: one question for many."""

    def order(self, order_id: str) -> Order | None:
        """Ask for one order by the broker's own id; None only if the broker answered that it has none."""

    def order_by_client_id(self, client_order_id: str) -> Order | None:
        """Ask for one order by our id; None only if the broker answered that it has none."""

    def submit(self, order: Submittable, *, retry_timeout: float) -> Order:
        """Send one market day order of `order.quantity` shares, once.

        Only where the broker was asked too often, which says that nothing was done, is it sent again, with the same id, if the broker's
        budget is back within `retry_timeout` seconds. Raises `Rejected`, `AlreadyAccepted`, `RateLimited` or `Unresolved`, nothing else.
        """

    def cancel(self, order_id: str) -> None:
        """Ask the broker to cancel; the order's status tells whether it was in time. Raises as `submit` does."""


class AccountReads(Calendar, Protocol):
    """What may be asked of an account and its market before anything trades; nothing here can order. A failed read: `BrokerUnavailable`."""

    def clock(self) -> Clock: ...

    def account(self) -> Account: ...

    def assets(self) -> dict[str, Asset]:
        """Return the active US shares by symbol; a name that is not there is not active."""

    def minute_bars(self, symbols: Sequence[str], start: datetime, end: datetime, *, feed: MinutesFeed) -> list[dict[str, Any]]:
        """As `MarketData.minute_bars`: whether the account's plan includes a feed is known by asking."""


class MarketData(Calendar, Protocol):
    """Bars, quotes, trades and corporate actions of listed names. A read that fails raises `BrokerUnavailable`."""

    def latest_quotes(self, symbols: Sequence[str]) -> dict[str, Quote]:
        """Return the newest quote of each symbol that has one; prices as the feed sent them, zero and crossed included."""

    def latest_trades(self, symbols: Sequence[str]) -> dict[str, Trade]:
        """Return the newest trade of each symbol that has one, at a price above 0."""

    def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> list[dict[str, Any]]:
        """Return raw (unadjusted) daily bars from `start` to `end`, both included, by symbol and time.

        Rows are symbol, ts, open, high, low, close, volume, and trade_count and vwap where there are any.
        """

    def minute_bars(self, symbols: Sequence[str], start: datetime, end: datetime, *, feed: MinutesFeed) -> list[dict[str, Any]]:
        """Return raw (unadjusted) one-minute bars that begin from `start` to `end`, both included, by symbol and time.

        Rows as `daily_bars`, `ts` the minute's start. A minute without a trade has no bar.
        """

    def corporate_actions(self, symbols: Sequence[str], start: date, end: date) -> list[dict[str, Any]]:
        """Return all actions of `symbols` with an ex-date from `start` to `end`, each once, as far as the vendor knows them.

        Rows are id (the vendor's own), symbol, ex_date, kind, value, and action, which says which of `corporate_actions.ACTION_RULES` it
        is. `kind` is split or dividend, or break for what cannot be applied; the value of a break is None. An action without an ex-date
        has the day from which it counts.
        """
