"""The recorded tables, checked and indexed by symbol and time. What cannot be served is a `RecordedMarketError` that names the row."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

import pandas as pd

from local.exchange.market.rows import MINUTE, Action, RecordedBar, RecordedMarketError, RecordedQuote
from local.exchange.sessions import ExchangeCalendar

Row = TypeVar("Row")


@dataclass(slots=True)
class Daily:
    """One symbol's sessions in order; the four lists have one entry per bar."""

    bars: list[RecordedBar] = field(default_factory=list)
    dates: list[date] = field(default_factory=list)
    opens: list[datetime] = field(default_factory=list)
    closes: list[datetime] = field(default_factory=list)


@dataclass(slots=True)
class Minutes(Generic[Row]):
    """Rows of one symbol with the moment from which each is known, in order."""

    known: list[datetime] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def latest(self, now: datetime) -> Row | None:
        index = bisect_right(self.known, now) - 1
        return self.rows[index] if index >= 0 else None

    def between(self, start: datetime, end: datetime) -> list[Row]:
        """Rows that became known in [start, end]."""
        return self.rows[bisect_left(self.known, start) : bisect_right(self.known, end)]


def _price(value: float, row: str, name: str) -> Decimal:
    price = Decimal(repr(float(value)))
    if not price.is_finite() or price <= 0:
        raise RecordedMarketError(f"{row}: {name} must be a number above 0, was {value}")
    return price


def _bar(row: tuple[Any, ...], start: datetime) -> RecordedBar:
    symbol, when, opens, high, low, close, volume = row
    name = f"{symbol} {when}"
    return RecordedBar(
        start,
        open=_price(opens, name, "open"),
        high=_price(high, name, "high"),
        low=_price(low, name, "low"),
        close=_price(close, name, "close"),
        volume=int(volume),
    )


def daily_tables(bars: pd.DataFrame, calendar: ExchangeCalendar) -> dict[str, Daily]:
    by_date = {session.date: session for session in calendar.sessions}
    found: dict[str, Daily] = {}
    rows = bars[["symbol", "session", "open", "high", "low", "close", "volume"]].sort_values(["symbol", "session"])
    for row in rows.itertuples(index=False, name=None):
        day = row[1].date()
        session = by_date.get(day)
        if session is None:
            raise RecordedMarketError(f"{row[0]} {day}: a bar needs a session, XNYS was closed on that day")
        daily = found.setdefault(row[0], Daily())
        if daily.dates and daily.dates[-1] == day:
            raise RecordedMarketError(f"{row[0]} {day}: one bar per session is allowed, there were two")
        daily.bars.append(_bar(row, session.midnight))
        daily.dates.append(day)
        daily.opens.append(session.open)
        daily.closes.append(session.close)
    return found


def action_rows(actions: pd.DataFrame, symbols: Sequence[str]) -> tuple[Action, ...]:
    rows = actions[["symbol", "ex_date", "kind", "value"]].itertuples(index=False, name=None)
    known = [
        Action(s, pd.Timestamp(day).date(), kind, _price(value, f"{s} {day}", kind)) for s, day, kind, value in rows if s in set(symbols)
    ]
    return tuple(sorted(known, key=lambda a: (a.ex_date, a.symbol, a.kind)))


def minute_trade_tables(trades: pd.DataFrame | None, symbols: Sequence[str]) -> dict[str, Minutes[RecordedBar]]:
    found: dict[str, Minutes[RecordedBar]] = {}
    for row in _sorted_minutes(trades, ["open", "high", "low", "close", "volume"]):
        if row[0] in symbols:
            start = row[1].to_pydatetime().astimezone(UTC)
            minutes = found.setdefault(row[0], Minutes())
            minutes.known.append(start + MINUTE)
            minutes.rows.append(_bar(row, start))
    return found


def minute_quote_tables(quotes: pd.DataFrame | None, symbols: Sequence[str]) -> dict[str, Minutes[RecordedQuote]]:
    found: dict[str, Minutes[RecordedQuote]] = {}
    for symbol, ts, bid, bid_size, ask, ask_size in _sorted_minutes(quotes, ["bid", "bid_size", "ask", "ask_size"]):
        if symbol in symbols:
            at = ts.to_pydatetime().astimezone(UTC)
            minutes = found.setdefault(symbol, Minutes())
            minutes.known.append(at)
            minutes.rows.append(RecordedQuote(*_side(bid, bid_size), *_side(ask, ask_size), at=at))
    return found


def _side(price: float, size: float) -> tuple[Decimal, int]:
    return (Decimal(repr(float(price))), int(size)) if price > 0 else (Decimal(0), 0)


def _sorted_minutes(table: pd.DataFrame | None, columns: list[str]) -> list[tuple[Any, ...]]:
    if table is None:
        return []
    rows = table[["symbol", "ts", *columns]].sort_values(["symbol", "ts"])
    return list(rows.itertuples(index=False, name=None))
