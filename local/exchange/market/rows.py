"""The rows of the recorded market, plain values: trades, quotes, bars, minutes, corporate actions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from trading_env.errors import PapertapeError

MINUTE = timedelta(minutes=1)
ROUND_LOT = 100
#: From a dividend's ex-date to the day it is paid, and so processed: none is recorded, and SPY's six weeks are the longest of the usual.
PAID_AFTER = timedelta(days=42)


class RecordedMarketError(PapertapeError, ValueError):
    """The recorded tables cannot be served; the message names the row and what is allowed."""


@dataclass(frozen=True, slots=True)
class RecordedTrade:
    price: Decimal
    at: datetime


@dataclass(frozen=True, slots=True)
class RecordedQuote:
    """Prices in US dollars, sizes in shares; a side that was not quoted is 0 and 0, as the vendor prints it."""

    bid: Decimal
    bid_size: int
    ask: Decimal
    ask_size: int
    at: datetime


@dataclass(frozen=True, slots=True)
class RecordedBar:
    start: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: int


@dataclass(frozen=True, slots=True)
class Action:
    """`kind` "split": `value` new shares for each old one; "dividend": `value` US dollars per share.

    As with the vendor a split is processed on its ex-date, and a cash dividend on the day it is paid.
    """

    symbol: str
    ex_date: date
    kind: str
    value: Decimal

    @property
    def process_date(self) -> date:
        return self.ex_date + PAID_AFTER if self.kind == "dividend" else self.ex_date


@dataclass(frozen=True, slots=True)
class RecordedMinute:
    """What is known of one symbol as a minute ends."""

    trade: RecordedTrade
    quote: RecordedQuote
    bar: RecordedBar


def start_of(bar: RecordedBar) -> datetime:
    return bar.start


def end_of(minute: datetime) -> datetime:
    """The last millisecond of the minute: what is recorded of it is its state at the end, and flooring gives its start back."""
    return minute + MINUTE - timedelta(milliseconds=1)
