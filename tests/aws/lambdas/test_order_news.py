"""What the broker says of an order, through the functions: odd words, replaced orders, contradictions, and orders that may be there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from lambdas.common.broker.alpaca import AlpacaBroker
from lambdas.common.ledger.ledger import Ledger
from local.exchange.server import RunningExchange
from schema.settings import SETTINGS_FILE, Settings
from tests.aws.proxy import Proxy
from tests.settings_files import settings_file

LATER, LATER_STILL, WINDOW_OVER = (f"2020-01-02T{time}Z" for time in ("14:40:00", "14:45:00", "15:10:00"))
Story = Callable[[dict[str, Any]], dict[str, Any]]


def telling(story: Story, *, of: str | None = None) -> Callable[[str, bytes], bytes]:
    """Rewrite what is said of orders (of one symbol), alone or in a list."""

    def told(order: dict[str, Any]) -> dict[str, Any]:
        return story(order) if of in {None, order["symbol"]} else order

    def rewrite(path: str, content: bytes) -> bytes:
        if not path.startswith("/v2/orders") or not content:
            return content
        answer = json.loads(content)
        return json.dumps([told(order) for order in answer] if isinstance(answer, list) else told(answer)).encode()

    return rewrite


def untold(order: dict[str, Any]) -> dict[str, Any]:
    """An order that waits."""
    return {**order, "status": "new", "filled_qty": "0", "filled_avg_price": None, "filled_at": None}


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDER_TIMEOUT_SECONDS", "0.2")
    monkeypatch.setenv("ORDER_POLL_SECONDS", "0.05")


@pytest.mark.parametrize("word", ["under_review", "pending", "refused", "held", "pending_replace", "calculated", ""])
def test_a_word_that_is_no_end_is_waited_for_whatever_it_is(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any, word: str
) -> None:
    proxy.rewrite = telling(lambda order: {**untold(order), "status": word})
    answer = execution("POST", "/decisions", decide(weights={"SPY": 0.5}))
    assert (answer.status, answer.body["state"]) == (202, "working")
    exchange.advance(LATER)
    assert reconcile()["finished"] == 0
    assert len(ledger_table.unsettled_orders()) == 1
    proxy.rewrite = lambda _path, content: content
    exchange.advance(LATER_STILL)
    assert reconcile()["finished"] == 1
    assert [order["status"] for order in exchange.books()["orders"]] == ["filled"]
    assert positions(ledger_table) == held(exchange)


@pytest.mark.parametrize("end", ["expired", "done_for_day", "canceled"])
def test_a_sale_that_ends_with_some_filled_leaves_the_buys_what_it_has_brought(
    execution: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any, end: str
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.5}))
    exchange.advance("2020-01-03T14:35:00Z")

    def partly(order: dict[str, Any]) -> dict[str, Any]:
        return {**order, "status": end, "filled_qty": "1", "filled_avg_price": "300"} if order["side"] == "sell" else order

    proxy.rewrite = telling(partly)
    answer = execution("POST", "/decisions", decide(session="2020-01-03", as_of="2020-01-02", weights={"SPY": 0.1, "IBM": 0.6}))
    assert answer.status == 200
    sold = next(order for order in ledger_table.orders("2020-01") if order.side == "sell")
    assert (sold.status, sold.filled_quantity) == (end, Decimal(1))
    # What the sale did not fill is still held, as far as risk can know: the buy would go beyond the limit
    bought = next(order for order in answer.body["orders"] if order["side"] == "buy")
    assert (bought["status"], bought["risk"]) == ("refused", "max_gross")


def test_an_order_that_contradicts_the_ledger_halts_and_the_others_go_on(
    execution: Any, control: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    proxy.rewrite = telling(untold)
    execution("POST", "/decisions", decide(weights={"SPY": 0.3, "IBM": 0.3}))
    proxy.rewrite = telling(lambda order: {**order, "symbol": "QQQ"}, of="IBM")
    exchange.advance(LATER)
    assert reconcile()["finished"] == 1
    assert {order.symbol: order.status for order in ledger_table.orders("2020-01")} == {"SPY": "filled", "IBM": "new"}
    state = control("GET", "/trading-state").body
    assert (state["state"], state["automatic"], state["by"]) == ("halted", True, "recording")
    assert "buy IBM" in state["reason"]
    assert [alert.rule.partition(":")[0] for alert in ledger_table.alerts("2020-01")] == ["contradiction"]
    control("PUT", "/trading-state", {"state": "active", "reason": "looked at it"})
    exchange.advance(LATER_STILL)
    reconcile()
    assert control("GET", "/trading-state").body["state"] == "active"
    proxy.rewrite = lambda _path, content: content
    reconcile()
    assert positions(ledger_table) == held(exchange)


def test_an_answer_to_our_post_that_is_another_order_stops_the_batch_there(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    proxy.rewrite = telling(lambda order: {**order, "side": "sell"}, of="BAC")
    answer = execution("POST", "/decisions", decide())
    assert (answer.status, answer.body["verdict"]) == (200, "halted")
    told = {order["symbol"]: order["status"] for order in answer.body["orders"]}
    assert told == {
        **dict.fromkeys(("AAPL", "AIG"), "filled"),
        "BAC": "unknown",
        **dict.fromkeys(("GOOG", "IBM", "IWM", "QQQ", "SPY"), "refused"),
    }
    proxy.rewrite = lambda _path, content: content
    exchange.advance(LATER)
    reconcile()
    assert positions(ledger_table) == held(exchange)


def test_more_filled_than_ordered_stops_the_batch_there(
    execution: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    proxy.rewrite = telling(lambda order: {**order, "filled_qty": str(Decimal(order["qty"]) + 1)}, of="BAC")
    answer = execution("POST", "/decisions", decide())
    assert (answer.status, answer.body["verdict"]) == (200, "halted")
    assert len(exchange.books()["orders"]) == 3
    assert positions(ledger_table)["BAC"] == held(exchange)["BAC"] + 1


def test_an_order_that_a_person_replaced_is_followed_to_the_end_of_the_chain(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    """Ours filled 2 of its shares, the next one none, the last one 30: more than ours was for, and no overfill."""
    proxy.rewrite = telling(untold)
    ours = execution("POST", "/decisions", decide(weights={"IBM": 0.01}))
    (sent,) = ours.body["orders"]
    at_broker = {order["client_order_id"]: order["id"] for order in exchange.books()["orders"]}
    order = {"symbol": "IBM", "side": "buy", "qty": "7", "filled_qty": "0", "filled_avg_price": None, "filled_at": None}
    order |= {"submitted_at": "2020-01-02T14:36:00Z", "replaced_by": None, "replaces": None}
    chain = {
        at_broker[sent["client_order_id"]]: {"client_order_id": sent["client_order_id"], "qty": sent["quantity"], "status": "replaced"}
        | {"filled_qty": "2", "filled_avg_price": "135", "replaced_by": "o-2"},
        "o-2": {"client_order_id": "theirs-2", "status": "replaced", "replaces": "o-1", "replaced_by": "o-3"},
        "o-3": {"client_order_id": "theirs-3", "status": "new", "qty": "30", "replaces": "o-2"},
    }
    said = [{**order, "id": order_id, **told} for order_id, told in chain.items()]

    def instead(method: str, path: str, _body: bytes) -> tuple[int, bytes] | None:
        if method != "GET" or not path.startswith("/v2/orders"):
            return None
        if "?status=" in path:
            return 200, json.dumps(said if "status=all" in path else said[2:]).encode()
        found = [one for one in said if path.endswith((f"/{one['id']}", f"client_order_id={one['client_order_id']}"))]
        return (200, json.dumps(found[0]).encode()) if found else (404, b"{}")

    proxy.instead = instead
    exchange.advance(LATER)
    assert reconcile()["finished"] == 1
    told = {one.client_order_id: one for one in ledger_table.orders("2020-01")}
    assert {name: (one.status, one.replaced_by) for name, one in told.items()} == {
        sent["client_order_id"]: ("replaced", "theirs-2"),
        "theirs-2": ("replaced", "theirs-3"),
        "theirs-3": ("new", None),
    }
    assert {one.decision_id for one in told.values()} == {"agent:2020-01-02/open+5"}
    assert told["theirs-3"].replaces == "theirs-2"
    said[2] |= {"status": "filled", "filled_qty": "30", "filled_avg_price": "136"}
    exchange.advance(LATER_STILL)
    assert reconcile()["ended"] == 1
    assert positions(ledger_table) == {"IBM": Decimal(32)}
    assert [alert.rule.partition(":")[0] for alert in ledger_table.alerts("2020-01")] == ["replaced", "replaced"]
    assert ledger_table.trading_state().state == "active"
    assert ledger_table.unsettled_orders() == []


def test_a_successor_that_is_not_shown_yet_keeps_the_replaced_order_open(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    proxy.rewrite = telling(lambda order: {**untold(order), "status": "replaced", "replaced_by": "o-2"})
    answer = execution("POST", "/decisions", decide(weights={"IBM": 0.1}))
    assert (answer.status, answer.body["state"]) == (202, "working")
    exchange.advance(LATER)
    assert reconcile()["working"] == 1
    assert len(ledger_table.unsettled_orders()) == 1


def test_an_order_of_the_batch_that_may_be_there_counts_in_the_risk_of_the_next(
    execution: Any, proxy: Proxy, exchange: RunningExchange, decide: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = settings.model_copy(update={"risk": settings.risk.model_copy(update={"max_gross": 0.8})})
    monkeypatch.setenv(SETTINGS_FILE, settings_file(tight))
    proxy.before = 1
    answer = execution("POST", "/decisions", decide(weights={"AAPL": 0.5, "IBM": 0.4}))
    assert [(order["symbol"], order["status"]) for order in answer.body["orders"]] == [("AAPL", "unknown"), ("IBM", "refused")]
    assert answer.body["orders"][1]["risk"] == "max_gross"
    assert exchange.books()["orders"] == []


def test_a_person_s_order_that_may_be_there_counts_in_the_risk_of_the_next(execution: Any, proxy: Proxy, exchange: RunningExchange) -> None:
    """It counts from the moment that it is PENDING, in the same second."""
    proxy.before = 1
    order = {"key": "k1", "symbol": "SPY", "side": "buy", "quantity": "120"}
    assert execution("POST", "/orders", order).body["orders"][0]["status"] == "unknown"
    second = execution("POST", "/orders", {**order, "key": "k2"})
    assert (second.body["orders"][0]["status"], second.body["orders"][0]["risk"]) == ("refused", "max_weight")
    third = execution("POST", "/orders", {**order, "key": "k3", "symbol": "QQQ"})
    assert third.body["orders"][0]["status"] == "filled"


def test_the_orders_of_a_day_are_counted_to_the_last(
    execution: Any, exchange: RunningExchange, decide: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = settings.model_copy(update={"risk": settings.risk.model_copy(update={"max_orders_per_day": 9})})
    monkeypatch.setenv(SETTINGS_FILE, settings_file(few))
    execution("POST", "/decisions", decide())
    manual = [
        execution("POST", "/orders", {"key": f"k{number}", "symbol": "SPY", "side": "sell", "quantity": "1"}).body["orders"][0]
        for number in range(3)
    ]
    assert [(order["status"], order["risk"]) for order in manual] == [("filled", "allowed"), *[("refused", "orders_per_day")] * 2]
    assert len(exchange.books()["orders"]) == 9


def test_positions_that_lag_behind_the_cash_are_no_loss(
    execution: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.5, "IBM": 0.4}))
    proxy.rewrite = lambda path, content: b"[]" if path == "/v2/positions" else content
    bought = execution("POST", "/orders", {"key": "k", "symbol": "QQQ", "side": "buy", "quantity": "1"})
    assert bought.body["orders"][0]["status"] == "filled"
    assert ledger_table.breakers().tripped == {}


@pytest.mark.parametrize(("quoted", "trades"), [("14:40:00", True), ("14:39:59", False), ("15:00:00", True), ("15:00:01", False)])
def test_a_quote_must_be_of_the_last_minutes(
    execution: Any, exchange: RunningExchange, decide: Any, monkeypatch: pytest.MonkeyPatch, quoted: str, trades: bool
) -> None:
    every = AlpacaBroker.latest_quotes
    exchange.reset(now="2020-01-02T14:50:00Z", cash="100000")

    def aged(self: AlpacaBroker, symbols: Any) -> Any:
        quotes = every(self, symbols)
        return {**quotes, "IBM": replace(quotes["IBM"], ts=f"2020-01-02T{quoted}Z")}

    monkeypatch.setattr(AlpacaBroker, "latest_quotes", aged)
    answer = execution("POST", "/decisions", decide(weights={"IBM": 0.3, "SPY": 0.3}))
    assert set(held(exchange)) == ({"IBM", "SPY"} if trades else {"SPY"})
    assert ("at most 0:10:00" in answer.body["refused"].get("IBM", "")) is not trades
    assert execution("POST", "/orders", {"key": "k", "symbol": "IBM", "side": "buy", "quantity": "1"}).status == (200 if trades else 422)


def held(exchange: RunningExchange) -> dict[str, Decimal]:
    return {symbol: Decimal(quantity) for symbol, quantity in exchange.books()["positions"].items()}


def positions(ledger_table: Ledger) -> dict[str, Decimal]:
    kept: dict[str, Decimal] = {}
    for fill in ledger_table.fills("2020-01"):
        kept[fill.symbol] = kept.get(fill.symbol, Decimal(0)) + (fill.quantity if fill.side == "buy" else -fill.quantity)
    return {symbol: quantity for symbol, quantity in kept.items() if quantity}
