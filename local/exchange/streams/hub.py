"""Everybody who listens to one venue: what happens there is told to those who asked for it.

Promise: without listeners nothing is made and nothing is drawn. An event is made once, is delivered in one way under the fault plan, and
goes to every connection that asked for it; what could not be recorded is told to nobody, and ends every connection. A clock that is set (a
new account) tells nothing of the time between; a clock that moves tells all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from local.exchange.faults.stream_faults import StreamedEvent, StreamFaultInjector
from local.exchange.http.routes_admin import TEST_SYMBOL
from local.exchange.http.wire_market import quote_json
from local.exchange.orders import ExchangeOrder
from local.exchange.recorded_market import RecordedQuote
from local.exchange.streams.connection import StreamConnection
from local.exchange.streams.market_events import MarketTeller, StreamMessage, status_event
from local.exchange.streams.market_session import MarketSession
from local.exchange.streams.trade_updates import TradeSession, trade_update
from local.exchange.venue import Venue

#: What the symbol of the vendor's test stream costs here.
TEST_PRICE = Decimal("100")
CENT = Decimal("0.01")
PUSH_SECONDS = 0.01


class StreamHub:
    """The listeners of one venue."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._teller = MarketTeller(venue.market)
        self._told_until = venue.now
        self._halted: set[str] = set()
        self._pushing: set[asyncio.Task[None]] = set()
        self.trades: dict[StreamConnection, TradeSession] = {}
        self.markets: dict[StreamConnection, MarketSession] = {}
        self._record = venue.record
        venue.record = self._recorded
        venue.observe(self)

    def order_changed(self, order: ExchangeOrder) -> None:
        """One more state of an order is in the book."""
        listening = [connection for connection, session in self.trades.items() if session.listening]
        update = trade_update(self._venue.book, order, market_open=self._venue.is_open) if listening else None
        if update is None:
            return
        data = update["data"]
        event = StreamedEvent(stream="trade_updates", kind=data["event"], symbol=order.ticket.symbol, subject=data["execution_id"])
        delivery = self._injector.delivery(event)
        for connection in listening:
            connection.deliver(update, delivery)

    def clock_moved(self, now: datetime) -> None:
        """The clock is at `now`, and nothing has happened there yet."""
        after, self._told_until = self._told_until, now
        if self._venue.created_at == now:
            self._halted = set()
        elif self.markets and now > after:
            self._tell_of(after, now)

    def _tell_of(self, after: datetime, now: datetime) -> None:
        for event in [*self._statuses(now), *self._teller.events(wants=self._wanted, after=after, until=now)]:
            self.tell(event)

    def _wanted(self, channel: str, symbol: str) -> bool:
        return any(session.wants(channel, symbol) for session in self.markets.values())

    def _recorded(self, command: Mapping[str, Any]) -> None:
        """Have the journal record a command; where it cannot, what the command did is told to nobody."""
        try:
            self._record(command)
        except Exception:
            for connection in [*self.trades, *self.markets]:
                connection.abandon()
            raise

    def tell(self, event: StreamMessage) -> None:
        wanting = [connection for connection, session in self.markets.items() if session.wants(event.channel, event.symbol)]
        if not wanting:
            return
        subject = f"{event.channel} {event.symbol} {event.at.isoformat()}"
        delivery = self._injector.delivery(StreamedEvent(stream="market_data", kind=event.channel, symbol=event.symbol, subject=subject))
        for connection in wanting:
            connection.deliver(event.message, delivery)

    def push_quotes(self, symbols: list[str], *, per_second: int, seconds: float) -> int:
        """Tell invented quotes of `symbols`, in turn, at an even pace, for so many seconds of the wall clock; returns how many.

        The bid size of each is its number, from 1 on. A symbol without a price is a `LookupError`.
        """
        prices = [TEST_PRICE if symbol == TEST_SYMBOL else self._venue.price(symbol) for symbol in symbols]
        count = int(per_second * seconds)
        task = asyncio.get_running_loop().create_task(
            self._push(list(zip(symbols, prices, strict=True)), per_second=per_second, count=count)
        )
        self._pushing.add(task)
        task.add_done_callback(self._pushing.discard)
        return count

    async def _push(self, names: list[tuple[str, Decimal]], *, per_second: int, count: int) -> None:
        loop = asyncio.get_running_loop()
        begun, first, pushed = loop.time(), self._venue.now, 0
        while pushed < count:
            await asyncio.sleep(PUSH_SECONDS)
            for number in range(pushed, min(count, int((loop.time() - begun) * per_second))):
                symbol, price = names[number % len(names)]
                at = first + timedelta(seconds=number / per_second)
                quote = RecordedQuote(bid=price - CENT, bid_size=number + 1, ask=price + CENT, ask_size=number + 1, at=at)
                message = {"T": "q", "S": symbol, **quote_json(symbol, quote), "t": at}
                self.tell(StreamMessage(channel="quotes", symbol=symbol, at=at, message=message))
                pushed = number + 1

    @property
    def _injector(self) -> StreamFaultInjector:
        """On the venue's sampler, which a reset replaces."""
        return StreamFaultInjector(self._venue.fault_sampler)

    def _statuses(self, now: datetime) -> Iterator[StreamMessage]:
        """Halts of the fault plan that begin or end now; a halt lasts for sessions, so only an open market has news of them."""
        if not self._venue.calendar.is_open(now) or (self._venue.plan.faults.halted_asset is None and not self._halted):
            return
        venue, before = self._venue, self._halted
        self._halted = {symbol for symbol in venue.market.symbols if venue.order_injector.halted(symbol, venue.today)}
        for symbol in sorted(self._halted ^ before):
            yield status_event(symbol, halted=symbol in self._halted, at=now)
