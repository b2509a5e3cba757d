"""What the streams say becomes records and events: quotes as they came, minutes, moves, halts, bands, orders, and silence.

Nothing here waits or calls anybody: messages come in by the listener's methods, time by `tick`, and what follows goes into the outboxes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from pydantic import ValidationError

from lambdas.common.broker.port import Clock
from lambdas.common.broker.streams import (
    Feed,
    HaltNotice,
    Message,
    OrderNotice,
    PriceBand,
    QuoteTick,
    TradeCorrection,
    TradedMinute,
    TradeTick,
)
from lambdas.common.telemetry import logger
from runner.counts import FEEDS, Counts
from runner.market_hours import MarketHours
from runner.minutes import MINUTE, ClosedMinute, MinuteBuilder
from runner.moves import Move, MoveWatch
from runner.publishing import Outbox
from runner.sinks import Line, line_of
from schema.realtime import events
from schema.realtime.records import StreamedQuote
from schema.sections.realtime import RunnerSettings

#: Seconds after which the broker's clock closes minutes of a feed that is quiet: what was on its way then has come.
QUIET = 5.0
#: By how much a message may be ahead of this machine's clock. One of another day would close every minute up to its own.
AHEAD = timedelta(minutes=1)
#: So many messages that cannot be read are logged; all are counted.
SHOWN = 20


class MarketListener:
    """`streams.StreamListener`. `now` is the machine's time, `elapsed` its seconds that never go back."""

    def __init__(
        self,
        *,
        symbols: tuple[str, ...],
        feed: str,
        settings: RunnerSettings,
        hours: MarketHours,
        bus: Outbox[events.MarketEvent],
        stream: Outbox[Line] | None,
        elapsed: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._feed, self._settings, self._hours, self._bus, self._stream = feed, settings, hours, bus, stream
        self._elapsed, self._now = elapsed, now
        self._moves = MoveWatch(threshold=settings.move_threshold, minutes=settings.move_minutes)
        self._reads: deque[tuple[float, datetime]] = deque()
        self._began = elapsed()
        self._opened: float | None = None
        self._reopened: dict[Feed, float] = {}
        self._resuming: set[Feed] = set()
        self._left: dict[Feed, float] = {}
        self._unheard: dict[Feed, float] = {}
        self.minutes = MinuteBuilder(symbols=symbols, feed=feed, trading=hours.trading)
        self.counts = Counts()

    @property
    def lost_entries(self) -> int:
        return self._bus.lost + (0 if self._stream is None else self._stream.lost)

    @property
    def queued(self) -> int:
        return self._bus.waiting + (0 if self._stream is None else self._stream.waiting)

    # --- what the streams say

    def heard(self, feed: Feed) -> None:
        self.counts.heard[feed] = self._elapsed()

    def message(self, message: Message) -> None:
        feed: Feed = "orders" if isinstance(message, OrderNotice) else "market data"
        at = message.minute if isinstance(message, TradedMinute) else message.at
        if at > (now := self._now()) + AHEAD:
            self.unreadable(feed, f"{type(message).__name__}: it is of {at.isoformat()}, and now is {now.isoformat()}")
            return
        try:
            match message:
                case QuoteTick():
                    self._quote(message)
                case TradeTick():
                    self._trade(message)
                case TradedMinute():
                    self.minutes.vendor(message)
                case OrderNotice():
                    self._order(message)
                case HaltNotice():
                    self._halt(message)
                case PriceBand():
                    self._moves.band(message)
                case TradeCorrection():
                    self.minutes.correct(message)
        except ValidationError as error:
            what = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
            self.unreadable(feed, f"{type(message).__name__}: {what}")

    def unreadable(self, feed: Feed, problem: str) -> None:
        self.counts.unreadable += 1
        if self.counts.unreadable <= SHOWN:
            logger.warning("not read", extra={"feed": feed, "problem": problem})

    def subscribed(self, feed: Feed) -> None:
        if feed in self.counts.open:
            return
        self.counts.open.add(feed)
        self.counts.reconnects += feed in self._left
        self._unheard[feed] = round(self._elapsed() - self._left.get(feed, self._began), 3)
        self._resuming.add(feed)

    def lost(self, feed: Feed) -> None:
        if feed in self.counts.open:
            self.counts.open.discard(feed)
            self._resuming.discard(feed)
            self._left[feed] = self.counts.heard.get(feed, self._began)
            logger.warning("socket lost", extra={"feed": feed})
        if feed == "market data":
            self.minutes.lost()
            self._moves.forget_prices()

    # --- what time says

    @property
    def wants_clock(self) -> bool:
        """A socket is open again: from which time on, the broker's clock must say."""
        return bool(self._resuming)

    def clock_read(self, clock: Clock, *, resumed: frozenset[Feed]) -> None:
        """The broker's clock, read after the sockets `resumed` were open."""
        elapsed = self._elapsed()
        if not self._reads:
            self.minutes.begin(clock.now)
        self._reads.append((elapsed, clock.now))
        if not clock.is_open:
            self._opened = None
        elif self._opened is None:
            self._opened = elapsed
        for feed in sorted(resumed & self._resuming):
            self._resuming.discard(feed)
            if feed == "market data":
                self.minutes.resumed(clock.now)
            seconds = self._unheard[feed]
            logger.info("following", extra={"feed": feed, "market_time": clock.now.isoformat(), "unheard_seconds": seconds})
            self._raise(events.FeedResumed(at=clock.now, received_at=self._now(), feed=feed, seconds=seconds))

    @property
    def resuming(self) -> frozenset[Feed]:
        return frozenset(self._resuming)

    def tick(self) -> frozenset[Feed]:
        """Tell the minutes that are over, and return the sockets that have been silent for too long and should be opened anew."""
        self._close_minutes()
        silent = frozenset(feed for feed in FEEDS if self._is_silent(feed))
        for feed in silent:
            seconds = round(self._elapsed() - self.counts.heard.get(feed, self._began), 3)
            logger.warning("silent", extra={"feed": feed, "seconds": seconds})
            self._reopened[feed] = self._elapsed()
            clock = self._hours.clock
            at = self.minutes.heard_until if feed == "market data" or clock is None else clock.now
            self._raise(events.FeedSilent(at=at, received_at=self._now(), feed=feed, seconds=seconds))
        return silent

    def _is_silent(self, feed: Feed) -> bool:
        """By the machine's clock; and by the market's too, which may stand still."""
        clock, limit = self._hours.clock, self._settings.silence_seconds
        if clock is None or not clock.is_open or self._opened is None:
            return False
        since = max(self.counts.heard.get(feed, self._began), self._opened, self._reopened.get(feed, self._began))
        if self._elapsed() - since < limit:
            return False
        return feed == "orders" or (clock.now - self.minutes.heard_until).total_seconds() >= limit

    def _close_minutes(self) -> None:
        closing = self.minutes.advance(self._market_time(), received_at=self._now())
        for minute in closing.minutes:
            self._tell(minute)
        for bar in closing.revised:
            logger.info("bar revised", extra={"symbol": bar.symbol, "minute": bar.ts.isoformat(), "flaws": bar.flaws, "source": bar.source})
            self._record(line_of(bar))

    def _market_time(self) -> datetime | None:
        """The broker's clock as it was at least `QUIET` seconds ago, None where it was not read yet."""
        while len(self._reads) > 1 and self._elapsed() - self._reads[1][0] >= QUIET:
            self._reads.popleft()
        if not self._reads or self._elapsed() - self._reads[0][0] < QUIET:
            return None
        return self._reads[0][1]

    def _tell(self, closed: ClosedMinute) -> None:
        for bar in closed.bars:
            self._record(line_of(bar))
        if not self._hours.trading(closed.minute):
            return
        self.counts.minutes += 1
        names = tuple(bar.symbol for bar in closed.bars)
        at = closed.minute + MINUTE
        told = events.MinuteClosed(at=at, received_at=self._now(), minute=closed.minute, symbols=names, missing=closed.missing)
        self._raise(told)
        flawed = sum(bool(bar.flaws) for bar in closed.bars)
        totals = {name: getattr(self.counts, name) for name in ("quotes", "trades", "orders", "reconnects", "unreadable")}
        state = {"differing": self.minutes.differing, "queued": self.queued, "lost": self.lost_entries}
        logger.info(
            "minute",
            extra={"minute": closed.minute.isoformat(), "bars": len(names), "flawed": flawed, "missing": closed.missing, **totals, **state},
        )

    # --- what a message makes

    def _quote(self, quote: QuoteTick) -> None:
        self.counts.quotes += 1
        if self._stream is not None:
            record = StreamedQuote(
                symbol=quote.symbol,
                ts=quote.at,
                received_at=self._now(),
                feed=self._feed,
                bid=quote.bid,
                bid_size=quote.bid_size,
                ask=quote.ask,
                ask_size=quote.ask_size,
            )
            self._record(line_of(record))
        self.minutes.quote(quote)
        self._at_band(quote)

    def _trade(self, trade: TradeTick) -> None:
        self.counts.trades += 1
        self.minutes.trade(trade)
        self._at_band(trade)
        move = self._moves.trade(trade)
        if move is not None:
            self._moved(move)

    def _moved(self, move: Move) -> None:
        told = events.PriceMoved(
            at=move.at,
            received_at=self._now(),
            symbol=move.symbol,
            price=_decimal(move.price),
            before=_decimal(move.before),
            change=move.change,
            minutes=self._settings.move_minutes,
        )
        self._raise(told)

    def _at_band(self, tick: TradeTick | QuoteTick) -> None:
        band = self._moves.reached(tick)
        if band is not None:
            told = events.PriceBandReached(
                at=tick.at,
                received_at=self._now(),
                symbol=tick.symbol,
                down=_decimal(band.down),
                up=_decimal(band.up),
                indicator=band.indicator,
            )
            self._raise(told)

    def _halt(self, halt: HaltNotice) -> None:
        self._raise(
            events.TradingStatusChanged(
                at=halt.at, received_at=self._now(), symbol=halt.symbol, status=halt.status, code=halt.code, reason=halt.reason
            )
        )

    def _order(self, order: OrderNotice) -> None:
        self.counts.orders += 1
        self._raise(
            events.OrderUpdated(
                at=order.at,
                received_at=self._now(),
                client_order_id=order.client_order_id,
                symbol=order.symbol,
                event=order.event,
                status=order.status,
            )
        )

    def _raise(self, event: events.MarketEvent) -> None:
        self._bus.put(event)

    def _record(self, line: Line) -> None:
        if self._stream is not None:
            self._stream.put(line)


def _decimal(price: float) -> Decimal:
    return Decimal(repr(price))
