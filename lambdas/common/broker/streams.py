"""What follows a broker by its streams needs of it: messages as records, a listener for them, and sockets that open themselves anew.

Nothing here can order. Times are the vendor's, UTC. What a stream sends and nobody can read is counted by the listener, never guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

from lambdas.common.broker.port import BrokerError

#: The two sockets: the account's orders, and the market's data.
Feed = Literal["orders", "market data"]


class StreamRefused(BrokerError):  # noqa: N818 -- the tree names outcomes
    """The broker will not stream to these keys, or not this much: trying again changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteTick:
    """A quote as the feed sent it, zero and crossed included."""

    symbol: str
    at: datetime
    bid: float
    bid_size: float
    ask: float
    ask_size: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeTick:
    """`identity` is the same whenever this trade is sent, and another trade's never."""

    symbol: str
    at: datetime
    identity: str
    price: float
    size: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeCorrection:
    """The trade `identity` was not as told: `trade` stands in its place, or nothing does."""

    symbol: str
    at: datetime
    identity: str
    trade: TradeTick | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TradedMinute:
    """The bar of the minute that begins at `minute`. The vendor may send one again, corrected: `corrected` stands above the first."""

    symbol: str
    minute: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: int
    vwap: float | None
    corrected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltNotice:
    symbol: str
    at: datetime
    status: Literal["halted", "resumed"]
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBand:
    """Limit-up limit-down: from now on no trade below `down` or above `up`."""

    symbol: str
    at: datetime
    down: float
    up: float
    indicator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderNotice:
    """An order of the account has changed; `event` and `status` are the vendor's words, `filled` is the quantity in all."""

    client_order_id: str
    symbol: str
    at: datetime
    event: str
    status: str
    filled: Decimal


Message = QuoteTick | TradeTick | TradeCorrection | TradedMinute | HaltNotice | PriceBand | OrderNotice


class StreamListener(Protocol):
    """Called in the event loop, one message after the other; it must not block and must not raise."""

    def heard(self, feed: Feed) -> None:
        """The socket said something, be it only that it lives."""

    def message(self, message: Message) -> None: ...

    def unreadable(self, feed: Feed, problem: str) -> None:
        """A message could not be read; `problem` names what is wrong with it."""

    def subscribed(self, feed: Feed) -> None:
        """From now on messages come."""

    def lost(self, feed: Feed) -> None:
        """The socket is gone; it is opened anew, later and later if that fails."""


class MarketStreams(Protocol):
    """Both sockets of one account."""

    async def follow(self, listener: StreamListener, *, symbols: Sequence[str]) -> None:
        """Tell `listener` all of `symbols` and of the account's orders until `stop`; raise `StreamRefused` where that is no use."""

    async def probe(self) -> None:
        """Ask the sockets for a sign of life where they are quiet by nature; `heard` tells the answer."""

    async def reopen(self, feed: Feed) -> None:
        """Close the socket, which opens itself anew."""

    async def stop(self) -> None:
        """End `follow`, within a second or two."""
