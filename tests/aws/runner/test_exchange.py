"""The runner beside the local exchange: its minutes are those of the exchange's history, and an order's fill is an event at once."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from lambdas.common.broker.alpaca import AlpacaBroker, Credentials
from lambdas.common.broker.alpaca_streams import AlpacaStreams
from local.exchange.server import RunningExchange
from runner.run import Run, RunnerEdges
from schema.realtime.events import FeedResumed, MinuteClosed, OrderUpdated
from schema.realtime.records import StreamedBar
from schema.sections.realtime import RunnerSettings
from tests.kept import Kept

BEGINS = datetime(2013, 10, 4, 13, 30, tzinfo=UTC)
NAMES = ("AIG", "BAC", "IBM", "SPY")
MINUTES = 12


def history(exchange: RunningExchange, symbol: str) -> list[dict[str, Any]]:
    """The exchange's own bars of the minutes that were followed."""
    ends = BEGINS + timedelta(minutes=MINUTES - 1)
    answer = requests.get(
        f"{exchange.url}/v2/stocks/{symbol}/bars",
        params={"timeframe": "1Min", "start": BEGINS.isoformat(), "end": ends.isoformat(), "limit": "1000"},
        headers={"APCA-API-KEY-ID": exchange.config.key_id, "APCA-API-SECRET-KEY": exchange.config.secret_key},
        timeout=10,
    )
    bars: list[dict[str, Any]] = answer.json()["bars"]
    return bars


def test_minutes_are_those_of_the_history_and_a_fill_is_told_at_once(exchange_process: RunningExchange) -> None:
    exchange = exchange_process
    exchange.reset(now=BEGINS, cash="100000")
    keys = Credentials(key_id=exchange.config.key_id, secret_key=exchange.config.secret_key)
    reads = AlpacaBroker(credentials=keys, trading_url=exchange.url, data_url=exchange.url)
    bus, stream = Kept(), Kept()

    async def until(so: Any) -> None:
        async with asyncio.timeout(30):
            while not so():
                await asyncio.sleep(0.01)

    async def script() -> None:
        streams = AlpacaStreams(credentials=keys, trading_url=exchange.url, data_url=exchange.url)
        edges = RunnerEdges(streams=streams, time=reads, bus=bus, stream=stream, beats=bus)
        run = Run(edges, symbols=NAMES, feed="iex", settings=RunnerSettings(enabled=True), clock_every=0.5)
        running = asyncio.create_task(run.run())
        await until(lambda: len(bus.of(FeedResumed)) == 2)
        body = {"symbol": "SPY", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day", "client_order_id": "pt1-a"}
        headers = {"APCA-API-KEY-ID": keys.key_id, "APCA-API-SECRET-KEY": keys.secret_key}
        order = await asyncio.to_thread(lambda: requests.post(f"{exchange.url}/v2/orders", json=body, headers=headers, timeout=10))
        assert order.status_code == 200
        await until(lambda: any(one.event == "fill" for one in bus.of(OrderUpdated)))
        for minute in range(1, MINUTES + 2):
            await asyncio.to_thread(exchange.advance, BEGINS + timedelta(minutes=minute))
        await until(lambda: len(bus.of(MinuteClosed)) >= MINUTES)
        run.stop()
        await running

    asyncio.run(script())
    told = {
        (bar.symbol, bar.ts): bar
        for bar in (StreamedBar.model_validate_json(line.data) for line in stream.entries if b'"bar"' in line.data)
    }
    followed = [one.minute for one in bus.of(MinuteClosed)]
    assert followed[:MINUTES] == [BEGINS + timedelta(minutes=minute) for minute in range(MINUTES)]
    for symbol in NAMES:
        for bar in history(exchange, symbol):
            ours = told[symbol, datetime.fromisoformat(bar["t"])]
            assert (ours.open, ours.high, ours.low, ours.close, ours.volume) == (bar["o"], bar["h"], bar["l"], bar["c"], bar["v"])
            assert ours.flaws == ()
    (updated,) = [one for one in bus.of(OrderUpdated) if one.event == "fill"]
    assert (updated.client_order_id, updated.status) == ("pt1-a", "filled")
    assert json.loads(stream.entries[0].data)["kind"] == "quote"
    assert bus.beats[-1].lost == 0
