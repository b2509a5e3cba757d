"""Ticks in, closed minutes out. Pure: by the time in the messages, whatever order they come in, how often, or whether.

A minute closes when the feed, or the broker's clock, is `LATENESS` past its end. Its bar is the vendor's own where that came and ours from
the trades is missing, flawed or different (which is counted), else ours. What comes within `REMEMBERED` of the end and changes a bar is
said by one more bar of the same minute, which replaces the first; what comes later is left out. A minute without a trade has no bar.

Flaws are of the bar that is told: `partial` where the following began within the minute, `gap` where the socket was away in it, `late`
where a trade came after the minute was told. The vendor's bar is of the whole minute and has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import fsum
from typing import Literal

from lambdas.common.broker.streams import QuoteTick, TradeCorrection, TradedMinute, TradeTick
from schema.realtime.records import Flaw, StreamedBar

MINUTE = timedelta(minutes=1)
#: How far past a minute's end the feed must be: its messages come in some disorder.
LATENESS = timedelta(seconds=2)
#: How long a minute's trades are kept after its end. Longer than a socket may be silent before that is noticed.
REMEMBERED = timedelta(minutes=15)
FIRST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedMinute:
    """`missing`: the names without a bar."""

    minute: datetime
    bars: tuple[StreamedBar, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedMinutes:
    """What there is to tell: minutes that are over, and bars that replace what was told of earlier ones."""

    minutes: tuple[ClosedMinute, ...]
    revised: tuple[StreamedBar, ...]


@dataclass(slots=True)
class _Interval:
    """A stretch of time in which nobody followed; `end` is None while it lasts."""

    flaw: Flaw
    start: datetime
    end: datetime | None = None

    def touches(self, minute: datetime) -> bool:
        return self.start < minute + MINUTE and (self.end is None or self.end > minute)


@dataclass(slots=True)
class _NameMinute:
    """What is known of one name in one minute; `told` is the bar that was said of it."""

    trades: dict[str, TradeTick] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    vendor: TradedMinute | None = None
    last_quote: QuoteTick | None = None
    quotes: set[int] = field(default_factory=set)
    quote_count: int = 0
    told: StreamedBar | None = None
    late: bool = False
    differs: bool = False


class MinuteBuilder:
    """Minutes of `symbols` on `feed`. `trading` says whether a minute belongs to a session: those are told even if nothing happened.

    `heard_until` is the newest time in a message, `differing` counts bars without a flaw that are not the vendor's, `dropped` what came
    too late for any bar.
    """

    def __init__(self, *, symbols: Sequence[str], feed: str, trading: Callable[[datetime], bool]) -> None:
        self._symbols, self._feed, self._trading = tuple(symbols), feed, trading
        self._names = frozenset(symbols)
        self._minutes: dict[datetime, dict[str, _NameMinute]] = {}
        self._quotes: dict[str, QuoteTick] = {}
        self._away = [_Interval("partial", FIRST)]
        self._began = FIRST
        self._next: datetime | None = None
        self._changed: set[tuple[datetime, str]] = set()
        self._latest = FIRST
        self.heard_until = FIRST
        self.differing = 0
        self.dropped = 0

    @property
    def following(self) -> bool:
        return not self._away or self._away[-1].end is not None

    def begin(self, at: datetime) -> None:
        """The market's time when the following began: no minute before that one is told, and nothing is taken before it is known."""
        self._began = self._next = _minute_of(at)
        self._latest = self.heard_until = at

    def lost(self) -> None:
        """The socket is away, and `heard_until` is when it was last heard: minutes that were told since are flawed after all."""
        since = self.heard_until
        if self.following:
            self._away.append(_Interval("gap", since))
            self._quotes.clear()
            for minute, names in self._minutes.items():
                if minute + MINUTE > since:
                    self._changed |= {(minute, symbol) for symbol, known in names.items() if known.told is not None}

    def resumed(self, at: datetime) -> None:
        """Messages come again, those of `at` and later."""
        if not self.following:
            self._away[-1].end = max(at, self._away[-1].start)

    def quote(self, quote: QuoteTick) -> None:
        if quote.symbol not in self._names or (minute := self._open_minute(quote.at)) is None:
            return
        known = self._known(minute, quote.symbol)
        identity = hash((quote.at, quote.bid, quote.bid_size, quote.ask, quote.ask_size))
        if identity in known.quotes:
            return
        known.quotes.add(identity)
        if known.last_quote is None or quote.at >= known.last_quote.at:
            known.last_quote = quote
        self._heard(quote.at)

    def trade(self, trade: TradeTick) -> None:
        self._heard(trade.at)
        known = self._place(trade)
        if known is None or trade.identity in known.trades or trade.identity in known.cancelled:
            return
        known.trades[trade.identity] = trade
        self._after_the_end(_minute_of(trade.at), trade.symbol)

    def correct(self, correction: TradeCorrection) -> None:
        """Take a known trade out, and put the corrected one in its place."""
        for minute, names in self._minutes.items():
            known = names.get(correction.symbol)
            before = None if known is None else known.trades.pop(correction.identity, None)
            if known is None or before is None:
                continue
            known.cancelled.add(correction.identity)
            if correction.trade is not None:
                known.trades[correction.trade.identity] = replace(correction.trade, at=before.at)
            self._after_the_end(minute, correction.symbol)

    def vendor(self, bar: TradedMinute) -> None:
        """The vendor's own; a later one of the same minute replaces it. That it is there says that the minute is over."""
        self._heard(bar.minute + MINUTE)
        if bar.symbol not in self._names or not self._remembered(bar.minute):
            self.dropped += bar.symbol in self._names and self._next is not None
            return
        known = self._known(bar.minute, bar.symbol)
        if known.vendor is None or (known.vendor != bar and bar.corrected >= known.vendor.corrected):
            known.vendor = bar
            if self._next is not None and bar.minute < self._next:
                self._changed.add((bar.minute, bar.symbol))

    def advance(self, now: datetime | None, *, received_at: datetime) -> ClosedMinutes:
        """Close what is over by the feed's own time, or by `now`, the market's where the feed is quiet."""
        self._latest = max(self._latest, self.heard_until, now or FIRST)
        revised = self._revisions(received_at)
        minutes = []
        while self._next is not None and self._next + MINUTE + LATENESS <= self._latest:
            if self._next in self._minutes or self._trading(self._next):
                minutes.append(self._close(self._next, received_at))
            self._next += MINUTE
        self._forget()
        return ClosedMinutes(minutes=tuple(minutes), revised=revised)

    def _heard(self, at: datetime) -> None:
        if at > self.heard_until:
            self.heard_until = at

    def _remembered(self, minute: datetime) -> bool:
        """Whether anything is still taken of `minute`."""
        return self._next is not None and max(self._next - REMEMBERED, self._began) <= minute

    def _open_minute(self, at: datetime) -> datetime | None:
        minute = _minute_of(at)
        return minute if self._next is not None and minute >= self._next else None

    def _place(self, trade: TradeTick) -> _NameMinute | None:
        minute = _minute_of(trade.at)
        if trade.symbol not in self._names:
            return None
        if not self._remembered(minute):
            self.dropped += self._next is not None
            return None
        return self._known(minute, trade.symbol)

    def _known(self, minute: datetime, symbol: str) -> _NameMinute:
        names = self._minutes.setdefault(minute, {})
        if (known := names.get(symbol)) is None:
            known = names[symbol] = _NameMinute()
        return known

    def _after_the_end(self, minute: datetime, symbol: str) -> None:
        if self._next is not None and minute < self._next:
            self._minutes[minute][symbol].late = True
            self._changed.add((minute, symbol))

    def _close(self, minute: datetime, received_at: datetime) -> ClosedMinute:
        names, bars = self._minutes.get(minute, {}), []
        for symbol in self._symbols:
            known = names.get(symbol)
            if known is None:
                continue
            known.quote_count, known.quotes = len(known.quotes), set()
            if known.last_quote is not None:
                self._quotes[symbol] = known.last_quote
            else:
                known.last_quote = self._quotes.get(symbol)
            bar = self._bar(minute, symbol, known, received_at)
            if bar is not None:
                known.told = bar
                bars.append(bar)
        present = {bar.symbol for bar in bars}
        return ClosedMinute(minute=minute, bars=tuple(bars), missing=tuple(one for one in self._symbols if one not in present))

    def _revisions(self, received_at: datetime) -> tuple[StreamedBar, ...]:
        changed, self._changed = self._changed, set()
        revised = []
        for minute, symbol in sorted(changed):
            known = self._minutes.get(minute, {}).get(symbol)
            bar = None if known is None else self._bar(minute, symbol, known, received_at)
            if known is not None and bar is not None and not _same(bar, known.told):
                known.told = bar
                revised.append(bar)
        return tuple(revised)

    def _bar(self, minute: datetime, symbol: str, known: _NameMinute, received_at: datetime) -> StreamedBar | None:
        """The vendor's where ours cannot stand against it, else ours; None where neither is."""
        own, flaws = _of_trades(minute, symbol, known), self._flaws(minute, known)
        if known.vendor is None:
            return None if own is None else self._told(own, known, received_at, source="trades", flaws=flaws)
        agree = own is not None and _prices(own) == _prices(known.vendor)
        if own is not None and not agree and not flaws and not known.differs:
            known.differs = True
            self.differing += 1
        if own is not None and agree and not flaws:
            return self._told(own, known, received_at, source="trades", flaws=())
        return self._told(known.vendor, known, received_at, source="vendor", flaws=())

    def _flaws(self, minute: datetime, known: _NameMinute) -> tuple[Flaw, ...]:
        away = sorted({interval.flaw for interval in self._away if interval.touches(minute)})
        return (*away, "late") if known.late else tuple(away)

    def _told(
        self, bar: TradedMinute, known: _NameMinute, received_at: datetime, *, source: Literal["trades", "vendor"], flaws: tuple[Flaw, ...]
    ) -> StreamedBar:
        quote = known.last_quote
        return StreamedBar(
            symbol=bar.symbol,
            ts=bar.minute,
            received_at=received_at,
            feed=self._feed,
            open=bar.open,
            high=bar.high,
            low=bar.low,
            close=bar.close,
            volume=bar.volume,
            trades=bar.trades,
            vwap=bar.vwap,
            bid=None if quote is None else quote.bid,
            ask=None if quote is None else quote.ask,
            quotes=known.quote_count,
            source=source,
            flaws=flaws,
        )

    def _forget(self) -> None:
        if self._next is None:
            return
        first = self._next - REMEMBERED
        for minute in [minute for minute in self._minutes if minute < first]:
            del self._minutes[minute]
        self._away = [one for one in self._away if one.end is None or one.end > first]


def _of_trades(minute: datetime, symbol: str, known: _NameMinute) -> TradedMinute | None:
    """By the trades' time, and where that is one, by their number; None without a trade."""
    trades = sorted(known.trades.values(), key=lambda trade: (trade.at, trade.identity))
    if not trades:
        return None
    prices, volume = [trade.price for trade in trades], fsum(trade.size for trade in trades)
    return TradedMinute(
        symbol=symbol,
        minute=minute,
        open=prices[0],
        high=max(prices),
        low=min(prices),
        close=prices[-1],
        volume=volume,
        trades=len(trades),
        vwap=fsum(trade.price * trade.size for trade in trades) / volume if volume else None,
    )


def _prices(bar: TradedMinute) -> tuple[float, ...]:
    """What two tellings of a minute must agree on; the vendor counts and weighs trades by rules of its own."""
    return bar.open, bar.high, bar.low, bar.close, bar.volume


def _same(bar: StreamedBar, told: StreamedBar | None) -> bool:
    return told is not None and bar.model_copy(update={"received_at": told.received_at}) == told


def _minute_of(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
