"""Reconciliation against a real exchange: doubts resolved by asking, sessions closed once, what is missing said once."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import OrderRecord
from local.exchange.server import RunningExchange
from schema.settings import SETTINGS_FILE, Settings
from tests.aws.books import positions, recorded
from tests.aws.proxy import Proxy
from tests.settings_files import settings_file

SHORTLY_AFTER, LATER, WINDOW_OVER, CLOSED = (f"2020-01-02T{time}Z" for time in ("14:35:10", "14:40:00", "15:10:00", "21:05:00"))


def _statuses(answer: Any) -> list[str]:
    return sorted({order["status"] for order in answer.body["orders"]})


def test_a_504_after_the_order_was_accepted_is_adopted_at_once(
    execution: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    proxy.after = 3
    answer = execution("POST", "/decisions", decide())
    assert (answer.status, _statuses(answer)) == (200, ["filled"])
    assert len(exchange.books()["orders"]) == 8
    assert recorded(ledger_table) == positions(exchange)


def test_an_order_that_the_broker_shows_late_is_adopted_and_not_sent_again(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    proxy.after, proxy.hide = 1, 1
    answer = execution("POST", "/decisions", decide())
    assert (answer.status, answer.body["state"]) == (202, "working")
    assert _statuses(answer) == ["filled", "unknown"]
    exchange.advance(SHORTLY_AFTER)
    assert reconcile()["finished"] == 1
    assert len(exchange.books()["orders"]) == 8
    assert recorded(ledger_table) == positions(exchange)


def test_an_order_that_never_arrived_is_sent_again_only_after_grace_and_a_second_question_with_the_same_id(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    proxy.before = 1
    answer = execution("POST", "/decisions", decide())
    lost = next(order for order in answer.body["orders"] if order["status"] == "unknown")
    exchange.advance(SHORTLY_AFTER)
    assert reconcile()["finished"] == 0
    assert proxy.posts == 7
    exchange.advance(LATER)
    assert reconcile()["finished"] == 1
    ids = [order["client_order_id"] for order in exchange.books()["orders"]]
    assert (len(ids), len(set(ids))) == (8, 8)
    assert lost["client_order_id"] in ids
    assert recorded(ledger_table) == positions(exchange)


def test_a_first_question_long_after_the_grace_sends_nothing_again(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    proxy.before = 1
    answer = execution("POST", "/decisions", decide())
    (lost,) = [order["client_order_id"] for order in answer.body["orders"] if order["status"] == "unknown"]
    order = ledger_table.order(lost)
    assert order is not None
    ledger_table.save_order(order.model_copy(update={"missing_since": None}))  # the function died before it could ask
    exchange.advance(LATER)
    assert (reconcile()["finished"], proxy.posts) == (0, 7)
    assert reconcile()["finished"] == 1
    assert recorded(ledger_table) == positions(exchange)


def test_sending_again_what_had_arrived_after_all_adopts_it(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    proxy.after, proxy.hide = 1, 2
    execution("POST", "/decisions", decide(weights={"IBM": 0.2, "SPY": 0.2}))
    exchange.advance(LATER)
    assert reconcile()["finished"] == 1
    assert proxy.posts == 3
    assert len(exchange.books()["orders"]) == 2
    assert recorded(ledger_table) == positions(exchange)


def test_risk_never_settles_an_order_that_may_have_been_sent(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    """Its shares are in the account and not yet in the ledger, so sending it again would break the gross limit."""
    proxy.after, proxy.hide = 1, 2
    execution("POST", "/decisions", decide())
    exchange.advance(LATER)
    assert reconcile()["finished"] == 0
    assert [order.status for order in ledger_table.unsettled_orders()] == ["unknown"]
    assert reconcile()["finished"] == 1
    assert proxy.posts == 8
    assert recorded(ledger_table) == positions(exchange)


def test_an_unknown_order_of_an_ended_window_expires_unsent(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    proxy.before = 1
    execution("POST", "/decisions", decide())
    exchange.advance(WINDOW_OVER)
    assert reconcile()["finished"] == 1
    assert len(exchange.books()["orders"]) == 7
    assert sorted(order.status for order in ledger_table.orders("2020-01")) == ["expired"] + ["filled"] * 7
    assert ledger_table.unsettled_orders() == []


def test_buys_wait_for_an_unknown_sell(execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, decide: Any) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.9 * 0.6, "IBM": 0.4}))
    exchange.advance("2020-01-03T14:35:00Z")
    proxy.before = 1
    swap = decide(session="2020-01-03", as_of="2020-01-02", weights={"SPY": 0.4, "IBM": 0.5})
    answer = execution("POST", "/decisions", swap)
    assert [(order["side"], order["status"]) for order in answer.body["orders"]] == [("sell", "unknown"), ("buy", "planned")]
    exchange.advance("2020-01-03T14:40:00Z")
    assert reconcile()["finished"] == 1
    assert [order["side"] for order in exchange.books()["orders"]][-2:] == ["sell", "buy"]


def test_a_crash_between_pending_and_the_post_sends_the_order_once(
    reconcile: Any, execution: Any, exchange: RunningExchange, ledger_table: Ledger, decide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as short:
        short.setenv("BATCH_BUDGET_SECONDS", "0")
        planned = execution("POST", "/decisions", decide()).body["orders"][0]
    fence = ledger_table.acquire_lease("dead", now=0, seconds=0)
    pending = {name: planned[name] for name in ("client_order_id", "symbol", "side", "quantity", "price")}
    crashed = OrderRecord(**pending, decision_id="agent:2020-01-02/open+5", slot="2020-01-02/open+5", created_at="2020-01-02T14:35:00Z")
    ledger_table.open_order(crashed, fence=fence or 0)
    exchange.advance(LATER)
    reconcile()
    assert len(exchange.books()["orders"]) == 7
    assert [order.unknown_since for order in ledger_table.unsettled_orders()] == ["2020-01-02T14:40:00Z"]  # what health watches
    exchange.advance("2020-01-02T14:45:00Z")
    reconcile()
    assert len(exchange.books()["orders"]) == 8
    assert recorded(ledger_table) == positions(exchange)


def test_reconciling_again_changes_nothing(
    execution: Any, reconcile: Any, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide())
    exchange.advance(CLOSED)
    reconcile()
    before = (
        ledger_table.orders("2020-01"),
        ledger_table.fills("2020-01"),
        ledger_table.snapshot("2020-01-02"),
        exchange.books()["orders"],
    )
    reconcile()
    after = (ledger_table.orders("2020-01"), ledger_table.fills("2020-01"), ledger_table.snapshot("2020-01-02"), exchange.books()["orders"])
    assert after == before


def test_an_empty_ledger_sends_no_order(
    execution: Any, reconcile: Any, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide())
    table = ledger_table._table
    for item in table.scan()["Items"]:
        table.delete_item(Key={"pk": item["pk"], "sk": item["sk"]})
    reconcile()
    assert len(exchange.books()["orders"]) == 8


def test_the_closing_snapshot_is_the_broker_s_book_once(
    execution: Any, reconcile: Any, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide())
    reconcile()
    assert ledger_table.snapshot("2020-01-02") is None
    exchange.advance(CLOSED)
    assert reconcile()["snapshot"] == "taken"
    snapshot, books = ledger_table.snapshot("2020-01-02"), exchange.books()
    assert snapshot is not None
    assert (snapshot.cash, snapshot.equity) == (Decimal(books["cash"]), Decimal(books["equity"]))
    assert {symbol: held.quantity for symbol, held in snapshot.positions.items()} == positions(exchange)
    assert (snapshot.orders, snapshot.fills, snapshot.open_orders) == (8, 8, 0)
    breakers = ledger_table.breakers()
    assert breakers.last_close_equity == snapshot.equity
    assert breakers.account_id is not None
    assert reconcile()["snapshot"] == "taken before"
    assert _alerts(ledger_table) == []


def test_a_split_is_not_drift(execution: Any, reconcile: Any, exchange: RunningExchange, ledger_table: Ledger, decide: Any) -> None:
    exchange.reset(now="2020-08-28T13:35:00Z", cash="100000")
    execution("POST", "/decisions", decide(session="2020-08-28", as_of="2020-08-27", weights={"AAPL": 0.5}))
    before = positions(exchange)["AAPL"]
    exchange.advance("2020-08-28T20:05:00Z")
    reconcile()
    exchange.advance("2020-08-31T20:05:00Z")
    reconcile()
    assert positions(exchange)["AAPL"] == before * 4
    assert _alerts(ledger_table, "2020-08") == ["slot-missed:open+5"]


def test_a_split_that_the_broker_announced_and_did_not_apply_is_drift(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    exchange.reset(now="2020-08-28T13:35:00Z", cash="100000")
    execution("POST", "/decisions", decide(session="2020-08-28", as_of="2020-08-27", weights={"AAPL": 0.5}))
    held = positions(exchange)["AAPL"]
    exchange.advance("2020-08-28T20:05:00Z")
    reconcile()
    proxy.rewrite = lambda path, content: content.replace(str(held * 4).encode(), str(held).encode()) if "positions" in path else content
    exchange.advance("2020-08-31T20:05:00Z")
    assert reconcile()["drift"] == ["AAPL"]
    said = {alert.rule: alert.detail for alert in ledger_table.alerts("2020-08")}
    assert said["drift:AAPL"].startswith(f"AAPL: our fills say {held * 4}, the broker holds {held};")


def test_a_last_trade_without_a_price_carries_the_position_and_trips_nothing(
    execution: Any,
    reconcile: Any,
    proxy: Proxy,
    exchange: RunningExchange,
    ledger_table: Ledger,
    decide: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Valued at 0, a book would be worth its cash alone, and what is no loss would trip the breaker of losses."""
    execution("POST", "/decisions", decide(weights={"SPY": 0.5}))
    exchange.advance(CLOSED)
    reconcile()
    monkeypatch.setenv("ALPACA_DATA_URL", proxy.url)
    proxy.rewrite = lambda path, content: re.sub(rb'"p": ?[0-9.]+', b'"p":0', content) if "trades/latest" in path else content
    exchange.advance("2020-01-03T21:05:00Z")
    reconcile()
    before, after = (ledger_table.snapshot(day) for day in ("2020-01-02", "2020-01-03"))
    assert before is not None
    assert after is not None
    assert after.positions["SPY"].close == before.positions["SPY"].close
    assert "SPY has no trade since its close of 2020-01-02" in after.carried["SPY"]
    assert ledger_table.breakers().tripped == {}


def test_a_missed_slot_is_said_once(reconcile: Any, exchange: RunningExchange, ledger_table: Ledger) -> None:
    reconcile()
    assert _alerts(ledger_table) == []
    exchange.advance(WINDOW_OVER)
    reconcile()
    reconcile()
    assert _alerts(ledger_table) == ["slot-missed:open+5"]


def test_each_slot_that_is_missed_is_said_once(
    reconcile: Any, exchange: RunningExchange, ledger_table: Ledger, two_slots: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTINGS_FILE, settings_file(two_slots))
    for time, told in (
        ("15:10", ["slot-missed:open+5"]),
        ("15:59", ["slot-missed:open+5"]),
        ("16:00", ["slot-missed:open+5", "slot-missed:open+60"]),
    ):
        exchange.advance(f"2020-01-02T{time}:00Z")
        reconcile()
        assert _alerts(ledger_table) == told


def test_a_holiday_has_no_slot_and_no_snapshot(reconcile: Any, exchange: RunningExchange, ledger_table: Ledger) -> None:
    exchange.reset(now="2020-01-01T16:00:00Z", cash="100000")
    assert reconcile()["session"] is None
    assert ledger_table.snapshots("2020-01-01", "2020-12-31") == []


def test_a_breaker_latches_and_only_a_person_rearms_it(
    execution: Any, control: Any, reconcile: Any, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    execution("POST", "/decisions", decide())
    ledger_table.change_breakers(lambda now: now.model_copy(update={"peak_equity": Decimal(300_000)}))
    reconcile()
    assert list(ledger_table.breakers().tripped) == ["max_drawdown"]
    ledger_table.change_breakers(lambda now: now.model_copy(update={"peak_equity": Decimal(100_000)}))
    buy = {"key": "k1", "symbol": "SPY", "side": "buy", "quantity": "1"}
    assert execution("POST", "/orders", buy).body["orders"][0]["risk"] == "breaker"
    assert execution("POST", "/orders", {**buy, "key": "k2", "side": "sell"}).body["orders"][0]["status"] == "filled"
    assert _alerts(ledger_table) == ["max_drawdown"]
    control("PUT", "/trading-state", {"state": "active", "reason": "looked at it"})
    assert ledger_table.breakers().tripped == {}
    assert execution("POST", "/orders", {**buy, "key": "k3"}).body["orders"][0]["status"] == "filled"


def _alerts(ledger_table: Ledger, month: str = "2020-01") -> list[str]:
    return [alert.rule for alert in ledger_table.alerts(month)]
