"""Fills after the answer: an order is new in the answer to its POST, and meets the price a moment later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from alpaca.trading.enums import OrderSide, OrderStatus, TimeInForce
from alpaca.trading.models import Order
from alpaca.trading.requests import MarketOrderRequest

from local.exchange.faults.plan import FaultPlan
from local.exchange.http.app import Keys, create_app
from local.exchange.in_process import InProcess
from local.exchange.journal import Journal
from local.exchange.running_clock import RunningClock
from local.exchange.server import ExchangeConfig, RunningExchange
from tests.exchanges import EVE, KEYS, URL, ExchangeClient

ORDER = {"symbol": "SPY", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}


def after(now: str = "2020-01-02T14:35:00Z") -> ExchangeClient:
    client = ExchangeClient(now=datetime.fromisoformat(now))
    client.venue.fills = "after"
    return client


def read(client: ExchangeClient, order: requests.Response) -> dict[str, Any]:
    return client.order(order.json()["id"])


def test_an_order_is_new_and_then_filled_at_the_clock_of_its_submission() -> None:
    client = after()
    answer = client.send()
    assert (answer.json()["status"], answer.json()["filled_qty"], answer.json()["filled_at"]) == ("new", "0", None)
    filled = read(client, answer)
    assert (filled["status"], filled["filled_avg_price"], filled["filled_at"]) == ("filled", "100.06", "2020-01-02T14:35:00Z")


@pytest.mark.parametrize("word", ["ioc", "fok"])
def test_an_immediate_order_is_new_before_it_fills_or_is_gone(word: str) -> None:
    client = after()
    filled, gone = client.send(tif=word), client.send("IBM", kind="limit", limit_price="40", tif=word)
    assert [one.json()["status"] for one in (filled, gone)] == ["new", "new"]
    assert [read(client, one)["status"] for one in (filled, gone)] == ["filled", "canceled"]


def test_at_night_an_order_is_accepted_until_the_session() -> None:
    client = after(EVE.isoformat())
    market, resting = client.send(), client.send(kind="limit", limit_price="90")
    assert [read(client, one)["status"] for one in (market, resting)] == ["accepted", "accepted"]
    client.advance("2020-01-02T14:30:00Z")
    assert [read(client, one)["status"] for one in (market, resting)] == ["filled", "new"]


COMES_NEXT: dict[str, Callable[[ExchangeClient, str], object]] = {
    "cancel": lambda client, order_id: client.http.delete(f"{URL}/v2/orders/{order_id}"),
    "replace": lambda client, order_id: client.http.patch(f"{URL}/v2/orders/{order_id}", json={"qty": "3"}),
    "clock": lambda client, _: client.advance("2020-01-02T14:39:00Z"),
    "faults": lambda client, _: client.venue.use_faults(FaultPlan.from_document({"faults": {"partial_fill": {"rate": 1}}})),
    "books": lambda client, _: client.get("/admin/books"),
    "read": lambda client, _: client.get("/v2/clock"),
}


@pytest.mark.parametrize("what", COMES_NEXT)
def test_whatever_comes_next_finds_it_filled(what: str) -> None:
    client = after()
    order_id = client.send().json()["id"]
    COMES_NEXT[what](client, order_id)
    shown = client.venue.book.orders[order_id]
    assert (shown.status, str(shown.filled_price), shown.updated_at.minute) == ("filled", "100.06", 35)


def test_the_second_order_counts_with_the_first() -> None:
    client = after()
    assert client.send(qty="900").status_code == 200
    assert client.send(qty="900").status_code == 403
    assert client.http.delete(f"{URL}/v2/positions/AAPL").json()["status"] == "new"
    assert client.get("/v2/positions").json() == []


def test_a_bracket_is_new_with_held_legs_and_then_at_work() -> None:
    client = after()
    answer = client.send(order_class="bracket", take_profit={"limit_price": "110"}, stop_loss={"stop_price": "90"})
    assert [one["status"] for one in (answer.json(), *answer.json()["legs"])] == ["new", "held", "held"]
    assert sorted(one["status"] for one in client.get("/v2/orders", status="all").json()) == ["filled", "held", "new"]


def test_a_journal_that_ends_before_the_fill_goes_on_with_it(tmp_path: Path) -> None:
    def begin(fills: str) -> tuple[ExchangeClient, Journal]:
        client, journal = after(), Journal(tmp_path / "journal.jsonl")
        client.venue.fills = fills  # type: ignore[assignment]
        journal.attach(client.venue, terms={})
        return client, journal

    client, journal = begin("after")
    client.send(client_order_id="one")
    client.get("/v2/clock")
    client.send("IBM", client_order_id="two")
    text = (tmp_path / "journal.jsonl").read_text(encoding="utf-8")
    assert [next(iter(json.loads(line))) for line in text.splitlines()] == ["terms", "submit", "meet", "submit"]
    assert len(client.get("/admin/books").json()["fills"]) == 2
    journal.close()
    for fills in ("after", "answer"):
        (tmp_path / "journal.jsonl").write_text(text, encoding="utf-8")
        again, journal = begin(fills)
        assert [order.status for order in again.venue.book.orders.values()] == ["filled", "new" if fills == "after" else "filled"]
        assert again.get("/admin/books").content == client.get("/admin/books").content
        journal.close()


def test_what_cannot_be_recorded_is_not_filled() -> None:
    client = after()
    client.send()

    def full(_command: object) -> None:
        raise OSError("no space left on device")

    recorded: list[object] = []
    client.venue.record = full
    with pytest.raises(OSError, match="no space"):
        client.venue.meet()
    assert client.venue.book.fills == []
    client.venue.record = recorded.append
    client.venue.meet()
    assert (len(client.venue.book.fills), recorded) == (1, [{"meet": 1}])


def test_a_running_clock_fills_at_the_price_of_the_submission() -> None:
    client = after("2020-01-02T14:38:30Z")
    wall = [0.0]
    http = requests.Session()
    http.headers.update(KEYS)
    app = RunningClock(create_app(venue=client.venue, keys=Keys()), venue=client.venue, speed=60.0, wall=lambda: wall[0])
    http.mount(URL, InProcess(app))
    order = http.post(f"{URL}/v2/orders", json={**ORDER, "symbol": "AAPL"}).json()
    wall[0] += 60
    filled = http.get(f"{URL}/v2/orders/{order['id']}").json()
    assert (order["status"], filled["filled_avg_price"], filled["filled_at"]) == ("new", "100.06", "2020-01-02T14:38:30Z")


def test_on_a_socket_the_fill_follows_the_answer_by_itself(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    config = ExchangeConfig(now="2020-01-02T14:35:00Z", fills="after", journal=journal)
    with RunningExchange(config) as exchange:
        answer = requests.post(f"{exchange.url}/v2/orders", json=ORDER, headers=KEYS, timeout=5).json()
        assert answer["status"] == "new"
        until = time.monotonic() + 5
        while '{"meet":1}' not in journal.read_text(encoding="utf-8"):
            assert time.monotonic() < until, "no request was made, and nothing was filled"
            time.sleep(0.01)
        assert exchange.books()["orders"][0]["status"] == "filled"


def test_a_poller_sees_its_order_change() -> None:
    trading = after().trading
    order = trading.submit_order(MarketOrderRequest(symbol="AAPL", qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.DAY))
    assert isinstance(order, Order)
    polled = trading.get_order_by_id(order.id)
    assert isinstance(polled, Order)
    assert (order.status, polled.status) == (OrderStatus.NEW, OrderStatus.FILLED)


def test_profit_of_the_day_counts_from_what_was_paid_today() -> None:
    client = ExchangeClient()
    client.send()
    client.advance("2020-01-02T14:39:00Z")
    position = client.get("/v2/positions/AAPL").json()
    assert (position["unrealized_pl"], position["unrealized_intraday_pl"]) == ("1.88", "1.88")
    client.advance("2020-01-03T14:30:00Z")
    client.send(qty="1")
    position = client.get("/v2/positions/AAPL").json()
    # Two since yesterday's close of 104.06, one bought at 100.07, all now at 100.07.
    assert position["unrealized_intraday_pl"] == "-7.98"
    client.send(qty="1", side="sell")
    assert client.get("/v2/positions/AAPL").json()["unrealized_intraday_pl"] == "-3.99", "the oldest are sold first"
