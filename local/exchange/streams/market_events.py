"""What the market-data stream says of a stretch of time. Pure: what the recorded market knows becomes messages, in the order in which it
became known.

Promise: a message is there when a REST answer would first show it, and never before: a quote at its own time, a minute's last trade and
its bar at the end of the minute, the open's and the close's trade with the session. On days without recorded quotes a quote comes with
these two, the one that the REST answers show. The day's bar comes with each minute's, and at the close.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from local.exchange.http import wire_market
from local.exchange.http.listings import tape_of
from local.exchange.http.wire import Json
from local.exchange.recorded_market import RecordedBar, RecordedMarket, RecordedQuote, RecordedTrade

INSTANT, BAR_LENGTH = timedelta(microseconds=1), timedelta(minutes=1)
#: A minute's last trade is dated a millisecond before the end that makes it known.
TRADE_LEAD = timedelta(milliseconds=1)
#: Channels by the letter of their messages; those of one moment come in this order.
CHANNELS = {"quotes": "q", "trades": "t", "bars": "b", "updatedBars": "u", "dailyBars": "d", "statuses": "s", "lulds": "l"}
_RANK = {channel: rank for rank, channel in enumerate(CHANNELS)}


#: Whether anybody asked for a channel of a symbol.
Wants = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMessage:
    """`at` is when it becomes known; the message's own time is in it, as a datetime."""

    channel: str
    symbol: str
    at: datetime
    message: Json


@dataclass(frozen=True, slots=True)
class DaySoFar:
    """A session's bar, as far as it had run at a moment."""

    at: datetime
    bar: RecordedBar


class MarketTeller:
    """Tells stretches of time that follow one another. It keeps each name's day so far, which is then a minute's work and not a day's."""

    def __init__(self, market: RecordedMarket) -> None:
        self._market = market
        self._days: dict[str, DaySoFar] = {}

    def events(self, *, wants: Wants, after: datetime, until: datetime) -> list[StreamMessage]:
        """What becomes known in (after, until], a stretch that holds at most one open and one close, of what `wants` names."""
        found = [event for symbol in self._market.symbols for event in self._events(symbol, wants, after=after, until=until)]
        return sorted(found, key=lambda event: (event.at, _RANK[event.channel], event.symbol))

    def _events(self, symbol: str, wants: Wants, *, after: datetime, until: datetime) -> Iterator[StreamMessage]:
        market = self._market
        if wants("quotes", symbol):
            for quote in market.minute_quotes(symbol, start=after + INSTANT, end=until, now=until):
                yield _quote(symbol, quote)
        if wants("trades", symbol):
            for trade in market.minute_trades(symbol, start=after + INSTANT - TRADE_LEAD, end=until, now=until):
                yield _trade(symbol, trade, at=trade.at + TRADE_LEAD)
        if wants("bars", symbol) or wants("dailyBars", symbol):
            yield from self._bars(symbol, wants, after=after, until=until)
        session = market.calendar.started(until)
        if session is None or not market.trades_now(symbol, until):
            return
        for moment in (session.open, session.close):
            if after < moment <= until:
                yield from (event for event in _turn_of_session(market, symbol, moment) if wants(event.channel, symbol))

    def _bars(self, symbol: str, wants: Wants, *, after: datetime, until: datetime) -> Iterator[StreamMessage]:
        bars = self._market.minute_bars(symbol, start=after + INSTANT - BAR_LENGTH, end=until - BAR_LENGTH, now=until)
        for bar in bars:
            if wants("bars", symbol):
                yield _bar("bars", symbol, bar, at=bar.start + BAR_LENGTH)
            if wants("dailyBars", symbol):
                yield from self._day_with(symbol, bar, after=after)

    def _day_with(self, symbol: str, minute: RecordedBar, *, after: datetime) -> Iterator[StreamMessage]:
        """The day's bar with one more minute in it; the close tells the last."""
        ended = minute.start + BAR_LENGTH
        session, known = self._market.calendar.started(ended), self._days.get(symbol)
        if session is None or not session.open < ended < session.close:
            return
        if known is not None and known.at == after > session.open:
            bar: RecordedBar | None = _joined(known.bar, minute)
        else:
            bar, _before = self._market.session_bars(symbol, ended)
        if bar is not None:
            self._days[symbol] = DaySoFar(ended, bar)
            yield _bar("dailyBars", symbol, bar, at=ended)


def _joined(day: RecordedBar, minute: RecordedBar) -> RecordedBar:
    high, low = max(day.high, minute.high), min(day.low, minute.low)
    return replace(day, high=high, low=low, close=minute.close, volume=day.volume + minute.volume)


def _turn_of_session(market: RecordedMarket, symbol: str, moment: datetime) -> Iterator[StreamMessage]:
    trade, quote = market.last_trade(symbol, moment), market.quote(symbol, moment)
    if quote is not None and quote.at == moment:
        yield _quote(symbol, quote)
    if trade is not None:
        yield _trade(symbol, trade, at=moment)
    day, _before = market.session_bars(symbol, moment)
    if day is not None and not market.calendar.is_open(moment):
        yield _bar("dailyBars", symbol, day, at=moment)


def _quote(symbol: str, quote: RecordedQuote) -> StreamMessage:
    return _event("quotes", symbol, wire_market.quote_json(symbol, quote), dated=quote.at, at=quote.at)


def _trade(symbol: str, trade: RecordedTrade, *, at: datetime) -> StreamMessage:
    return _event("trades", symbol, wire_market.trade_json(symbol, trade), dated=trade.at, at=at)


def _bar(channel: str, symbol: str, bar: RecordedBar, *, at: datetime) -> StreamMessage:
    return _event(channel, symbol, wire_market.bar_json(bar), dated=bar.start, at=at)


def status_event(symbol: str, *, halted: bool, at: datetime) -> StreamMessage:
    """The halt of a symbol, or its end, with the codes of its tape."""
    tape = tape_of(symbol)
    code = ("H" if halted else "T") if tape == "C" else ("2" if halted else "3")
    message: Json = {
        "sc": code,
        "sm": "Trading Halt" if halted else "Trading Resumption" if tape == "C" else "Resume",
        "rc": ("T12" if halted else "T3") if tape == "C" else ("X" if halted else ""),
        "rm": "Trading Halted; For information requested by the listing market" if halted else "",
        "z": tape,
    }
    return _event("statuses", symbol, message, dated=at, at=at)


def _event(channel: str, symbol: str, content: Json, *, dated: datetime, at: datetime) -> StreamMessage:
    return StreamMessage(channel=channel, symbol=symbol, at=at, message={"T": CHANNELS[channel], "S": symbol, **content, "t": dated})
