"""What follows on a definite no of the broker's: a second attempt where the first never existed there, and nothing beside one that did."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import requests

from lambdas.common.ledger.ledger import Ledger
from local.exchange.server import RunningExchange
from tests.aws.proxy import Proxy
from trading_env.orders.orders import Intent, client_order_id

SLOT = "2020-01-02/open+5"
SLOT_2 = "2020-01-03T14:35:00Z"
LATER, LATER_STILL, WINDOW_OVER, OVER = (f"2020-01-02T{time}Z" for time in ("14:40:00", "14:45:00", "15:10:00", "15:15:00"))
WASH = (403, 40310000, "potential wash trade detected. use complex orders")
POOR = (403, 40310000, "insufficient buying power")
WHOLE = (403, 40310000, "requested asset is not fractionable")
HALTED = (422, 42210000, 'asset "AAPL" is not active')
SHORT = (403, 40310000, "insufficient qty available for order (requested: 5, available: 0)")

Refusal = tuple[int, int, str]


def refusing(refusal: Refusal, *symbols: str, times: int = 1, first: Callable[[], None] = lambda: None) -> Callable[..., Any]:
    """The broker's answer to the first so many POSTs of each symbol; `first` happens before each."""
    left = dict.fromkeys(symbols, times)
    status, code, message = refusal

    def instead(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        symbol = json.loads(body)["symbol"] if (method, path) == ("POST", "/v2/orders") else ""
        if not left.get(symbol):
            return None
        left[symbol] -= 1
        first()
        return status, json.dumps({"code": code, "message": message}).encode()

    return instead


def identity(symbol: str, attempt: int, *, slot: str = SLOT) -> str:
    return client_order_id(Intent("agent", slot, symbol, attempt))


def accepted(exchange: RunningExchange, symbol: str) -> list[str]:
    return [order["client_order_id"] for order in exchange.books()["orders"] if order["symbol"] == symbol]


def at_the_broker(exchange: RunningExchange, **order: str) -> str:
    keys = {"APCA-API-KEY-ID": exchange.config.key_id, "APCA-API-SECRET-KEY": exchange.config.secret_key}
    body = {"time_in_force": "day", **order}
    answer = requests.post(f"{exchange.url}/v2/orders", data=json.dumps(body), headers=keys, timeout=5)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def held(exchange: RunningExchange) -> dict[str, Decimal]:
    return {symbol: Decimal(quantity) for symbol, quantity in exchange.books()["positions"].items()}


def ledger_positions(ledger_table: Ledger) -> dict[str, Decimal]:
    kept: dict[str, Decimal] = {}
    for fill in ledger_table.fills("2020-01"):
        kept[fill.symbol] = kept.get(fill.symbol, Decimal(0)) + (fill.quantity if fill.side == "buy" else -fill.quantity)
    return {symbol: quantity for symbol, quantity in kept.items() if quantity}


def test_a_wash_trade_is_tried_again_once_the_opposite_order_is_cancelled(
    execution: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.5, "IBM": 0.3}))
    exchange.advance(SLOT_2)

    def rest_against_it() -> None:
        at_the_broker(exchange, symbol="SPY", side="buy", qty="1", type="limit", limit_price="1", client_order_id="a-person-s")

    proxy.instead = refusing(WASH, "SPY", first=rest_against_it)
    answer = execution("POST", "/decisions", decide(session="2020-01-03", as_of="2020-01-02", weights={"SPY": 0.3, "IBM": 0.3}))
    assert (answer.status, answer.body["verdict"]) == (200, "accepted")
    told = {(order["symbol"], order["attempt"]): order["status"] for order in answer.body["orders"]}
    assert (told["SPY", 0], told["SPY", 1]) == ("rejected", "filled")
    assert accepted(exchange, "SPY")[1:] == ["a-person-s", identity("SPY", 1, slot="2020-01-03/open+5")]
    assert {order["client_order_id"]: order["status"] for order in exchange.books()["orders"]}["a-person-s"] == "canceled"
    assert [alert.rule.partition(":")[0] for alert in ledger_table.alerts("2020-01")] == ["cancelled"]
    assert ledger_positions(ledger_table) == held(exchange)


def test_an_opposite_order_that_stays_keeps_the_second_attempt_from_being_sent(
    execution: Any, proxy: Proxy, exchange: RunningExchange, decide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDER_TIMEOUT_SECONDS", "0.2")
    monkeypatch.setenv("ORDER_POLL_SECONDS", "0.05")
    standing = {"id": "o-9", "client_order_id": "theirs", "symbol": "SPY", "side": "sell", "qty": "1", "filled_qty": "0"}
    standing |= {"filled_avg_price": None, "status": "pending_cancel", "submitted_at": "2020-01-02T14:35:00Z"}
    refuse = refusing(WASH, "SPY")
    said = []

    def instead(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        refused = refuse(method, path, body)
        said.extend([refused] if refused else [])
        if said and path.startswith("/v2/orders?status=open"):
            return 200, json.dumps([standing]).encode()
        return refused

    proxy.instead = instead
    answer = execution("POST", "/decisions", decide(weights={"SPY": 0.5}))
    assert (answer.status, answer.body["verdict"]) == (200, "refused")
    assert answer.body["refused"] == {"SPY": "SPY: broker refused with 403 (40310000): potential wash trade detected. use complex orders"}
    assert exchange.books()["orders"] == []


def test_a_buy_without_buying_power_is_tried_again_with_the_cash_that_is_there(
    execution: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    def spend() -> None:
        at_the_broker(exchange, symbol="QQQ", side="buy", notional="30000", type="market", client_order_id="a-person-s")

    proxy.instead = refusing(POOR, "AAPL", first=spend)
    answer = execution("POST", "/decisions", decide(weights={"AAPL": 0.5, "IBM": 0.45}))
    assert (answer.status, answer.body["verdict"]) == (200, "accepted")
    first, second = (order for order in answer.body["orders"] if order["symbol"] == "AAPL")
    assert (first["status"], first["refusal"], second["status"], second["attempt"]) == ("rejected", "buying_power", "filled", 1)
    assert Decimal(second["quantity"]) < Decimal(first["quantity"])
    assert accepted(exchange, "AAPL") == [identity("AAPL", 1)]
    assert 0 <= Decimal(exchange.books()["cash"]) < 1
    assert {name: q for name, q in held(exchange).items() if name != "QQQ"} == ledger_positions(ledger_table)


def test_a_buy_for_which_no_cash_is_left_is_named(execution: Any, proxy: Proxy, exchange: RunningExchange, decide: Any) -> None:
    def spend() -> None:
        at_the_broker(exchange, symbol="QQQ", side="buy", notional="100000", type="market", client_order_id="a-person-s")

    proxy.instead = refusing(POOR, "AAPL", first=spend)
    answer = execution("POST", "/decisions", decide(weights={"AAPL": 0.5}))
    assert (answer.status, answer.body["verdict"]) == (200, "refused")
    assert answer.body["refused"] == {"AAPL": "AAPL: broker refused with 403 (40310000): insufficient buying power"}
    assert accepted(exchange, "AAPL") == []


def test_what_is_not_fractionable_is_bought_whole_and_less_than_one_share_is_named(
    execution: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    proxy.instead = refusing(WHOLE, "AAPL", "GOOG")
    answer = execution("POST", "/decisions", decide(weights={"AAPL": 0.1, "GOOG": 0.005, "IBM": 0.1}))
    assert (answer.status, answer.body["verdict"]) == (200, "partial")
    asked = {(order["symbol"], order["attempt"]): Decimal(order["quantity"]) for order in answer.body["orders"]}
    assert asked["AAPL", 1] == int(asked["AAPL", 0])
    assert ("GOOG", 1) not in asked
    assert answer.body["refused"] == {"GOOG": "GOOG: broker refused with 403 (40310000): requested asset is not fractionable"}
    assert set(held(exchange)) == {"AAPL", "IBM"}
    assert ledger_positions(ledger_table) == held(exchange)


@pytest.mark.parametrize("refusal", [HALTED, SHORT], ids=["halted", "quantity"])
def test_what_cannot_be_put_right_is_named_and_not_tried_again(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, decide: Any, refusal: Refusal
) -> None:
    proxy.instead = refusing(refusal, "AAPL", times=9)
    answer = execution("POST", "/decisions", decide(weights={"AAPL": 0.1, "IBM": 0.1}))
    assert (answer.status, answer.body["verdict"]) == (200, "partial")
    assert refusal[2] in answer.body["refused"]["AAPL"]
    exchange.advance(LATER)
    reconcile()
    assert [path for _, path in proxy.asked].count("/v2/orders") == 2
    assert set(held(exchange)) == {"IBM"}


def test_there_is_no_third_attempt(execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, decide: Any) -> None:
    proxy.instead = refusing(WASH, "AAPL", times=9)
    answer = execution("POST", "/decisions", decide(weights={"AAPL": 0.1}))
    assert [(order["attempt"], order["status"]) for order in answer.body["orders"]] == [(0, "rejected"), (1, "rejected")]
    assert (answer.status, answer.body["verdict"], list(answer.body["refused"])) == (200, "refused", ["AAPL"])
    exchange.advance(LATER)
    reconcile()
    assert [path for _, path in proxy.asked].count("/v2/orders") == 2


def test_a_person_hears_the_broker_s_no(execution: Any, proxy: Proxy, exchange: RunningExchange) -> None:
    proxy.instead = refusing(WHOLE, "SPY")
    answer = execution("POST", "/orders", {"key": "k", "symbol": "SPY", "side": "buy", "quantity": "1.5"})
    assert [(order["attempt"], order["status"]) for order in answer.body["orders"]] == [(0, "rejected")]
    assert answer.body["refused"] == {"SPY": "SPY: broker refused with 403 (40310000): requested asset is not fractionable"}
    assert exchange.books()["orders"] == []


def test_after_a_doubt_a_refusal_settles_nothing_and_no_second_attempt_is_made(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    """The first POST was accepted and is not shown yet; its own hold on the cash refuses the second."""
    proxy.after, proxy.hide = 1, 3
    execution("POST", "/decisions", decide(weights={"AAPL": 0.25}))
    proxy.instead = refusing(POOR, "AAPL", times=9)
    exchange.advance(LATER)
    assert reconcile()["finished"] == 0
    (unknown,) = ledger_table.unsettled_orders()
    assert (unknown.status, unknown.attempt, unknown.sent_at) == ("unknown", 0, LATER)
    exchange.advance(LATER_STILL)
    assert reconcile()["finished"] == 1
    assert accepted(exchange, "AAPL") == [identity("AAPL", 0)]
    assert ledger_positions(ledger_table) == held(exchange)


def test_the_grace_before_the_end_of_a_window_counts_from_the_last_post(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    """It arrived with the second POST, a moment before the window ended, and is shown after it."""
    proxy.before = 1
    execution("POST", "/decisions", decide(weights={"AAPL": 0.5}))
    exchange.advance("2020-01-02T15:04:50Z")
    proxy.after, proxy.hide = 1, 3
    assert reconcile()["finished"] == 0
    exchange.advance("2020-01-02T15:05:10Z")
    assert reconcile()["finished"] == 0
    assert [order.status for order in ledger_table.orders("2020-01")] == ["unknown"]
    exchange.advance(WINDOW_OVER)
    assert reconcile()["finished"] == 1
    assert [order.status for order in ledger_table.orders("2020-01")] == ["filled"]
    assert ledger_positions(ledger_table) == held(exchange)


def test_one_question_after_the_last_post_ends_nothing(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    """The question right after the second POST had no answer, so the next one is the first."""
    proxy.before = 1
    execution("POST", "/decisions", decide(weights={"AAPL": 0.5}))
    exchange.advance("2020-01-02T15:00:00Z")
    proxy.after = 1

    def silent(method: str, path: str, _body: bytes) -> tuple[int, bytes] | None:
        return (403, b"{}") if method == "GET" and proxy.posts and "by_client_order_id" in path else None

    proxy.instead = silent
    assert reconcile()["finished"] == 0
    proxy.instead, proxy.hide = lambda *_: None, 1
    exchange.advance(WINDOW_OVER)
    assert reconcile()["finished"] == 0
    assert [order.status for order in ledger_table.orders("2020-01")] == ["unknown"]
    exchange.advance(OVER)
    assert reconcile()["finished"] == 1
    assert ledger_positions(ledger_table) == held(exchange) != {}


def test_an_accepted_order_that_is_rejected_later_is_not_tried_again(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, decide: Any
) -> None:
    def rejected(path: str, content: bytes) -> bytes:
        told = json.loads(content) if path.startswith("/v2/orders") else []
        if not isinstance(told, dict):
            return content
        return json.dumps({**told, "status": "rejected", "filled_qty": "0", "filled_avg_price": None}).encode()

    proxy.rewrite = rejected
    answer = execution("POST", "/decisions", decide(weights={"AAPL": 0.1}))
    assert [(order["attempt"], order["status"]) for order in answer.body["orders"]] == [(0, "rejected")]
    exchange.advance(LATER)
    reconcile()
    assert accepted(exchange, "AAPL") == [identity("AAPL", 0)]


def test_a_run_that_dies_before_the_second_attempt_is_stored_goes_on_with_it(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    refuse = refusing(POOR, "AAPL")
    down = []

    def instead(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        if down and path == "/v2/account":
            return 403, b"{}"
        refused = refuse(method, path, body)
        down.extend([True] if refused else [])
        return refused

    proxy.instead = instead
    answer = execution("POST", "/decisions", decide(weights={"AAPL": 0.1, "IBM": 0.1}))
    assert (answer.status, answer.body["state"]) == (202, "working")
    proxy.instead = lambda *_: None
    exchange.advance(LATER)
    assert reconcile()["finished"] == 1
    assert accepted(exchange, "AAPL") == [identity("AAPL", 1)]
    assert ledger_positions(ledger_table) == held(exchange)
