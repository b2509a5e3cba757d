"""The runner over real sockets of a vendor on this machine: what it tells, and what becomes of a vendor that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from lambdas.common.broker.alpaca import AlpacaBroker, Credentials
from lambdas.common.broker.alpaca_streams import AlpacaStreams
from lambdas.common.broker.port import BrokerRefused
from lambdas.common.broker.streams import StreamRefused
from runner.run import Run, RunnerEdges
from runner.sinks import Line
from schema.realtime.events import FeedResumed, FeedSilent, MarketEvent, MinuteClosed, OrderUpdated, PriceBandReached, PriceMoved
from schema.realtime.events import TradingStatusChanged as StatusChanged
from schema.realtime.records import StreamedBar, StreamedQuote
from schema.sections.realtime import RunnerSettings
from tests.kept import Kept
from tests.streaming_vendor import KEY, OPEN, SECOND, SECRET, StreamingVendor, quote, streaming, trade

MINUTE = timedelta(minutes=1)
SETTINGS = RunnerSettings(enabled=True)
NAMES = ("AAPL", "SPY")


@dataclass
class Following:
    vendor: StreamingVendor
    run: Run
    bus: Kept
    stream: Kept

    def events(self, kind: type[MarketEvent]) -> list[Any]:
        return self.bus.of(kind)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line.data) for line in self.stream.entries if isinstance(line, Line)]

    @property
    def bars(self) -> list[StreamedBar]:
        return [StreamedBar.model_validate(line) for line in self.lines if line["kind"] == "bar"]

    async def until(self, so: Callable[[], object], *, seconds: float = 5) -> None:
        async with asyncio.timeout(seconds):
            while not so():
                await asyncio.sleep(0.01)

    async def connected(self) -> None:
        await self.until(lambda: len(self.events(FeedResumed)) == 2 and self.vendor.data and self.vendor.orders)


Script = Callable[[Following], Awaitable[None]]


def follow(
    script: Script, *, settings: RunnerSettings = SETTINGS, key: str = KEY, prepare: Callable[[StreamingVendor], None] | None = None
) -> Following:
    """Run the runner beside `script`, and stop it when that is done."""

    async def both() -> Following:
        async with streaming() as vendor:
            if prepare is not None:
                prepare(vendor)
            keys = Credentials(key_id=key, secret_key=SECRET)
            streams = AlpacaStreams(
                credentials=keys, trading_url=vendor.url, data_url=vendor.url, pong_seconds=settings.silence_seconds, pauses=(0.05, 0.1)
            )
            reads = AlpacaBroker(credentials=keys, trading_url=vendor.url, data_url=vendor.url)
            bus, stream = Kept(), Kept()
            edges = RunnerEdges(streams=streams, time=reads, bus=bus, stream=stream, beats=bus)
            run = Run(edges, symbols=NAMES, feed="iex", settings=settings, clock_every=0.3)
            following = Following(vendor, run, bus, stream)
            running = asyncio.create_task(run.run())
            acting = asyncio.create_task(script(following))
            try:
                await asyncio.wait([running, acting], return_when=asyncio.FIRST_COMPLETED)
                if acting.done():
                    await acting
            finally:
                acting.cancel()
                run.stop()
                await running
            return following

    return asyncio.run(both())


def test_quotes_and_minutes_are_told_as_they_come() -> None:
    async def script(on: Following) -> None:
        await on.connected()
        minute = OPEN + MINUTE
        await on.vendor.send(quote("SPY", OPEN + 30 * SECOND, 99.99, 100.01), trade("SPY", OPEN + 30 * SECOND, 1, 100.0))
        await on.vendor.send(trade("SPY", minute + SECOND, 2, 100.0), trade("SPY", minute + 2 * SECOND, 3, 101.0, 50))
        await on.vendor.send(quote("SPY", minute + 3 * SECOND, 100.5, 100.6), trade("AAPL", minute + MINUTE + 5 * SECOND, 4, 300.0))
        await on.until(lambda: len(on.events(MinuteClosed)) == 2 and len(on.bars) == 2)

    on = follow(script)
    partial, whole = on.bars
    assert (partial.flaws, whole.flaws) == (("partial",), ())
    assert (whole.open, whole.high, whole.low, whole.close, whole.volume, whole.trades) == (100, 101, 100, 101, 150, 2)
    assert (whole.bid, whole.ask, whole.quotes, whole.source, whole.ts) == (100.5, 100.6, 1, "trades", OPEN + MINUTE)
    assert whole.vwap == pytest.approx((100 * 100 + 101 * 50) / 150)
    quotes = [StreamedQuote.model_validate(line) for line in on.lines if line["kind"] == "quote"]
    assert [(one.symbol, one.bid, one.ask, one.feed) for one in quotes] == [("SPY", 99.99, 100.01, "iex"), ("SPY", 100.5, 100.6, "iex")]
    closed = on.events(MinuteClosed)
    assert [(one.minute, one.symbols, one.missing) for one in closed] == [
        (OPEN, ("SPY",), ("AAPL",)),
        (OPEN + MINUTE, ("SPY",), ("AAPL",)),
    ]


def test_the_vendors_own_bar_stands_where_it_differs_and_may_come_late() -> None:
    def bar(kind: str, high: float) -> dict[str, Any]:
        prices = {"o": 100.0, "h": high, "l": 100.0, "c": 100.0, "v": 100, "n": 1, "vw": 100.0}
        return {"T": kind, "S": "SPY", "t": OPEN + MINUTE, **prices}

    async def script(on: Following) -> None:
        await on.connected()
        await on.vendor.send(trade("SPY", OPEN + MINUTE + SECOND, 1, 100.0), bar("b", 100.5))
        await on.vendor.send(trade("AAPL", OPEN + 2 * MINUTE + 9 * SECOND, 2, 300.0))
        await on.until(lambda: len(on.bars) == 1)
        await on.vendor.send(bar("u", 100.75), bar("b", 100.5))
        await on.until(lambda: len(on.bars) == 2)

    on = follow(script)
    assert [(one.high, one.source, one.flaws) for one in on.bars] == [(100.5, "vendor", ()), (100.75, "vendor", ())]
    assert on.bus.beats[-1].differing == 1


def test_what_happens_to_an_order_a_name_or_a_price_is_an_event() -> None:
    async def script(on: Following) -> None:
        await on.connected()
        await on.vendor.update("pt1-a", event="fill", status="filled", at=OPEN + 2 * SECOND)
        await on.until(lambda: on.events(OrderUpdated))
        halt = {"T": "s", "S": "AAPL", "sc": "H", "sm": "Trading Halt", "rc": "T12", "rm": "News", "z": "C", "t": OPEN + 3 * SECOND}
        await on.vendor.send(halt, {**halt, "sc": "Q"}, {**halt, "sc": "T", "rm": ""})
        band = {"T": "l", "S": "SPY", "u": 110.0, "d": 90.0, "i": "B", "z": "B", "t": OPEN + 3 * SECOND}
        await on.vendor.send(band, trade("SPY", OPEN + 4 * SECOND, 1, 100.0), trade("SPY", OPEN + 5 * MINUTE + 5 * SECOND, 2, 90.0))
        await on.vendor.send(trade("SPY", OPEN + 5 * MINUTE + 6 * SECOND, 3, 89.9))
        await on.until(lambda: on.events(PriceMoved) and on.events(PriceBandReached) and len(on.events(StatusChanged)) == 2)

    on = follow(script)
    order = on.events(OrderUpdated)[0]
    assert (order.client_order_id, order.symbol, order.event, order.status) == ("pt1-a", "SPY", "fill", "filled")
    assert [(one.status, one.code, one.reason) for one in on.events(StatusChanged)] == [
        ("halted", "H", "News"),
        ("resumed", "T", "Trading Halt"),
    ]
    (moved,) = on.events(PriceMoved)
    assert (str(moved.price), str(moved.before), moved.minutes) == ("90.0", "100.0", 5)
    assert moved.change == pytest.approx(-0.1)
    (reached,) = on.events(PriceBandReached)
    assert (str(reached.down), str(reached.up), reached.indicator) == ("90.0", "110.0", "B")


def test_a_lost_socket_is_opened_anew_and_the_bars_say_what_was_missed() -> None:
    async def script(on: Following) -> None:
        await on.connected()
        at = OPEN + MINUTE
        await on.vendor.send(trade("SPY", at + 10 * SECOND, 1, 100.0))
        await on.until(lambda: on.run.listener.counts.trades == 1)
        on.vendor.now = at + 30 * SECOND
        await on.vendor.drop()
        await on.until(lambda: len(on.events(FeedResumed)) == 4 and on.vendor.data)
        await on.vendor.send(trade("SPY", at + 40 * SECOND, 2, 101.0), trade("SPY", at + 70 * SECOND, 3, 102.0))
        await on.vendor.send(trade("SPY", at + 130 * SECOND, 4, 102.0))
        await on.until(lambda: len(on.bars) == 2)

    on = follow(script)
    assert [(one.ts, one.open, one.close, one.trades, one.flaws) for one in on.bars] == [
        (OPEN + MINUTE, 100, 101, 2, ("gap",)),
        (OPEN + 2 * MINUTE, 102, 102, 1, ()),
    ]
    assert on.bus.beats[-1].reconnects == 2
    assert {one.feed for one in on.events(FeedResumed)[2:]} == {"orders", "market data"}


def test_a_socket_that_is_connected_and_mute_is_noticed_in_an_open_market() -> None:
    settings = SETTINGS.model_copy(update={"silence_seconds": 0.6})

    async def script(on: Following) -> None:
        await on.connected()
        await on.vendor.send(trade("SPY", OPEN + 5 * SECOND, 1, 100.0))
        on.vendor.mute, on.vendor.now = True, OPEN + 65 * SECOND
        await on.until(lambda: {one.feed for one in on.events(FeedSilent)} == {"orders", "market data"})
        await on.until(lambda: not on.vendor.data)
        on.vendor.mute = False
        await on.until(lambda: len(on.events(FeedResumed)) == 4)

    on = follow(script, settings=settings)
    data = next(one for one in on.events(FeedSilent) if one.feed == "market data")
    assert data.at == OPEN + 5 * SECOND
    assert data.seconds >= 0.6


@pytest.mark.parametrize("standing", ["closed", "a clock that stands"])
def test_nobody_is_missed_while_the_market_stands_still(standing: str) -> None:
    settings = SETTINGS.model_copy(update={"silence_seconds": 0.3})

    async def script(on: Following) -> None:
        await on.connected()
        await asyncio.sleep(1.0)

    def prepare(vendor: StreamingVendor) -> None:
        vendor.is_open = standing != "closed"

    on = follow(script, settings=settings, prepare=prepare)
    assert on.events(FeedSilent) == []
    assert on.bus.beats[-1].reconnects == 0


def test_keys_that_are_refused_end_it_with_one_line() -> None:
    async def script(_on: Following) -> None:
        await asyncio.sleep(5)

    with pytest.raises(StreamRefused, match=r"stream refused the keys"):
        follow(script, key="another")


def test_more_names_than_the_plan_has_end_it_with_one_line() -> None:
    async def script(_on: Following) -> None:
        await asyncio.sleep(5)

    def prepare(vendor: StreamingVendor) -> None:
        vendor.refuse = (405, "symbol limit exceeded")

    with pytest.raises(StreamRefused, match=r"refused the subscription \(405: symbol limit exceeded\)"):
        follow(script, prepare=prepare)


def test_what_cannot_be_read_is_counted_and_the_rest_arrives() -> None:
    async def script(on: Following) -> None:
        await on.connected()
        at = OPEN + 2 * SECOND
        bad = [
            {"T": "t", "S": "SPY"},
            {**trade("SPY", at, 1, -1.0)},
            {**quote("SPY", at, float("nan"), 1.0)},
            {**quote("spy!", at, 1.0, 1.0)},
        ]
        await on.vendor.send(*bad)
        await on.vendor.send_bytes(b"\xc1")
        await on.vendor.send(quote("SPY", at, 1.0, 1.1))
        await on.until(lambda: on.lines)

    on = follow(script)
    assert [line["bid"] for line in on.lines] == [1.0]
    assert on.bus.beats[-1].refused == 5


def test_a_message_from_the_future_closes_no_minute_and_hides_no_silence() -> None:
    settings = SETTINGS.model_copy(update={"silence_seconds": 0.6})

    async def script(on: Following) -> None:
        await on.connected()
        at = OPEN + MINUTE
        future = OPEN.replace(year=2099)
        await on.vendor.send(trade("SPY", future, 1, 100.0), quote("SPY", future, 1.0, 1.1))
        await on.vendor.send(trade("SPY", at + SECOND, 2, 100.0), trade("SPY", at + MINUTE + 5 * SECOND, 3, 101.0))
        await on.until(lambda: on.bars)
        on.vendor.mute, on.vendor.now = True, at + 3 * MINUTE
        await on.until(lambda: "market data" in {one.feed for one in on.events(FeedSilent)})

    on = follow(script, settings=settings)
    assert [(one.ts, one.close, one.flaws) for one in on.bars][:1] == [(OPEN + MINUTE, 100, ())]
    assert on.bus.beats[-1].refused == 2


def test_the_end_sends_what_is_in_hand_and_gives_up_the_open_minute() -> None:
    async def script(on: Following) -> None:
        await on.connected()
        await on.vendor.send(quote("SPY", OPEN + 90 * SECOND, 1.0, 1.1), trade("SPY", OPEN + 90 * SECOND, 1, 1.0))
        await on.until(lambda: on.run.listener.counts.trades == 1)

    on = follow(script)
    assert [line["kind"] for line in on.lines] == ["quote"]
    last = on.bus.beats[-1]
    assert (on.bus.beats[0].state, last.state, last.reason, last.lost, last.queued) == ("following", "stopped", "told to stop", 0, 0)


@pytest.mark.parametrize("url", ["https://evil.example", "http://10.0.0.1:80", "https://api.alpaca.markets"])
def test_no_stream_leads_to_real_money_or_elsewhere(url: str) -> None:
    with pytest.raises(BrokerRefused, match="ALPACA_TRADING_URL may be"):
        AlpacaStreams(credentials=Credentials(key_id="k", secret_key="s"), trading_url=url)
