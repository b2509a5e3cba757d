"""The faults of the streams, as a listener meets them, and that they are the same each time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from local.exchange.server import RunningExchange
from tests.contract.conftest import FIRST_SLOT
from tests.listeners import market_of, orders_of

ORDER = {"symbol": "SPY", "side": "buy", "type": "market", "time_in_force": "day", "qty": "1"}
MORNING, CLOSE = "2013-10-04T13:00:00Z", "2013-10-04T20:00:00Z"


@pytest.fixture
def slot(exchange: RunningExchange) -> Iterator[RunningExchange]:
    exchange.advance(FIRST_SLOT)
    yield exchange
    exchange.use_faults({})


def heard(exchange: RunningExchange, http: requests.Session, faults: dict[str, Any], *, orders: int = 1, quiet: float = 0.4) -> list[str]:
    """The events of so many orders, sent one after the other under a plan."""
    exchange.use_faults({"faults": faults})
    with orders_of(exchange.url) as listener:
        for _ in range(orders):
            http.post(f"{exchange.url}/v2/orders", json=ORDER).raise_for_status()
        return [update["data"]["event"] for update in listener.everything(quiet=quiet)]


def test_an_event_is_lost_or_comes_twice(slot: RunningExchange, http: requests.Session) -> None:
    assert heard(slot, http, {"event_lost": {"rate": 1, "events": ["new"]}}) == ["fill"]
    assert heard(slot, http, {"event_repeated": {"rate": 1, "events": ["fill"]}}) == ["new", "fill", "fill"]
    assert slot.books()["faults"] == {"event_lost": 1, "event_repeated": 1}


def test_an_event_is_late_or_behind_the_next(slot: RunningExchange, http: requests.Session) -> None:
    begun = time.monotonic()
    assert heard(slot, http, {"event_late": {"rate": 1, "events": ["new"], "seconds": 0.6}}, quiet=1) == ["fill", "new"]
    assert time.monotonic() - begun > 0.6
    assert heard(slot, http, {"event_out_of_order": {"rate": 1, "events": ["new"]}}) == ["fill", "new"]
    alone = {"event_out_of_order": {"rate": 1, "events": ["fill"], "seconds": 0.2}}
    assert heard(slot, http, alone) == ["new", "fill"]


def test_a_stream_falls_silent_and_lives(slot: RunningExchange, http: requests.Session) -> None:
    slot.use_faults({"faults": {"stream_silent": {"rate": 1, "events": ["fill"]}}})
    with orders_of(slot.url) as listener:
        for _ in range(2):
            http.post(f"{slot.url}/v2/orders", json=ORDER).raise_for_status()
        assert [update["data"]["event"] for update in listener.everything()] == ["new"]
        listener._socket.ping().wait(3)
        listen = {"action": "listen", "data": {"streams": ["trade_updates"]}}
        assert listener.ask(listen)["stream"] == "listening"


def test_a_stream_ends_and_what_passes_until_the_next_is_gone(slot: RunningExchange, http: requests.Session) -> None:
    slot.use_faults({"faults": {"stream_disconnect": {"rate": 1, "events": ["fill"]}}})
    with orders_of(slot.url) as listener:
        http.post(f"{slot.url}/v2/orders", json=ORDER).raise_for_status()
        listener.everything()
        assert listener.close_code == 1001
    assert heard(slot, http, {}) == ["new", "fill"]


def test_only_the_stream_that_is_named_is_disturbed(slot: RunningExchange, http: requests.Session) -> None:
    lost = {"rate": 1, "streams": ["market_data"], "symbols": ["SPY"]}
    assert heard(slot, http, {"event_lost": lost}) == ["new", "fill"]
    with market_of(slot.url, trades=["SPY", "IBM"]) as market:
        slot.use_faults({"faults": {"event_lost": lost}})
        slot.advance("2020-01-02T21:00:00Z")
        assert {said["S"] for said in market.everything()} == {"IBM"}


def test_the_same_seed_loses_the_same_bars_whoever_listens(exchange: RunningExchange) -> None:
    def bars(seed: int, listeners: int = 1) -> list[str]:
        exchange.reset(now=MORNING)
        exchange.use_faults({"seed": seed, "faults": {"event_lost": {"rate": 0.2}}})
        with market_of(exchange.url, bars=["SPY"]) as first:
            others = [market_of(exchange.url, bars=["SPY"]) for _ in range(listeners - 1)]
            exchange.advance(CLOSE)
            found = [said["t"] for said in first.everything()]
            for other in others:
                assert [said["t"] for said in other.everything()] == found
                other.__exit__(None, None, None)
        return found

    once = bars(1)
    assert 0.7 * 390 < len(once) < 0.95 * 470
    assert bars(1, listeners=2) == once
    assert bars(2) != once
    exchange.use_faults({})
