"""The recorded market as it could be known at a moment. Pure: tables in, plain values out, no clock and no disk.

Promise: nothing is answered from data after `now`. A session's open is known from its open, its bar from its close; a minute bar from
the end of its minute, a quote from its own time; a corporate action from the first moment of its ex-date, or, on an exchange that lists
only what is processed, of its process date. A symbol that has not traded yet has no price (`None`): nothing is invented.

The last trade moves between recorded prices only: the raw close of the session before (divided by the ratio of a split once its
ex-date has begun), the raw open while the session lasts (the close of the last completed minute where minutes are recorded), the raw
close from the close on. A quote is the recorded one on days with recorded quotes; elsewhere it is a round lot at the last trade on
both sides, standing for as long as the market is open.

With `minutes` "made", days of a symbol without recorded minutes get some that are made from the daily bar (`market/made_minutes.py`):
they are told minute by minute as recorded ones are, and must never judge a strategy.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from heapq import merge
from typing import Literal

import pandas as pd

from local.exchange.market.adjusting import Adjustment, adjustment
from local.exchange.market.made_minutes import MadeDay, made_day
from local.exchange.market.rows import (
    MINUTE,
    PAID_AFTER,
    ROUND_LOT,
    Action,
    RecordedBar,
    RecordedMarketError,
    RecordedMinute,
    RecordedQuote,
    RecordedTrade,
    end_of,
    start_of,
)
from local.exchange.market.tables import action_rows, daily_tables, minute_quote_tables, minute_trade_tables
from local.exchange.market.timeframes import together
from local.exchange.money import RATIOS, SHOWN
from local.exchange.sessions import ExchangeCalendar, new_york_date, new_york_midnight

__all__ = [
    "MINUTE",
    "PAID_AFTER",
    "ROUND_LOT",
    "Action",
    "RecordedBar",
    "RecordedMarket",
    "RecordedMarketError",
    "RecordedMinute",
    "RecordedQuote",
    "RecordedTrade",
]

MinutesKind = Literal["recorded", "made"]
QuotesKind = Literal["spread", "trade"]
MADE = "made from daily bars"


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
        minutes: MinutesKind = "recorded",
        quotes: QuotesKind = "spread",
    ) -> None:
        """`bars`: symbol, session, open, high, low, close, volume (raw). `actions`: symbol, ex_date, kind, value. `minute_quotes`:
        symbol, ts, bid, bid_size, ask, ask_size; `ts` is UTC and when the quote was the latest. `minute_trades`: symbol, ts, open, high,
        low, close, volume; `ts` is UTC and the start of the minute. `lists_announced`: an action is listed from its ex-date on, else
        from its process date on. `minutes`: those that are recorded alone, or on other days made ones, whose `quotes` have a
        spread or stand at the last trade. Raises `RecordedMarketError` for a bar on a day without a session and for a price that is not
        above zero.
        """
        self.calendar = calendar
        self.minutes = minutes
        self._quotes_kind = quotes
        self._daily = daily_tables(bars, calendar)
        self.symbols = tuple(sorted(self._daily))
        self.actions = action_rows(actions, self.symbols)
        self.lists_announced = lists_announced
        self._splits = {
            s: [(new_york_midnight(a.ex_date), a) for a in self.actions if a.symbol == s and a.kind == "split"] for s in self.symbols
        }
        self._quotes = minute_quote_tables(minute_quotes, self.symbols)
        self._trades = minute_trade_tables(minute_trades, self.symbols)
        self._moments = self._recorded_moments()
        self._made_days: OrderedDict[tuple[str, int], MadeDay] = OrderedDict()

    @property
    def minutes_label(self) -> str:
        """What is to be said of the minutes wherever there is room for it."""
        return MADE if self.minutes == "made" else "as recorded"

    @property
    def span(self) -> tuple[date, date]:
        """The first and the last session that any symbol has a bar of."""
        dates = [day for daily in self._daily.values() for day in (daily.dates[0], daily.dates[-1])]
        return min(dates), max(dates)

    def last_trade(self, symbol: str, now: datetime) -> RecordedTrade | None:
        """The last trade at `now`; `None` before the symbol's first open, `KeyError` for a symbol that was never recorded."""
        daily = self._daily[symbol]
        index = bisect_right(daily.opens, now) - 1
        if index < 0:
            return None
        if now >= daily.closes[index]:
            return RecordedTrade(self._after_splits(symbol, index, now), daily.closes[index])
        minute = self._minute_of_session(symbol, index, now)
        if minute is not None:
            return RecordedTrade(minute.close, end_of(minute.start))
        return RecordedTrade(daily.bars[index].open, daily.opens[index])

    def previous_close(self, symbol: str, now: datetime) -> Decimal | None:
        """The close of the last session before the New York date of `now`, in today's shares."""
        index = bisect_left(self._daily[symbol].dates, new_york_date(now)) - 1
        return self._after_splits(symbol, index, now) if index >= 0 else None

    def quote(self, symbol: str, now: datetime) -> RecordedQuote | None:
        recorded = self._quotes[symbol].latest(now) if symbol in self._quotes else None
        if recorded is not None and new_york_date(recorded.at) == new_york_date(now):
            return recorded
        made = self._made_minute(symbol, now)
        if made is not None and new_york_date(made.quote.at) == new_york_date(now):
            return made.quote
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
        """Bars whose start (midnight in New York) lies in [start, end]: of closed sessions, and of the running one as far as it has run."""
        if symbol not in self._daily:
            return []
        daily = self._daily[symbol]
        closed = bisect_right(daily.closes, now)
        first, last = bisect_left(daily.bars, start, key=start_of), bisect_right(daily.bars, end, key=start_of)
        bars = daily.bars[first : min(last, closed)]
        if first <= closed < last and daily.opens[closed] <= now:
            bars.append(self._so_far(symbol, closed, now))
        return bars

    def minutes_in(self, symbol: str, *, start: datetime, end: datetime, now: datetime, descending: bool = False) -> Iterator[RecordedBar]:
        """Minutes whose start lies in [start, end] and which have ended by `now`, one after the other, the last first if `descending`."""
        recorded: list[RecordedBar] = []
        if symbol in self._trades:
            minutes = self._trades[symbol]
            first, last = bisect_left(minutes.rows, start, key=start_of), bisect_right(minutes.rows, end, key=start_of)
            recorded = minutes.rows[first : min(last, bisect_right(minutes.known, now))]
        made = (day.bar(minute) for day, minute in self._made_in(symbol, start, end, now, descending=descending))
        return merge(reversed(recorded) if descending else recorded, made, key=start_of, reverse=descending)

    def minute_bars(self, symbol: str, *, start: datetime, end: datetime, now: datetime) -> list[RecordedBar]:
        return list(self.minutes_in(symbol, start=start, end=end, now=now))

    def minute_quotes(
        self, symbol: str, *, start: datetime, end: datetime, now: datetime, descending: bool = False
    ) -> Iterator[RecordedQuote]:
        """Quotes of [start, end]: those that were the latest as a minute ended."""
        recorded = self._quotes[symbol].between(start, min(end, now)) if symbol in self._quotes else []
        made = (day.quote(minute) for day, minute in self._made_in(symbol, self._minute_before(start), end, now, descending=descending))
        within = (quote for quote in made if start <= quote.at <= end)
        return merge(reversed(recorded) if descending else recorded, within, key=lambda quote: quote.at, reverse=descending)

    def minute_trades(
        self, symbol: str, *, start: datetime, end: datetime, now: datetime, descending: bool = False
    ) -> Iterator[RecordedTrade]:
        """The last trade of each minute, for those that lie in [start, end]; of the others nothing was recorded."""
        minutes = self.minutes_in(symbol, start=self._minute_before(start), end=end, now=now, descending=descending)
        trades = (RecordedTrade(minute.close, end_of(minute.start)) for minute in minutes)
        return (trade for trade in trades if start <= trade.at <= end)

    def latest_minute(self, symbol: str, now: datetime) -> RecordedBar | None:
        """The latest minute bar, of whatever day. Where the last trade is not in a recorded minute, its minute has that price four times
        and no volume.
        """
        recorded = self._trades[symbol].latest(now) if symbol in self._trades else None
        made = self._made_minute(symbol, now)
        minute = max((bar for bar in (recorded, made.bar if made else None) if bar is not None), key=start_of, default=None)
        trade = self.last_trade(symbol, now - MINUTE)
        if trade is None or (minute is not None and minute.start + MINUTE >= trade.at):
            return minute
        start = trade.at.replace(second=0, microsecond=0)
        return RecordedBar(start, open=trade.price, high=trade.price, low=trade.price, close=trade.price, volume=0)

    def adjustment(self, symbol: str, kinds: frozenset[str], now: datetime) -> Adjustment:
        """What turns raw bars of `symbol` into bars adjusted for the actions of these kinds that are known at `now`.

        Raises `AdjustmentError`.
        """
        today = new_york_date(now)
        known = [one for one in self.actions if one.symbol == symbol and one.kind in kinds and one.ex_date <= today]
        return adjustment(known, close_before=self._close_before)

    def session_bars(self, symbol: str, now: datetime) -> tuple[RecordedBar | None, RecordedBar | None]:
        """The bar of the symbol's last session, as far as it has run at `now`, and that of the one before."""
        daily = self._daily[symbol]
        index = bisect_right(daily.opens, now) - 1
        if index < 0:
            return None, None
        bar = daily.bars[index]
        if now < daily.closes[index]:
            bar = self._so_far(symbol, index, now)
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

    def next_moment(self, now: datetime) -> datetime | None:
        """The next moment at which a last trade can move: an ex-date, an open, the end of a minute, a close."""
        index = bisect_right(self._moments, now)
        recorded = self._moments[index] if index < len(self._moments) else None
        if self.minutes == "recorded" or not self.calendar.is_open(now):
            return recorded
        minute = now.replace(second=0, microsecond=0) + MINUTE
        return minute if recorded is None else min(recorded, minute)

    def _recorded_moments(self) -> list[datetime]:
        moments = {moment for session in self.calendar.sessions for moment in (session.open, session.close)}
        moments |= {new_york_midnight(action.ex_date) for action in self.actions}
        ended = {moment for minutes in self._trades.values() for moment in minutes.known}
        moments |= {moment for moment in ended if self.calendar.is_open(moment)}
        return sorted(moments)

    def _so_far(self, symbol: str, index: int, now: datetime) -> RecordedBar:
        """The running session's bar: its open, and the minutes that have ended since."""
        day, opened = self._daily[symbol].bars[index], self._daily[symbol].opens[index]
        begun = RecordedBar(day.start, open=day.open, high=day.open, low=day.open, close=day.open, volume=0)
        made = self._made(symbol, index)
        if made is not None:
            ended = (now - opened) // MINUTE
            return made.so_far(ended, start=day.start) if ended else begun
        minutes = self.minutes_in(symbol, start=opened, end=now, now=now)
        return next(together([begun, *minutes], lambda _: day.start))

    def _minute_of_session(self, symbol: str, index: int, now: datetime) -> RecordedBar | None:
        bar = self._trades[symbol].latest(now) if symbol in self._trades else None
        if bar is not None and bar.start >= self._daily[symbol].opens[index]:
            return bar
        made = self._made_minute(symbol, now)
        return made.bar if made is not None and made.bar.start >= self._daily[symbol].opens[index] else None

    def _made_minute(self, symbol: str, now: datetime) -> RecordedMinute | None:
        """The last minute of the last session of which one has ended, if that session's were made."""
        if self.minutes == "recorded":
            return None
        index = bisect_right(self._daily[symbol].opens, now - MINUTE) - 1
        day = self._made(symbol, index) if index >= 0 else None
        return day.minute(min(len(day), (now - day.opened) // MINUTE) - 1) if day is not None else None

    def _made_in(self, symbol: str, start: datetime, end: datetime, now: datetime, *, descending: bool) -> Iterator[tuple[MadeDay, int]]:
        """Made minutes that begin in [start, end] and have ended by `now`."""
        if self.minutes == "recorded" or symbol not in self._daily:
            return
        daily = self._daily[symbol]
        days = range(bisect_right(daily.closes, start), bisect_right(daily.opens, min(end, now)))
        for index in reversed(days) if descending else days:
            day = self._made(symbol, index)
            if day is None:
                continue
            first = max(0, -((day.opened - start) // MINUTE))
            last = min(len(day), (end - day.opened) // MINUTE + 1, (now - day.opened) // MINUTE)
            yield from ((day, minute) for minute in (range(last - 1, first - 1, -1) if descending else range(first, last)))

    def _made(self, symbol: str, index: int) -> MadeDay | None:
        """The minutes made for the symbol's session; `None` where some were recorded, and where none are to be made."""
        if self.minutes == "recorded":
            return None
        daily = self._daily[symbol]
        opened, closed = daily.opens[index], daily.closes[index]
        tables = (self._trades.get(symbol), self._quotes.get(symbol))
        if any(table is not None and bisect_right(table.known, opened) < bisect_right(table.known, closed) for table in tables):
            return None
        if (symbol, index) not in self._made_days:
            self._made_days[symbol, index] = made_day(
                symbol, daily.bars[index], on=daily.dates[index], opened=opened, closed=closed, spread=self._quotes_kind == "spread"
            )
            if len(self._made_days) > 2 * len(self.symbols) + 8:
                self._made_days.popitem(last=False)
        return self._made_days[symbol, index]

    def _minute_before(self, start: datetime) -> datetime:
        return max(start, self.calendar.sessions[0].midnight) - MINUTE

    def _close_before(self, action: Action) -> Decimal | None:
        daily = self._daily[action.symbol]
        index = bisect_left(daily.dates, action.ex_date) - 1
        return daily.bars[index].close if index >= 0 else None

    def _after_splits(self, symbol: str, index: int, now: datetime) -> Decimal:
        daily = self._daily[symbol]
        price = daily.bars[index].close
        for begins, split in self._splits[symbol]:
            if daily.dates[index] < split.ex_date and begins <= now:
                price = RATIOS.divide(price, split.value).quantize(SHOWN, context=RATIOS)
        return price
