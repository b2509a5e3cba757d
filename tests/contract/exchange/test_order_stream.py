"""The stream of an account's orders: the vendor's protocol, an event for every change of an order, and never before the POST's answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from alpaca.trading.models import TradeUpdate
from alpaca.trading.stream import TradingStream
from websockets.exceptions import InvalidStatus

from local.exchange.server import RunningExchange
from tests.contract.conftest import FIRST_SLOT
from tests.listeners import KEYS, StreamListener, orders_of

MARKET = {"symbol": "SPY", "side": "buy", "type": "market", "time_in_force": "day", "qty": "10"}
LIMIT = {**MARKET, "type": "limit", "limit_price": "1"}
AUTHORIZED = {"stream": "authorization", "data": {"status": "authorized", "action": "authenticate"}}


@pytest.fixture
def exchange(exchange: RunningExchange) -> Iterator[RunningExchange]:
    """Without the plan that a test leaves."""
    yield exchange
    exchange.use_faults({})


def send(exchange: RunningExchange, http: requests.Session, order: dict[str, Any] = MARKET) -> dict[str, Any]:
    answer = http.post(f"{exchange.url}/v2/orders", json=order)
    assert answer.status_code == 200, answer.text
    placed: dict[str, Any] = answer.json()
    return placed


def names(updates: list[Any]) -> list[str]:
    return [update["data"]["event"] for update in updates]


@pytest.mark.parametrize("path", ["/stream", "/stream/"])
def test_a_client_is_authorized_and_listens_in_either_form(exchange: RunningExchange, path: str) -> None:
    legacy = {"action": "authenticate", "data": {"key_id": "local-key", "secret_key": "local-secret"}}
    for form in (legacy, {"action": "auth", **KEYS}):
        with StreamListener(exchange.url, path) as listener:
            listener.say(form)
            frame = listener.frame()
            assert isinstance(frame, bytes)  # JSON, in binary frames
            assert json.loads(frame) == AUTHORIZED
            listen = {"action": "listen", "data": {"streams": ["account_updates", "trade_updates"]}}
            assert listener.ask(listen) == {"stream": "listening", "data": {"streams": ["trade_updates"]}}
            assert listener.ask({"action": "listen", "data": {"streams": []}}) == {"stream": "listening", "data": {"streams": []}}


def test_who_is_not_authorized_hears_nothing(exchange: RunningExchange, http: requests.Session) -> None:
    exchange.advance(FIRST_SLOT)
    with StreamListener(exchange.url, "/stream") as listener:
        refused = {"stream": "authorization", "data": {"status": "unauthorized", "action": "listen"}}
        assert listener.ask({"action": "listen", "data": {"streams": ["trade_updates"]}}) == refused
        wrong = {"action": "auth", "key": "local-key", "secret": "guess"}
        assert listener.ask(wrong)["data"] == {"status": "unauthorized", "action": "authenticate"}
        send(exchange, http)
        assert listener.nothing()


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", '"x"', "{}", '{"action":"listen"}', '{"action":"auth","data":7}'])
def test_what_cannot_be_read_is_answered_and_not_the_end(exchange: RunningExchange, text: str) -> None:
    with StreamListener(exchange.url, "/stream") as listener:
        listener.say_text(text)
        assert set(listener.next()) <= {"action", "stream", "data"}
        assert listener.ask({"action": "auth", **KEYS}) == AUTHORIZED


@pytest.mark.parametrize("path", ["/", "/v2/orders", "/v1beta1/news", "/v2/delayed_sip"])
def test_a_stream_that_is_not_served_says_so_with_its_name(exchange: RunningExchange, path: str) -> None:
    with pytest.raises(InvalidStatus) as error:
        StreamListener(exchange.url, path)
    assert error.value.response.status_code == 501
    body = error.value.response.body
    assert body is not None
    assert json.loads(body)["message"] == f"the stream {path} is not served by this exchange"


def test_events_follow_the_answer_and_show_what_rest_shows(exchange: RunningExchange, http: requests.Session) -> None:
    exchange.advance(FIRST_SLOT)
    with orders_of(exchange.url) as listener:
        placed = send(exchange, http)
        answered = time.monotonic()
        new = listener.next()
        assert time.monotonic() - answered > 0.03
        fill = listener.next()
    shown = http.get(f"{exchange.url}/v2/orders/{placed['id']}").json()
    assert (new["stream"], new["data"]["event"], new["data"]["timestamp"]) == ("trade_updates", "new", "2020-01-02T14:35:00Z")
    assert "price" not in new["data"]
    assert fill["data"]["order"] == shown
    assert {key: fill["data"][key] for key in ("event", "price", "qty", "position_qty")} == {
        "event": "fill",
        "price": shown["filled_avg_price"],
        "qty": "10",
        "position_qty": "10",
    }
    activities = http.get(f"{exchange.url}/v2/account/activities/FILL").json()
    assert activities[0]["id"].endswith(f"::{fill['data']['execution_id']}")


def test_an_order_is_canceled_replaced_and_expires(exchange: RunningExchange, http: requests.Session) -> None:
    exchange.advance(FIRST_SLOT)
    with orders_of(exchange.url) as listener:
        first, second = send(exchange, http, LIMIT), send(exchange, http, LIMIT)
        http.delete(f"{exchange.url}/v2/orders/{first['id']}")
        third = http.patch(f"{exchange.url}/v2/orders/{second['id']}", json={"limit_price": "2"}).json()
        exchange.advance("2020-01-02T21:00:00Z")
        updates = listener.everything(count=6)
    told = [(update["data"]["event"], update["data"]["order"]["id"]) for update in updates]
    assert [one for one in told if one[1] == first["id"]] == [("new", first["id"]), ("canceled", first["id"])]
    assert [one for one in told if one[1] == second["id"]] == [("new", second["id"]), ("replaced", second["id"])]
    assert [one for one in told if one[1] == third["id"]] == [("new", third["id"]), ("expired", third["id"])]
    assert updates[-1]["data"]["timestamp"] == "2020-01-02T21:00:00Z"


def test_fills_in_parts_add_up_and_an_end_is_told_by_its_name(exchange: RunningExchange, http: requests.Session) -> None:
    exchange.advance(FIRST_SLOT)
    exchange.use_faults({"faults": {"partial_fill": {"rate": 1, "expires": 0}}})
    with orders_of(exchange.url) as listener:
        send(exchange, http)
        exchange.advance("2020-01-02T14:45:00Z")
        parts = listener.everything()
        exchange.use_faults({"faults": {"partial_fill": {"rate": 1, "expires": 1, "ends_as": "done_for_day"}}})
        send(exchange, http)
        exchange.advance("2020-01-02T21:00:00Z")
        ended = listener.everything()
    assert names(parts)[0] == "new"
    assert set(names(parts)[1:-1]) == {"partial_fill"}
    assert names(parts)[-1] == "fill"
    assert sum(int(update["data"]["qty"]) for update in parts[1:]) == 10
    assert parts[-1]["data"]["position_qty"] == "10"
    assert names(ended) == ["new", "partial_fill", "done_for_day"]


def test_an_order_of_the_night_is_accepted_and_rejected_when_the_open_is_too_dear(
    exchange: RunningExchange, http: requests.Session
) -> None:
    with orders_of(exchange.url) as listener:
        send(exchange, http, {**MARKET, "qty": "310"})  # 99,777 dollars at the close, 100,310 at the open
        exchange.advance(FIRST_SLOT)
        told = names(listener.everything())
    assert (told[0], told[-1]) == ("accepted", "rejected")


def test_an_order_that_a_fault_holds_is_pending_until_it_is_released(exchange: RunningExchange, http: requests.Session) -> None:
    exchange.advance(FIRST_SLOT)
    exchange.use_faults({"faults": {"unknown_status": {"rate": 1, "seconds": 10}}})
    with orders_of(exchange.url) as listener:
        send(exchange, http)
        exchange.advance("2020-01-02T14:36:00Z")
        updates = listener.everything(count=3)
    assert names(updates) == ["pending_new", "new", "fill"]
    assert updates[0]["data"]["order"]["status"] == "under_review"


def test_the_same_orders_are_told_in_the_same_bytes(exchange: RunningExchange, http: requests.Session) -> None:
    def a_day() -> list[str | bytes]:
        exchange.reset(now="2019-12-31T22:00:00Z", cash="100000")
        with orders_of(exchange.url) as listener:
            exchange.advance(FIRST_SLOT)
            for order in (MARKET, {**LIMIT, "client_order_id": "named"}):
                send(exchange, http, order)
            exchange.advance("2020-01-03T21:00:00Z")
            return [listener.frame() for _ in range(4)]

    assert a_day() == a_day()


def test_revoked_keys_open_no_stream(exchange: RunningExchange) -> None:
    exchange.use_faults({"faults": {"account_reset": {"at": "2020-01-02T15:00:00Z", "revokes_keys": True}}})
    exchange.advance("2020-01-02T15:00:00Z")
    with StreamListener(exchange.url, "/stream") as listener:
        assert listener.ask({"action": "auth", **KEYS})["data"]["status"] == "unauthorized"


def test_the_vendors_client_follows_orders(exchange: RunningExchange, http: requests.Session) -> None:
    exchange.advance(FIRST_SLOT)
    stream = TradingStream("local-key", "local-secret", url_override=exchange.url.replace("http", "ws", 1) + "/stream")
    updates: list[TradeUpdate] = []

    async def on_update(update: TradeUpdate) -> None:
        updates.append(update)
        if len(updates) == 2:
            await stream.stop_ws()

    stream.subscribe_trade_updates(on_update)
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not stream._running and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    placed = send(exchange, http)
    thread.join(10)
    assert [(update.event, str(update.order.id)) for update in updates] == [("new", placed["id"]), ("fill", placed["id"])]
    assert (updates[1].qty, updates[1].position_qty) == (10.0, 10.0)
    assert updates[1].order.status == "filled"
