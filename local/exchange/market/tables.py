"""The recorded tables, checked and indexed by symbol and time. What cannot be served is a `RecordedMarketError` that names the row.

Every table is checked whole at the start; a row becomes an object when it is first asked for, as most of sixteen years never are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt
import pandas as pd

from local.exchange.market.rows import MINUTE, Action, RecordedBar, RecordedMarketError, RecordedQuote
from local.exchange.sessions import ExchangeCalendar

Row = TypeVar("Row")
PRICES, SIDES = ["open", "high", "low", "close"], ["bid", "bid_size", "ask", "ask_size"]


class Rows(Sequence[Row]):
    """`make(moment, *numbers)` of each row, once it is asked for; `numbers` is (rows, columns), `moments` has one entry per row."""

    def __init__(self, make: Callable[..., Row], moments: Sequence[datetime], numbers: npt.NDArray[np.float64]) -> None:
        self._make, self._moments, self._numbers = make, moments, numbers
        self._made: list[Row | None] = [None] * len(moments)

    def __len__(self) -> int:
        return len(self._moments)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        row = self._made[index]
        if row is None:
            row = self._made[index] = self._make(self._moments[index], *self._numbers[index].tolist())
        return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Daily:
    """One symbol's sessions in order; each has one entry per bar."""

    bars: Rows[RecordedBar]
    dates: list[date]
    opens: list[datetime]
    closes: list[datetime]


@dataclass(frozen=True, slots=True)
class Minutes(Generic[Row]):
    """Rows of one symbol with the moment from which each is known, in order."""

    known: list[datetime]
    rows: Rows[Row]

    def latest(self, now: datetime) -> Row | None:
        index = bisect_right(self.known, now) - 1
        return self.rows[index] if index >= 0 else None

    def between(self, start: datetime, end: datetime) -> list[Row]:
        """Rows that became known in [start, end]."""
        return self.rows[bisect_left(self.known, start) : bisect_right(self.known, end)]


def _decimal(value: float) -> Decimal:
    return Decimal(repr(float(value)))


def _bar(start: datetime, *numbers: float) -> RecordedBar:
    opens, high, low, close = map(_decimal, numbers[:4])
    return RecordedBar(start, open=opens, high=high, low=low, close=close, volume=int(numbers[4]))


def _quote(at: datetime, bid: float, bid_size: float, ask: float, ask_size: float) -> RecordedQuote:
    return RecordedQuote(*_side(bid, bid_size), *_side(ask, ask_size), at=at)


def _side(price: float, size: float) -> tuple[Decimal, int]:
    return (_decimal(price), int(size)) if price > 0 else (Decimal(0), 0)


def daily_tables(bars: pd.DataFrame, calendar: ExchangeCalendar) -> dict[str, Daily]:
    by_date = {session.date: session for session in calendar.sessions}
    found: dict[str, Daily] = {}
    for symbol, table in _by_symbol(bars, "session"):
        dates = list(table["session"].dt.date)
        for day in dates:
            if day not in by_date:
                raise RecordedMarketError(f"{symbol} {day}: a bar needs a session, XNYS was closed on that day")
        for before, day in pairwise(dates):
            if before == day:
                raise RecordedMarketError(f"{symbol} {day}: one bar per session is allowed, there were two")
        sessions = [by_date[day] for day in dates]
        found[symbol] = Daily(
            bars=_bars(table, "session", [session.midnight for session in sessions]),
            dates=dates,
            opens=[session.open for session in sessions],
            closes=[session.close for session in sessions],
        )
    return found


def action_rows(actions: pd.DataFrame, symbols: Sequence[str]) -> tuple[Action, ...]:
    rows = actions[["symbol", "ex_date", "kind", "value"]].itertuples(index=False, name=None)
    known = [
        Action(s, pd.Timestamp(day).date(), kind, _value(value, f"{s} {day}", kind)) for s, day, kind, value in rows if s in set(symbols)
    ]
    return tuple(sorted(known, key=lambda a: (a.ex_date, a.symbol, a.kind)))


def _value(value: float, row: str, name: str) -> Decimal:
    found = _decimal(value)
    if not found.is_finite() or found <= 0:
        raise RecordedMarketError(f"{row}: {name} must be a number above 0, was {value}")
    return found


def minute_trade_tables(trades: pd.DataFrame | None, symbols: Sequence[str]) -> dict[str, Minutes[RecordedBar]]:
    found: dict[str, Minutes[RecordedBar]] = {}
    for symbol, table in _by_symbol(trades, "ts"):
        if symbol in symbols:
            starts = _moments(table)
            found[symbol] = Minutes([start + MINUTE for start in starts], _bars(table, "ts", starts))
    return found


def minute_quote_tables(quotes: pd.DataFrame | None, symbols: Sequence[str]) -> dict[str, Minutes[RecordedQuote]]:
    """A side whose price is not above 0 was not quoted."""
    found: dict[str, Minutes[RecordedQuote]] = {}
    for symbol, table in _by_symbol(quotes, "ts"):
        if symbol in symbols:
            moments, numbers = _moments(table), table[SIDES].to_numpy(np.float64)
            quoted = numbers[:, [0, 0, 2, 2]] > 0
            _require(np.isfinite(numbers) | ~quoted, table, "ts", SIDES, "a number")
            found[symbol] = Minutes(moments, Rows(_quote, moments, numbers))
    return found


def _by_symbol(table: pd.DataFrame | None, time: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each symbol's rows, by `time`."""
    if table is not None:
        for symbol, rows in table.sort_values(["symbol", time]).groupby("symbol"):
            yield str(symbol), rows


def _moments(table: pd.DataFrame) -> list[datetime]:
    return list(pd.DatetimeIndex(table["ts"]).tz_convert(UTC).to_pydatetime())


def _bars(table: pd.DataFrame, time: str, starts: Sequence[datetime]) -> Rows[RecordedBar]:
    numbers = table[[*PRICES, "volume"]].to_numpy(np.float64)
    prices, volumes = numbers[:, :4], numbers[:, 4:]
    _require(np.isfinite(prices) & (prices > 0), table, time, PRICES, "a number above 0")
    _require(np.isfinite(volumes), table, time, ["volume"], "a number")
    return Rows(_bar, starts, numbers)


def _require(valid: npt.NDArray[np.bool_], table: pd.DataFrame, time: str, columns: Sequence[str], allowed: str) -> None:
    """Raise `RecordedMarketError` for the first number of `columns` that is not `valid`."""
    if not valid.all():
        row, column = np.argwhere(~valid)[0]
        symbol, when, number = table.iloc[row][["symbol", time, columns[column]]]
        raise RecordedMarketError(f"{symbol} {when}: {columns[column]} must be {allowed}, was {number}")
