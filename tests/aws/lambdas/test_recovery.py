"""Recovery: other hands in the account, a ledger that was lost, another account, items that nobody can read, passes that died half way."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import requests

from lambdas.common.ledger.ledger import Ledger, LedgerCorrupt
from lambdas.common.ledger.records import Snapshot
from local.exchange.server import RunningExchange
from tests.aws.books import positions, recorded
from tests.aws.proxy import Proxy
from trading_env.orders.orders import PREFIX

SLOT, CLOSED = "2020-01-02T14:35:00Z", "2020-01-02T21:05:00Z"
NEXT_MORNING, NEXT_SLOT, NEXT_CLOSE = "2020-01-03T14:00:00Z", "2020-01-03T14:35:00Z", "2020-01-03T21:05:00Z"
NEXT = {"session": "2020-01-03", "as_of": "2020-01-02"}

Reconcile = Callable[[], dict[str, Any]]


def by_hand(exchange: RunningExchange, symbol: str, quantity: str, *, name: str = "by-hand", side: str = "buy", **more: str) -> None:
    keys = {"APCA-API-KEY-ID": exchange.config.key_id, "APCA-API-SECRET-KEY": exchange.config.secret_key}
    size = {} if "notional" in more else {"qty": quantity}
    order = {"symbol": symbol, "side": side, "type": "market", "time_in_force": "day", "client_order_id": name, **size, **more}
    assert requests.post(f"{exchange.url}/v2/orders", data=json.dumps(order), headers=keys, timeout=5).status_code == 200


def alerts(ledger: Ledger) -> dict[str, str]:
    return {alert.rule: alert.detail for alert in ledger.alerts("2020-01")}


def table(ledger: Ledger) -> list[dict[str, Any]]:
    """Every item but the lease, whose number rises with each that takes it."""
    items = ledger._table.scan()["Items"]
    return sorted((item for item in items if item["pk"] != "lease"), key=lambda item: (item["pk"], item["sk"]))


def forget(ledger: Ledger) -> None:
    for item in ledger._table.scan()["Items"]:
        ledger._table.delete_item(Key={"pk": item["pk"], "sk": item["sk"]})


# --- other hands


def test_what_a_person_trades_is_counted_told_and_never_sold_back(
    execution: Any, reconcile: Reconcile, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.5}))
    by_hand(exchange, "IBM", "3")
    by_hand(exchange, "AIG", "", name="for-dollars", notional="500")
    by_hand(exchange, "SPY", "2", name="limit", side="sell", type="limit", limit_price="9999")
    assert reconcile()["external"] == 2, "and the limit order is open still: it may be anything when it ends"
    order = ledger_table.order("by-hand")
    assert order is not None
    assert (order.decision_id, order.status, order.filled_quantity, order.fills) == ("foreign:2020-01-02", "filled", 3, 1)
    assert set(alerts(ledger_table)) == {"external-order:IBM", "external-order:AIG"}
    exchange.advance(CLOSED)
    reconcile()
    snapshot = ledger_table.snapshot("2020-01-02")
    assert snapshot is not None
    assert snapshot.drift == {}
    assert recorded(ledger_table) == positions(exchange)
    assert set(alerts(ledger_table)) == {"external-order:IBM", "external-order:AIG"}, "one that expired unfilled is nobody's news"
    exchange.advance(NEXT_SLOT)
    answer = execution("POST", "/decisions", decide(**NEXT, weights={"SPY": 0.5}))
    assert {one["symbol"] for one in answer.body["orders"]} <= {"SPY"}
    assert positions(exchange)["IBM"] == 3


def test_shares_that_no_order_explains_are_drift_and_stay_visible(
    execution: Any, reconcile: Reconcile, control: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.5}))
    exchange.advance(CLOSED)
    reconcile()
    proxy.rewrite = lambda path, content: content.replace(b'"IBM"', b'"XXX"') if path.startswith("/v2/positions") else content
    exchange.advance(NEXT_SLOT)
    by_hand(exchange, "IBM", "3")
    exchange.advance(NEXT_CLOSE)
    proxy.rewrite = _with_position(("AIG", "7"))
    assert reconcile()["drift"] == ["AIG"]
    assert "our fills say 0, the broker holds 7" in alerts(ledger_table)["drift:AIG"]
    assert control("GET", "/portfolio").body["snapshot"]["drift"] == {"AIG": "AIG: our fills say 0, the broker holds 7"}


def _with_position(*held: tuple[str, str]) -> Callable[[str, bytes], bytes]:
    def rewrite(path: str, content: bytes) -> bytes:
        if not path.startswith("/v2/positions"):
            return content
        told = json.loads(content)
        return json.dumps([*told, *({**told[0], "symbol": symbol, "qty": qty, "qty_available": qty} for symbol, qty in held)]).encode()

    return rewrite


# --- a lost ledger


def test_a_lost_ledger_is_rebuilt_without_an_order_and_waits_for_a_person(
    execution: Any, reconcile: Reconcile, control: Any, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide())
    by_hand(exchange, "IBM", "1")
    before, orders = recorded(ledger_table), exchange.books()["orders"]
    ids = {order["client_order_id"] for order in orders}
    forget(ledger_table)
    done = reconcile()
    assert (done["recovered"], done["external"]) == (8, 1)
    assert recorded(ledger_table) == positions(exchange)
    assert {symbol: quantity for symbol, quantity in recorded(ledger_table).items() if symbol != "IBM"} == {
        symbol: quantity for symbol, quantity in before.items() if symbol != "IBM"
    }
    found = {order.client_order_id: order.decision_id for order in ledger_table.orders("2020-01")}
    assert found.keys() == ids
    assert set(found.values()) == {"recovered:2020-01-02", "foreign:2020-01-02"}
    state = ledger_table.trading_state()
    assert (state.state, state.automatic) == ("halted", True)
    assert "8 orders of ours" in alerts(ledger_table)["ledger-lost"]

    exchange.advance(CLOSED)
    reconcile()
    snapshot = ledger_table.snapshot("2020-01-02")
    assert snapshot is not None
    assert {symbol: held.quantity for symbol, held in snapshot.positions.items()} == positions(exchange)
    exchange.advance(NEXT_SLOT)
    assert execution("POST", "/decisions", decide(**NEXT)).status == 423
    assert exchange.books()["orders"] == orders, "nothing was sent"
    control("PUT", "/trading-state", {"state": "active", "reason": "looked at what was recovered"})
    sold = execution("POST", "/orders", {"key": "k", "symbol": "IBM", "side": "sell", "quantity": "1"})
    assert [order["status"] for order in sold.body["orders"]] == ["filled"]


def test_a_ledger_that_is_lost_over_night_has_its_book_and_its_orders_in_the_morning(
    execution: Any, reconcile: Reconcile, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide())
    exchange.advance(CLOSED)
    reconcile()
    closed = ledger_table.snapshot("2020-01-02")
    forget(ledger_table)
    exchange.advance(NEXT_MORNING)
    done = reconcile()
    assert (done["recovered"], done["late"], done["late_snapshot"]) == (8, "2020-01-02", "taken")
    again = ledger_table.snapshot("2020-01-02")
    assert again is not None
    assert closed is not None
    assert (again.positions, again.cash, again.equity) == (closed.positions, closed.cash, closed.equity)
    assert set(alerts(ledger_table)) == {"ledger-lost"}, "its recovered fills explain the book"
    assert ledger_table.trading_state().state == "halted"


def test_the_same_event_after_the_loss_orders_nothing_twice(
    execution: Any, reconcile: Reconcile, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide())
    orders = exchange.books()["orders"]
    forget(ledger_table)
    reconcile()
    ledger_table.set_trading_state("active", reason="too soon", time=SLOT, by="person")
    execution("POST", "/decisions", decide())
    assert exchange.books()["orders"] == orders


# --- sessions that nobody closed


def test_a_session_that_nobody_closed_is_closed_before_the_next_one_opens(
    execution: Any, reconcile: Reconcile, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide())
    exchange.advance(NEXT_MORNING)
    assert reconcile()["late"] == "2020-01-02"
    snapshot = ledger_table.snapshot("2020-01-02")
    assert snapshot is not None
    assert (snapshot.equity, snapshot.drift) == (Decimal(exchange.books()["equity"]), {})
    assert ledger_table.breakers().last_close_session == "2020-01-02"
    assert "late" not in reconcile()


def test_once_the_next_session_runs_it_is_too_late_to_close_the_last(
    execution: Any, reconcile: Reconcile, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide())
    exchange.advance(NEXT_SLOT)
    reconcile()
    assert ledger_table.snapshot("2020-01-02") is None


def test_a_split_over_night_cannot_be_closed_late(
    execution: Any, reconcile: Reconcile, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    exchange.reset(now="2020-08-28T13:35:00Z", cash="100000")
    execution("POST", "/decisions", decide(session="2020-08-28", as_of="2020-08-27", weights={"AAPL": 0.5}))
    exchange.advance("2020-08-31T13:00:00Z")
    reconcile()
    assert ledger_table.snapshot("2020-08-28") is None
    said = {alert.rule: alert.detail for alert in ledger_table.alerts("2020-08")}
    assert said["snapshot-missing"] == "2020-08-28 was not closed, and AAPL has split since"


def test_an_account_in_which_nothing_ever_was_has_no_session_to_close(reconcile: Reconcile, exchange: RunningExchange) -> None:
    exchange.reset(now="2020-01-03T14:00:00Z", cash="100000")
    assert "late" not in reconcile()


# --- another account


def test_another_account_halts_and_goes_on_only_by_a_person_s_word(
    execution: Any, reconcile: Reconcile, control: Any, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    exchange.use_faults({"faults": {"account_reset": {"at": "2020-01-02T23:00:00Z"}, "partial_fill": {"rate": 1, "expires": 1}}})
    try:
        execution("POST", "/decisions", decide(weights={"SPY": 0.5}))
        exchange.advance("2020-01-02T23:30:00Z")
        done = reconcile()
        assert done["session"] is None
        state = ledger_table.trading_state()
        assert (state.state, state.automatic) == ("halted", True)
        assert "it was reset, or the keys are another's" in alerts(ledger_table)["account-changed"]
        assert ledger_table.snapshot("2020-01-02") is None, "another account's book is not this one's"
    finally:
        exchange.use_faults({})

    exchange.advance(NEXT_SLOT)
    control("PUT", "/trading-state", {"state": "active", "reason": "carry on"})
    reconcile()
    assert ledger_table.trading_state().state == "halted", "without the account's name nothing is accepted"
    account = done["account"].split()[4].rstrip(",")
    control("PUT", "/trading-state", {"state": "active", "reason": "a new paper account", "account": account})
    assert [change.account for change in ledger_table.state_changes("2020-01") if change.account] == [account]
    reconcile()
    assert ledger_table.unsettled_orders() == [], "what the old account had open is gone with it"
    assert [rule for rule in alerts(ledger_table) if rule.startswith("vanished:")]
    answer = execution("POST", "/decisions", decide(**NEXT, weights={"SPY": 0.5}))
    assert [order["status"] for order in answer.body["orders"]] == ["filled"]
    exchange.advance(NEXT_CLOSE)
    assert reconcile()["drift"] == []


def test_an_account_is_named_only_to_go_on(control: Any, ledger_table: Ledger) -> None:
    answer = control("PUT", "/trading-state", {"state": "halted", "reason": "x", "account": "a"})
    assert (answer.status, "active only" in answer.body["errors"][0]["allowed"]) == (422, True)


# --- what cannot be read or settled


def test_an_order_that_cannot_be_read_stops_no_other(
    execution: Any, reconcile: Reconcile, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    """It fails the function, for its alarm, after everything else was done."""
    exchange.use_faults({"faults": {"partial_fill": {"rate": 1, "expires": 1}}})
    try:
        execution("POST", "/decisions", decide())
    finally:
        exchange.use_faults({})
    broken = next(order for order in ledger_table.unsettled_orders() if order.symbol == "IBM")
    key = {"pk": f"order#{broken.client_order_id}", "sk": "order"}
    ledger_table._table.update_item(Key=key, UpdateExpression="SET quantity = :x", ExpressionAttributeValues={":x": "many"})
    exchange.advance(CLOSED)
    with pytest.raises(LedgerCorrupt, match=broken.client_order_id):
        reconcile()
    snapshot = ledger_table.snapshot("2020-01-02")
    assert snapshot is not None
    assert snapshot.orders == 7
    statuses = {item["status"] for item in ledger_table._table.scan()["Items"] if item["kind"] == "order" and item["symbol"] != "IBM"}
    assert statuses == {"expired"}


def test_an_order_whose_row_cannot_be_read_stops_no_other(
    execution: Any, reconcile: Reconcile, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    """One row of the broker's list is not an order: each of the others is asked for by itself."""
    exchange.use_faults({"faults": {"partial_fill": {"rate": 1, "expires": 1}}})
    try:
        execution("POST", "/decisions", decide())
    finally:
        exchange.use_faults({})
    exchange.advance(CLOSED)

    def rewrite(path: str, content: bytes) -> bytes:
        return content.replace(b'"symbol":"IBM"', b'"symbool":"IBM"') if path.startswith("/v2/orders") else content

    proxy.rewrite = rewrite
    with pytest.raises(Exception, match="order cannot be read"):
        reconcile()
    assert [order.symbol for order in ledger_table.unsettled_orders()] == ["IBM"]
    assert ledger_table.snapshot("2020-01-02") is not None
    proxy.rewrite = lambda _path, content: content
    reconcile()
    assert ledger_table.unsettled_orders() == []


# --- again, and again


def _after_the_slot(exchange: RunningExchange) -> None:
    del exchange


def _with_another_hand(exchange: RunningExchange) -> None:
    by_hand(exchange, "IBM", "3")


def _after_the_close(exchange: RunningExchange) -> None:
    by_hand(exchange, "IBM", "3")
    exchange.advance(CLOSED)


def _before_the_next_open(exchange: RunningExchange) -> None:
    exchange.advance(NEXT_MORNING)


@pytest.mark.parametrize("lost", [False, True], ids=["", "lost ledger"])
@pytest.mark.parametrize("then", [_after_the_slot, _with_another_hand, _after_the_close, _before_the_next_open])
def test_reconciling_twice_is_reconciling_once(
    execution: Any,
    reconcile: Reconcile,
    exchange: RunningExchange,
    ledger_table: Ledger,
    decide: Any,
    then: Callable[[RunningExchange], None],
    lost: bool,
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.5, "AIG": 0.2}))
    then(exchange)
    if lost:
        forget(ledger_table)
    reconcile()
    once, books = table(ledger_table), exchange.books()
    reconcile()
    assert table(ledger_table) == once
    assert exchange.books() == books


def test_a_pass_that_died_after_the_snapshot_is_finished_by_the_next(
    execution: Any, reconcile: Reconcile, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    """The snapshot is there, its drift was not told and the breakers do not know the close."""
    execution("POST", "/decisions", decide(weights={"SPY": 0.5}))
    exchange.advance(CLOSED)
    proxy.rewrite = _with_position(("AIG", "7"))
    peak = ledger_table.breakers()
    reconcile()
    for alert in ledger_table.alerts("2020-01"):
        ledger_table._table.delete_item(Key={name: value for name, value in alert.keys().items() if name in {"pk", "sk"}})
    ledger_table.change_breakers(lambda now: peak.model_copy(update={"version": now.version}))
    assert reconcile()["snapshot"] == "taken before"
    snapshot = ledger_table.snapshot("2020-01-02")
    assert snapshot is not None
    assert set(alerts(ledger_table)) == {"book-adopted"}
    assert (ledger_table.breakers().last_close_session, ledger_table.breakers().last_close_equity) == ("2020-01-02", snapshot.equity)


# --- prices and breakers


def test_a_name_that_trades_no_more_is_carried_at_its_last_price(
    execution: Any, reconcile: Reconcile, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    execution("POST", "/decisions", decide(weights={"SPY": 0.5, "AIG": 0.2}))
    exchange.advance(CLOSED)
    reconcile()
    first = ledger_table.snapshot("2020-01-02")
    monkeypatch.setenv("ALPACA_DATA_URL", proxy.url)
    proxy.rewrite = lambda path, content: json.dumps(_without(json.loads(content), "AIG")).encode() if "trades/latest" in path else content
    exchange.advance(NEXT_CLOSE)
    reconcile()
    second = ledger_table.snapshot("2020-01-03")
    assert first is not None
    assert second is not None
    assert second.positions["AIG"] == first.positions["AIG"]
    assert second.equity == second.cash + sum(held.quantity * held.close for held in second.positions.values())
    assert alerts(ledger_table)["stale-price:AIG"] == (
        f"AIG has no trade since its close of 2020-01-02: it is carried at {first.positions['AIG'].close}; "
        "its position is kept and not traded"
    )
    assert set(second.carried) == {"AIG"}


def _without(told: dict[str, Any], symbol: str) -> dict[str, Any]:
    return {**told, "trades": {name: row for name, row in told["trades"].items() if name != symbol}}


def test_after_re_arming_losses_count_from_the_next_look_not_from_the_next_close(
    execution: Any, reconcile: Reconcile, control: Any, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide())
    ledger_table.change_breakers(lambda now: now.model_copy(update={"peak_equity": Decimal(300_000)}))
    reconcile()
    assert set(ledger_table.breakers().tripped) == {"max_drawdown"}
    control("PUT", "/trading-state", {"state": "active", "reason": "a withdrawal"})
    reconcile()
    breakers = ledger_table.breakers()
    assert breakers.tripped == {}
    assert breakers.peak_equity == breakers.last_close_equity == Decimal(exchange.books()["equity"])


def test_a_split_that_the_broker_has_not_applied_trips_no_breaker(
    execution: Any, reconcile: Reconcile, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    """The price is a quarter, the shares are what they were: told, for a person; when they are there, all is well."""
    exchange.reset(now="2020-08-28T13:35:00Z", cash="100000")
    execution("POST", "/decisions", decide(session="2020-08-28", as_of="2020-08-27", weights={"AAPL": 0.5}))
    held = positions(exchange)["AAPL"]
    exchange.advance("2020-08-28T20:05:00Z")
    reconcile()
    exchange.advance("2020-08-31T13:40:00Z")
    books = exchange.books()
    phantom = Decimal(books["equity"]) - 3 * held * Decimal("127.58")

    def rewrite(path: str, content: bytes) -> bytes:
        if path.startswith("/v2/positions"):
            return content.replace(str(held * 4).encode(), str(held).encode())
        if path.startswith("/v2/account"):
            return json.dumps({**json.loads(content), "equity": str(phantom)}).encode()
        return content

    proxy.rewrite = rewrite
    reconcile()
    assert ledger_table.breakers().tripped == {}
    said = {alert.rule: alert.detail for alert in ledger_table.alerts("2020-08")}
    assert said["split-pending:AAPL"].startswith(f"AAPL splits 4 for 1, and the broker holds {held} still, not {held * 4};")
    proxy.rewrite = lambda path, content: rewrite(path, content) if path.startswith("/v2/account") else content
    reconcile()
    assert set(ledger_table.breakers().tripped) == {"max_daily_loss"}, "with the shares in place it is a loss"


def test_a_snapshot_says_whose_it_is_and_at_what_price_others_closed(
    execution: Any, reconcile: Reconcile, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.5}))
    by_hand(exchange, "IBM", "1")
    by_hand(exchange, "IBM", "1", side="sell", name="and-back")
    reconcile()
    exchange.advance(CLOSED)
    reconcile()
    snapshot: Snapshot | None = ledger_table.snapshot("2020-01-02")
    assert snapshot is not None
    assert snapshot.account_id == ledger_table.breakers().account_id
    assert set(snapshot.closes) == {"IBM"}
    assert all(order.client_order_id.startswith(PREFIX) for order in ledger_table.orders("2020-01") if order.symbol == "SPY")
