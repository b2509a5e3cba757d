"""The execution function against a real exchange and an in-process ledger: what the broker got, and what the ledger says."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import boto3
import numpy as np
import pytest

from lambdas.common.broker.alpaca import AlpacaBroker
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.telemetry import logger
from local.exchange.server import RunningExchange
from schema.settings import SETTINGS_FILE, Settings
from schema.trading_rules import rules_of
from tests.aws.proxy import Proxy
from tests.settings_files import settings_file
from trading_env.simulation.portfolio import Book, fill, plan_orders

SLOT_2 = "2020-01-03T14:35:00Z"
ORDER = {"key": "k1", "symbol": "SPY", "side": "buy", "quantity": "1"}


def test_a_decision_trades_once_and_the_ledger_holds_what_the_broker_holds(
    execution: Any, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    first = execution("POST", "/decisions", decide())
    books = exchange.books()

    assert first.status == 200
    assert (first.body["state"], first.body["verdict"]) == ("done", "accepted")
    assert len(first.body["orders"]) == 8
    assert {order["status"] for order in first.body["orders"]} == {"filled"}
    filled = {fill.symbol: fill.quantity for fill in ledger_table.fills("2020-01")}
    assert filled == {symbol: Decimal(held) for symbol, held in _positions(books).items()}

    again = execution("POST", "/decisions", decide())
    assert again.body == first.body
    assert len(exchange.books()["orders"]) == 8


def test_sells_go_first_and_positions_equal_the_simulator_s(
    execution: Any, exchange: RunningExchange, settings: Settings, decide: Any
) -> None:
    names = settings.universe.symbols
    target = dict(zip(names, [0.05, 0.2, 0.0, 0.25, 0.1, 0.15, 0.15, 0.1], strict=True))
    book = Book.of_cash(100_000.0, assets=len(names))
    for slot, weights in (("2020-01-02T14:35:00Z", dict.fromkeys(names, 1 / 8)), (SLOT_2, target)):
        if slot == SLOT_2:
            exchange.advance(slot)
        prices = np.array([_last_trade(exchange, symbol) for symbol in names])
        rules = rules_of(settings)
        wanted = np.array([[weights[symbol] for symbol in names]])
        deltas = plan_orders(
            cash=book.cash, quantities=book.quantities, prices=prices, weights=wanted, tradable=np.ones((1, 8), dtype=bool), rules=rules
        )
        book, _, _ = fill(book, deltas=deltas, prices=prices, rules=rules)
        answer = execution(
            "POST", "/decisions", decide(session=slot[:10], as_of="2019-12-31" if slot < SLOT_2 else "2020-01-02", weights=weights)
        )
        assert answer.status == 200, answer

    sides = [order["side"] for order in answer.body["orders"]]
    assert sides == sorted(sides, reverse=True)
    assert "sell" in sides
    assert "buy" in sides
    books = exchange.books()
    held = _positions(books)
    assert "IWM" not in held
    traded = [float(held[symbol]) if symbol in held else 0.0 for symbol in names]
    np.testing.assert_allclose(traded, book.quantities[0], rtol=0, atol=1e-9)
    assert float(books["cash"]) == pytest.approx(float(book.cash[0]), rel=1e-9)


def test_another_body_under_the_same_id_is_a_409(execution: Any, exchange: RunningExchange, decide: Any) -> None:
    execution("POST", "/decisions", decide())
    other = execution("POST", "/decisions", decide(model_version="another"))
    assert other.status == 409
    assert len(exchange.books()["orders"]) == 8


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"weights": {"SPY": float("nan")}}, "weights.SPY"),
        ({"weights": {"SPY": -0.1}}, "weights.SPY"),
        ({"weights": {"TSLA": 0.1}}, "weights.TSLA"),
        ({"weights": {"SPY": 0.6, "QQQ": 0.6}}, "weights"),
        ({"slot": "2020-01-02/close-5"}, "slot"),
        ({"slot": "2020-01-02/open+9", "decision_id": "agent:2020-01-02/open+9"}, "slot"),
        ({"decision_id": "mine"}, "decision_id"),
        ({"strategy": "manual"}, "strategy"),
        ({"feature_hash": "short"}, "feature_hash"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_body_is_a_422_that_names_the_field(
    execution: Any, exchange: RunningExchange, decide: Any, change: dict[str, Any], field: str
) -> None:
    answer = execution("POST", "/decisions", decide(**change))
    assert answer.status == 422
    assert field in [error["field"] for error in answer.body["errors"]]
    assert exchange.books()["orders"] == []


@pytest.mark.parametrize(
    "text",
    ["", "not JSON", "null", json.dumps([ORDER]), json.dumps([ORDER, {**ORDER, "key": "k2"}]), "[" * 100_000, f'{{"key": {"1" * 5000}}}'],
    ids=["empty", "no JSON", "null", "list of one", "list of two", "deep", "long number"],
)
def test_a_body_that_is_no_object_is_a_422_and_orders_nothing(execution: Any, exchange: RunningExchange, text: str) -> None:
    answer = execution("POST", "/orders", text)
    assert answer.status == 422
    assert answer.body["errors"]
    assert exchange.books()["orders"] == []


def test_halted_answers_423_and_sends_nothing(execution: Any, control: Any, exchange: RunningExchange, decide: Any) -> None:
    control("PUT", "/trading-state", {"state": "halted", "reason": "a test"})
    answer = execution("POST", "/decisions", decide())
    assert answer.status == 423
    assert answer.body["reason"] == "a test"
    assert exchange.books()["orders"] == []
    assert execution("POST", "/decisions", decide()).status == 423


def test_a_halt_is_honoured_between_two_orders_of_a_batch(
    execution: Any, control: Any, proxy: Proxy, exchange: RunningExchange, decide: Any
) -> None:
    def halt_after_the_third(count: int) -> None:
        if count == 3:
            control("PUT", "/trading-state", {"state": "halted", "reason": "a person"})

    proxy.on_post = halt_after_the_third
    answer = execution("POST", "/decisions", decide())
    assert (answer.status, answer.body["verdict"]) == (200, "halted")
    assert len(exchange.books()["orders"]) == 3
    assert [order["status"] for order in answer.body["orders"]] == ["filled"] * 3 + ["refused"] * 5
    assert {order["risk"] for order in answer.body["orders"][3:]} == {"trading_state"}


def test_a_ledger_that_cannot_be_read_sends_nothing(execution: Any, exchange: RunningExchange, decide: Any) -> None:
    boto3.client("dynamodb").delete_table(TableName="papertape-ledger")
    assert execution("POST", "/decisions", decide()).status == 503
    assert exchange.books()["orders"] == []


@pytest.mark.parametrize(
    ("now", "body", "word"),
    [
        ("2020-01-02T15:10:00Z", {}, "window"),
        ("2020-01-02T14:34:59Z", {}, "window"),
        ("2020-01-02T22:00:00Z", {}, "closed"),
        ("2020-01-03T14:35:00Z", {}, "slot"),
        ("2020-01-02T14:35:00Z", {"data_as_of": "2020-01-02"}, "data_as_of"),
        ("2020-01-02T14:35:00Z", {"data_as_of": "2019-12-26"}, "sessions old"),
    ],
)
def test_outside_its_slot_or_with_old_data_nothing_is_sent(
    execution: Any, exchange: RunningExchange, decide: Any, now: str, body: dict[str, Any], word: str
) -> None:
    exchange.reset(now=now, cash="100000")
    answer = execution("POST", "/decisions", decide(**body))
    assert answer.status == 200
    assert answer.body["verdict"] == "refused"
    assert word in json.dumps(answer.body)
    assert exchange.books()["orders"] == []


def test_a_symbol_without_a_weight_is_carried_and_weight_zero_is_sold_whole(execution: Any, exchange: RunningExchange, decide: Any) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.4, "IBM": 0.4}))
    before = _positions(exchange.books())
    exchange.advance(SLOT_2)
    execution("POST", "/decisions", decide(session="2020-01-03", as_of="2020-01-02", weights={"IBM": 0.0}))
    after = _positions(exchange.books())
    assert set(after) == {"SPY"}
    assert after["SPY"] == before["SPY"]


def test_the_risk_limits_refuse_an_order_and_say_which(
    execution: Any, exchange: RunningExchange, decide: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = settings.model_copy(update={"risk": settings.risk.model_copy(update={"restricted": ("IBM",)})})
    monkeypatch.setenv(SETTINGS_FILE, settings_file(tight))
    answer = execution("POST", "/decisions", decide())
    refused = {order["symbol"]: order["risk"] for order in answer.body["orders"] if order["status"] == "refused"}
    assert answer.body["verdict"] == "partial"
    assert refused == {"IBM": "restricted"}
    assert "IBM" not in _positions(exchange.books())


def test_a_blocked_account_is_not_traded(execution: Any, exchange: RunningExchange, decide: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    every = AlpacaBroker.account
    monkeypatch.setattr(AlpacaBroker, "account", lambda self: replace(every(self), blocked=True, status="ACCOUNT_CLOSED"))
    answer = execution("POST", "/decisions", decide())
    assert answer.body["verdict"] == "refused"
    assert answer.body["reason"] == "the broker has blocked the account, its status is ACCOUNT_CLOSED"
    assert exchange.books()["orders"] == []


def test_a_stub_quote_of_one_name_changes_no_order_of_another(
    execution: Any, exchange: RunningExchange, decide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.4, "IBM": 0.4}))
    exchange.advance(SLOT_2)
    every = AlpacaBroker.latest_quotes

    def stubbed(self: AlpacaBroker, symbols: Any) -> Any:
        quotes = every(self, symbols)
        return {**quotes, "IBM": replace(quotes["IBM"], bid=0.01, ask=400.0)}

    held, last = _positions(exchange.books()), _last_trade(exchange, "SPY")
    worth = float(exchange.books()["cash"]) + sum(float(held[name]) * _last_trade(exchange, name) for name in held)
    monkeypatch.setattr(AlpacaBroker, "latest_quotes", stubbed)
    answer = execution("POST", "/decisions", decide(session="2020-01-03", as_of="2020-01-02", weights={"SPY": 0.3, "IBM": 0.3}))
    assert "of the last trade" in answer.body["refused"]["IBM"]
    assert _positions(exchange.books())["IBM"] == held["IBM"]
    assert float(_positions(exchange.books())["SPY"]) * last == pytest.approx(0.995 * 0.3 * worth, rel=1e-9)


def test_a_manual_order_is_sent_once_under_its_key_and_can_be_cancelled_when_open(execution: Any, exchange: RunningExchange) -> None:
    body = {"key": "mine-1", "symbol": "SPY", "side": "buy", "quantity": "1.5"}
    first = execution("POST", "/orders", body)
    assert (first.status, first.body["verdict"]) == (200, "accepted")
    assert execution("POST", "/orders", body).body == first.body
    assert execution("POST", "/orders", {**body, "quantity": "2"}).status == 409
    assert len(exchange.books()["orders"]) == 1
    assert execution("POST", "/orders", {**body, "key": "mine-2", "quantity": "0.0000000001"}).status == 422
    order_id = first.body["orders"][0]["client_order_id"]
    assert execution("DELETE", f"/orders/{order_id}").body["status"] == "filled"
    assert execution("DELETE", "/orders/nobody-s").status == 404


def test_flatten_sells_every_exact_holding_once_and_lets_nothing_buy(
    execution: Any, control: Any, exchange: RunningExchange, decide: Any
) -> None:
    execution("POST", "/decisions", decide())
    first = execution("POST", "/flatten", {"reason": "a test"})
    assert (first.status, first.body["verdict"]) == (200, "accepted")
    assert _positions(exchange.books()) == {}
    orders = len(exchange.books()["orders"])
    second = execution("POST", "/flatten", {"reason": "a test"})
    assert second.body["reason"] == "nothing is held"
    assert len(exchange.books()["orders"]) == orders
    assert control("GET", "/trading-state").body["state"] == "reduce_only"
    buy = execution("POST", "/orders", {"key": "k", "symbol": "SPY", "side": "buy", "quantity": "1"})
    assert buy.body["orders"][0]["risk"] == "trading_state"


def test_a_flatten_sells_what_the_limits_of_an_order_and_of_a_day_would_keep(
    execution: Any, exchange: RunningExchange, decide: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution("POST", "/decisions", decide())
    small = settings.risk.model_copy(update={"max_order_notional": 5_000.0, "max_orders_per_day": 8, "max_turnover_per_day": 1.0})
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings.model_copy(update={"risk": small})))
    answer = execution("POST", "/flatten", {"reason": "get out"})
    assert {order["status"] for order in answer.body["orders"]} == {"filled"}
    assert _positions(exchange.books()) == {}


def test_a_flatten_leaves_out_a_name_without_a_last_trade_and_sells_the_others(
    execution: Any, exchange: RunningExchange, decide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.4, "IBM": 0.4}))
    every = AlpacaBroker.latest_trades
    monkeypatch.setattr(AlpacaBroker, "latest_trades", lambda self, symbols: every(self, [one for one in symbols if one != "IBM"]))
    answer = execution("POST", "/flatten", {"reason": "get out"})
    assert answer.body["refused"] == {"IBM": "IBM has no last trade"}
    assert set(_positions(exchange.books())) == {"IBM"}


def test_a_manual_order_that_was_not_sent_is_not_sent_in_a_later_session(
    execution: Any, reconcile: Any, exchange: RunningExchange, ledger_table: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as late:
        late.setenv("BATCH_BUDGET_SECONDS", "0")
        assert execution("POST", "/orders", {"key": "k", "symbol": "SPY", "side": "buy", "quantity": "1"}).status == 202
    exchange.advance(SLOT_2)
    assert reconcile()["finished"] == 1
    assert exchange.books()["orders"] == []
    stored = ledger_table.decision("manual:k")
    assert stored is not None
    assert (stored.state, stored.reason) == ("done", "it is of 2020-01-02 and is not sent on 2020-01-03")


def test_what_the_time_budget_leaves_is_finished_by_reconcile(
    execution: Any, reconcile: Any, exchange: RunningExchange, decide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as short:
        short.setenv("BATCH_BUDGET_SECONDS", "0")
        late = execution("POST", "/decisions", decide())
    assert (late.status, late.body["state"]) == (202, "working")
    assert {order["status"] for order in late.body["orders"]} == {"planned"}
    assert exchange.books()["orders"] == []
    assert reconcile()["finished"] == 1
    assert len(exchange.books()["orders"]) == 8
    assert execution("POST", "/decisions", decide()).status == 200


def test_orders_that_take_their_time_are_asked_for_together_and_a_few_times_only(
    execution: Any, proxy: Proxy, decide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account may ask 200 questions a minute, and a batch waits for each of its orders, sells and buys."""
    monkeypatch.setenv("ORDER_TIMEOUT_SECONDS", "0.8")
    monkeypatch.setenv("ORDER_POLL_SECONDS", "0.05")
    proxy.rewrite = _never_filled
    answer = execution("POST", "/decisions", decide())
    assert (answer.status, {order["status"] for order in answer.body["orders"]}) == (202, {"new"})
    posts = proxy.asked.index(("POST", "/v2/orders"))
    questions = [path for method, path in proxy.asked[posts:] if method == "GET"]
    assert 2 <= len(questions) <= 5
    assert all(path.startswith("/v2/orders?status=all") for path in questions[1:]), questions


def _never_filled(path: str, content: bytes) -> bytes:
    if not path.startswith("/v2/orders"):
        return content
    told = json.loads(content)
    rows = told if isinstance(told, list) else [told]
    shown = [{**row, "status": "accepted", "filled_qty": "0", "filled_avg_price": None} for row in rows]
    return json.dumps(shown if isinstance(told, list) else shown[0]).encode()


def test_while_another_executor_holds_the_lease_nothing_is_sent(
    execution: Any, exchange: RunningExchange, ledger_table: Ledger, decide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("LEASE_TIMEOUT_SECONDS", "0")
    fence = ledger_table.acquire_lease("another", now=time.time(), seconds=60)
    assert execution("POST", "/decisions", decide()).status == 202
    assert exchange.books()["orders"] == []
    ledger_table.release_lease(fence or 0)
    assert execution("POST", "/decisions", decide()).status == 200


def test_no_key_of_the_broker_is_logged_or_answered(
    execution: Any, exchange: RunningExchange, decide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", log)
    answer = execution("POST", "/decisions", decide())
    everything = log.getvalue() + json.dumps(answer.body)
    assert exchange.config.secret_key not in everything
    assert exchange.config.key_id not in everything
    assert '"message":"start"' in log.getvalue()


def test_a_missing_secret_is_one_line_with_its_remedy(execution: Any, decide: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_SECRET_ARN", "arn:aws:secretsmanager:us-east-1:123456789012:secret:papertape/alpaca")
    boto3.client("secretsmanager").delete_secret(SecretId="papertape/alpaca", ForceDeleteWithoutRecovery=True)
    answer = execution("POST", "/decisions", decide())
    assert answer.status == 503
    assert "store it: make secret" in answer.body["message"]
    assert "\n" not in answer.body["message"]


def _positions(books: dict[str, Any]) -> dict[str, Any]:
    held = books["positions"]
    return held if isinstance(held, dict) else {position["symbol"]: position for position in held}


def _last_trade(exchange: RunningExchange, symbol: str) -> float:
    import requests

    keys = {"APCA-API-KEY-ID": exchange.config.key_id, "APCA-API-SECRET-KEY": exchange.config.secret_key}
    answer = requests.get(f"{exchange.url}/v2/stocks/trades/latest", params={"symbols": symbol}, headers=keys, timeout=5)
    return float(answer.json()["trades"][symbol]["p"])
