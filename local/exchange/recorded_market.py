"""The recorded market as it could be known at a moment. Pure: tables in, plain values out, no clock and no disk.

Promise: nothing is answered from data after `now`. A session's open is known from its open, its bar from its close; a minute bar from
the end of its minute, a quote from its own time; a corporate action from the first moment of its ex-date, or, on an exchange that lists
only what is processed, of its process date. A symbol that has not traded yet has no price (`None`): nothing is invented.

The last trade moves between recorded prices only: the raw close of the session before (divided by the ratio of a split once its
ex-date has begun), the raw open while the session lasts (the close of the last completed minute where minutes are recorded), the raw
close from the close on. A quote is the recorded one on days with recorded quotes; elsewhere it is a round lot at the last trade on
both sides, standing for as long as the market is open.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, Generic, TypeVar

import pandas as pd

from local.exchange.sessions import ExchangeCalendar, new_york_date, new_york_midnight
from trading_env.errors import PapertapeError

MINUTE = timedelta(minutes=1)
ROUND_LOT = 100
RATIOS = Context(prec=60)
#: From a dividend's ex-date to the day it is paid, and so processed: none is recorded, and SPY's six weeks are the longest of the usual.
PAID_AFTER = timedelta(days=42)

Row = TypeVar("Row")


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


@dataclass(slots=True)
class _Daily:
    """One symbol's sessions in order; the four lists have one entry per bar."""

    bars: list[RecordedBar] = field(default_factory=list)
    dates: list[date] = field(default_factory=list)
    opens: list[datetime] = field(default_factory=list)
    closes: list[datetime] = field(default_factory=list)


@dataclass(slots=True)
class _Minutes(Generic[Row]):
    """Rows of one symbol with the moment from which each is known, in order."""

    known: list[datetime] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def latest(self, now: datetime) -> Row | None:
        index = bisect_right(self.known, now) - 1
        return self.rows[index] if index >= 0 else None

    def between(self, start: datetime, end: datetime) -> list[Row]:
        """Rows that became known in [start, end]."""
        return self.rows[bisect_left(self.known, start) : bisect_right(self.known, end)]


class RecordedMarket:
    """Everything recorded, indexed for lookups at a moment."""

    def __init__(
        self,
        *,
        calendar: ExchangeCalendar,
        bars: pd.DataFrame,
        actions: pd.DataFrame,
        minute_quotes: pd.DataFrame | None = None,
        minute_trades: pd.DataFrame | None = None,
        lists_announced: bool = True,
    ) -> None:
        """`bars`: symbol, session, open, high, low, close, volume (raw). `actions`: symbol, ex_date, kind, value. `minute_quotes`:
        symbol, ts, bid, bid_size, ask, ask_size; `ts` is UTC and when the quote was the latest. `minute_trades`: symbol, ts, open, high,
        low, close, volume; `ts` is UTC and the start of the minute. `lists_announced`: an action is listed from its ex-date on, else
        from its process date on. Raises `RecordedMarketError` for a bar on a day without a session and
        for a price that is not above zero.
        """
        self.calendar = calendar
        self._daily = _daily_bars(bars, calendar)
        self.symbols = tuple(sorted(self._daily))
        self.actions = _actions(actions, self.symbols)
        self.lists_announced = lists_announced
        self._splits = {
            s: [(new_york_midnight(a.ex_date), a) for a in self.actions if a.symbol == s and a.kind == "split"] for s in self.symbols
        }
        self._quotes = _minute_quotes(minute_quotes, self.symbols)
        self._trades = _minute_trades(minute_trades, self.symbols)

    def last_trade(self, symbol: str, now: datetime) -> RecordedTrade | None:
        """The last trade at `now`; `None` before the symbol's first open, `KeyError` for a symbol that was never recorded."""
        daily = self._daily[symbol]
        index = bisect_right(daily.opens, now) - 1
        if index < 0:
            return None
        if now >= daily.closes[index]:
            return RecordedTrade(self._after_splits(symbol, index, now), daily.closes[index])
        minute = self._minute_of_session(symbol, daily.opens[index], now)
        if minute is not None:
            return RecordedTrade(minute.close, _end_of(minute.start))
        return RecordedTrade(daily.bars[index].open, daily.opens[index])

    def previous_close(self, symbol: str, now: datetime) -> Decimal | None:
        """The close of the last session before the New York date of `now`, in today's shares."""
        index = bisect_left(self._daily[symbol].dates, new_york_date(now)) - 1
        return self._after_splits(symbol, index, now) if index >= 0 else None

    def quote(self, symbol: str, now: datetime) -> RecordedQuote | None:
        recorded = self._quotes[symbol].latest(now) if symbol in self._quotes else None
        if recorded is not None and new_york_date(recorded.at) == new_york_date(now):
            return recorded
        trade = self.last_trade(symbol, now)
        if trade is None:
            return None
        standing = now if self.calendar.is_open(now) else trade.at
        return RecordedQuote(bid=trade.price, bid_size=ROUND_LOT, ask=trade.price, ask_size=ROUND_LOT, at=standing)

    def trades_now(self, symbol: str, now: datetime) -> bool:
        """Whether the symbol has a bar in the session that runs at `now`, or ran last."""
        started = self.calendar.started(now)
        daily = self._daily[symbol]
        index = bisect_right(daily.opens, now) - 1
        return started is not None and index >= 0 and daily.dates[index] == started.date

    def daily_bars(self, symbol: str, *, start: datetime, end: datetime, now: datetime) -> list[RecordedBar]:
        """Bars whose start (midnight in New York) lies in [start, end] and whose session has closed by `now`."""
        if symbol not in self._daily:
            return []
        daily = self._daily[symbol]
        visible = bisect_right(daily.closes, now)
        first = bisect_left(daily.bars, start, key=_start)
        last = bisect_right(daily.bars, end, key=_start)
        return daily.bars[first : min(last, visible)]

    def minute_bars(self, symbol: str, *, start: datetime, end: datetime, now: datetime) -> list[RecordedBar]:
        """Recorded minutes whose start lies in [start, end] and which have ended by `now`."""
        if symbol not in self._trades:
            return []
        minutes = self._trades[symbol]
        visible = bisect_right(minutes.known, now)
        first = bisect_left(minutes.rows, start, key=_start)
        last = bisect_right(minutes.rows, end, key=_start)
        return minutes.rows[first : min(last, visible)]

    def minute_quotes(self, symbol: str, *, start: datetime, end: datetime, now: datetime) -> list[RecordedQuote]:
        """Recorded quotes of [start, end]: those that were the latest as a minute ended."""
        return self._quotes[symbol].between(start, min(end, now)) if symbol in self._quotes else []

    def minute_trades(self, symbol: str, *, start: datetime, end: datetime, now: datetime) -> list[RecordedTrade]:
        """The last trade of each recorded minute, for those that lie in [start, end]; of the others nothing was recorded."""
        if symbol not in self._trades:
            return []
        trades = [RecordedTrade(minute.close, _end_of(minute.start)) for minute in self._trades[symbol].between(start, now)]
        return [trade for trade in trades if start <= trade.at <= end]

    def session_bars(self, symbol: str, now: datetime) -> tuple[RecordedBar | None, RecordedBar | None]:
        """The bar of the symbol's last session, as far as it has run at `now`, and that of the one before."""
        daily = self._daily[symbol]
        index = bisect_right(daily.opens, now) - 1
        if index < 0:
            return None, None
        bar = daily.bars[index]
        if now < daily.closes[index]:
            bar = self._so_far(symbol, bar, opened=daily.opens[index], now=now)
        return bar, daily.bars[index - 1] if index > 0 else None

    def actions_between(self, *, start: date, end: date, now: datetime) -> list[Action]:
        """Actions with a process date in [start, end], by that date, of those listed at `now`."""
        today = new_york_date(now)
        found = [
            action
            for action in self.actions
            if start <= action.process_date <= end and (action.ex_date if self.lists_announced else action.process_date) <= today
        ]
        return sorted(found, key=lambda action: action.process_date)

    def moments(self) -> list[datetime]:
        """Every moment at which a last trade can move, in order: ex-dates, opens, ends of recorded minutes, closes."""
        moments = {moment for session in self.calendar.sessions for moment in (session.open, session.close)}
        moments |= {new_york_midnight(action.ex_date) for action in self.actions}
        moments |= {moment for minutes in self._trades.values() for moment in minutes.known if self.calendar.is_open(moment)}
        return sorted(moments)

    def _so_far(self, symbol: str, bar: RecordedBar, *, opened: datetime, now: datetime) -> RecordedBar:
        """The open, and the recorded minutes that have ended since."""
        minutes = self.minute_bars(symbol, start=opened, end=now, now=now)
        return RecordedBar(
            bar.start,
            open=bar.open,
            high=max([bar.open, *(minute.high for minute in minutes)]),
            low=min([bar.open, *(minute.low for minute in minutes)]),
            close=minutes[-1].close if minutes else bar.open,
            volume=sum(minute.volume for minute in minutes),
        )

    def _minute_of_session(self, symbol: str, opened: datetime, now: datetime) -> RecordedBar | None:
        bar = self._trades[symbol].latest(now) if symbol in self._trades else None
        return bar if bar is not None and bar.start >= opened else None

    def _after_splits(self, symbol: str, index: int, now: datetime) -> Decimal:
        daily = self._daily[symbol]
        price = daily.bars[index].close
        for begins, split in self._splits[symbol]:
            if daily.dates[index] < split.ex_date and begins <= now:
                price = RATIOS.divide(price, split.value)
        return price


def _start(bar: RecordedBar) -> datetime:
    return bar.start


def _end_of(minute: datetime) -> datetime:
    """The last millisecond of the minute: what is recorded of it is its state at the end, and flooring gives its start back."""
    return minute + MINUTE - timedelta(milliseconds=1)


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


def _daily_bars(bars: pd.DataFrame, calendar: ExchangeCalendar) -> dict[str, _Daily]:
    by_date = {session.date: session for session in calendar.sessions}
    found: dict[str, _Daily] = {}
    rows = bars[["symbol", "session", "open", "high", "low", "close", "volume"]].sort_values(["symbol", "session"])
    for row in rows.itertuples(index=False, name=None):
        day = row[1].date()
        session = by_date.get(day)
        if session is None:
            raise RecordedMarketError(f"{row[0]} {day}: a bar needs a session, XNYS was closed on that day")
        daily = found.setdefault(row[0], _Daily())
        if daily.dates and daily.dates[-1] == day:
            raise RecordedMarketError(f"{row[0]} {day}: one bar per session is allowed, there were two")
        daily.bars.append(_bar(row, session.midnight))
        daily.dates.append(day)
        daily.opens.append(session.open)
        daily.closes.append(session.close)
    return found


def _actions(actions: pd.DataFrame, symbols: Sequence[str]) -> tuple[Action, ...]:
    rows = actions[["symbol", "ex_date", "kind", "value"]].itertuples(index=False, name=None)
    known = [
        Action(s, pd.Timestamp(day).date(), kind, _price(value, f"{s} {day}", kind)) for s, day, kind, value in rows if s in set(symbols)
    ]
    return tuple(sorted(known, key=lambda a: (a.ex_date, a.symbol, a.kind)))


def _minute_trades(trades: pd.DataFrame | None, symbols: Sequence[str]) -> dict[str, _Minutes[RecordedBar]]:
    found: dict[str, _Minutes[RecordedBar]] = {}
    for row in _sorted_minutes(trades, ["open", "high", "low", "close", "volume"]):
        if row[0] in symbols:
            start = row[1].to_pydatetime().astimezone(UTC)
            minutes = found.setdefault(row[0], _Minutes())
            minutes.known.append(start + MINUTE)
            minutes.rows.append(_bar(row, start))
    return found


def _minute_quotes(quotes: pd.DataFrame | None, symbols: Sequence[str]) -> dict[str, _Minutes[RecordedQuote]]:
    found: dict[str, _Minutes[RecordedQuote]] = {}
    for symbol, ts, bid, bid_size, ask, ask_size in _sorted_minutes(quotes, ["bid", "bid_size", "ask", "ask_size"]):
        if symbol in symbols:
            at = ts.to_pydatetime().astimezone(UTC)
            minutes = found.setdefault(symbol, _Minutes())
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
