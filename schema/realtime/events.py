"""What the runner raises on the app's event bus: the body (`detail`) of each event, by its `detail-type`.

Facts, never commands: a function that acts on one reads the broker and the ledger itself, as it would by its schedule. An event may come
late, twice, or never; the schedules stay. Times are UTC: `at` is the vendor's, `received_at` the runner's clock.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

SOURCE = "papertape.runner"

Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Price = Annotated[Decimal, Field(gt=0)]


class MarketEvent(BaseModel):
    """`detail_type`: what the bus calls it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    detail_type: ClassVar[str]

    at: AwareDatetime
    received_at: AwareDatetime


class OrderUpdated(MarketEvent):
    """An order at the broker has changed; `event` and `status` are the vendor's words."""

    detail_type: ClassVar[str] = "order updated"

    client_order_id: Name
    symbol: Name
    event: Name
    status: Name


class MinuteClosed(MarketEvent):
    """The minute that began at `minute` is over: who has a bar of it, and who has none."""

    detail_type: ClassVar[str] = "minute closed"

    minute: AwareDatetime
    symbols: tuple[Name, ...]
    missing: tuple[Name, ...]


class PriceMoved(MarketEvent):
    """`change`: the price over that of `minutes` ago, less 1; beyond the threshold of the settings, up or down."""

    detail_type: ClassVar[str] = "price moved"

    symbol: Name
    price: Price
    before: Price
    change: float
    minutes: Annotated[int, Field(ge=1)]


class TradingStatusChanged(MarketEvent):
    """The exchange halted or resumed a name; `code` and `reason` are the tape's."""

    detail_type: ClassVar[str] = "trading status changed"

    symbol: Name
    status: Literal["halted", "resumed"]
    code: Name
    reason: str


class PriceBandReached(MarketEvent):
    """A limit-up limit-down band: trades outside of `down` to `up` are not allowed; `indicator` is the tape's."""

    detail_type: ClassVar[str] = "price band reached"

    symbol: Name
    down: Price
    up: Price
    indicator: str


class FeedSilent(MarketEvent):
    """A socket said nothing for `seconds` of an open market, and is opened anew; `at` is its last message."""

    detail_type: ClassVar[str] = "feed silent"

    feed: Literal["orders", "market data"]
    seconds: Annotated[float, Field(gt=0)]


class FeedResumed(MarketEvent):
    """A socket is open, for the first time or again; what happened in the `seconds` before, nobody was told. `at` is the market's time."""

    detail_type: ClassVar[str] = "feed resumed"

    feed: Literal["orders", "market data"]
    seconds: Annotated[float, Field(ge=0)]


EVENTS: tuple[type[MarketEvent], ...] = (
    OrderUpdated,
    MinuteClosed,
    PriceMoved,
    TradingStatusChanged,
    PriceBandReached,
    FeedSilent,
    FeedResumed,
)
