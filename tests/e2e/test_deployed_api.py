"""The execution API as deployed: signed requests through the gateway to both functions, to the ledger and to the exchange's books."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.conftest import EVE, FIRST, Answer, App, in_background

SLOT = f"{FIRST}/open+5"
IN_SLOT = f"{FIRST}T13:35:00Z"
DECISION = f"agent:{SLOT}"
SYMBOLS = ("SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM")


@pytest.fixture
def slot(market: Callable[[str], App]) -> App:
    """In the slot, with cash and nothing else."""
    return market(IN_SLOT)


def decision(**changes: Any) -> dict[str, Any]:
    return {
        "decision_id": DECISION,
        "slot": SLOT,
        "strategy": "agent",
        "model_version": "equal-weight",
        "data_as_of": EVE,
        "weights": dict.fromkeys(SYMBOLS, 0.125),
        "feature_hash": "0" * 64,
        "observation_hash": "1" * 64,
        **changes,
    }


def placed(app: App) -> int:
    """Orders in the exchange's own books."""
    return len(app.exchange.books()["orders"])


def read(app: App, *, safe: str = "") -> dict[str, Any]:
    """The decision as GET shows it, without its trace and its reasons."""
    shown = app.api.call("GET", f"/decisions/{quote(DECISION, safe=safe)}").body
    assert [link["link"] for link in shown.pop("trace")] == ["decision", "audit record", "code"]
    assert shown.pop("explained")["kind"] == "missing", "decide has not recorded it"
    assert shown.pop("watched") == []
    return shown


def halt(app: App) -> Answer:
    return app.api.call("PUT", "/trading-state", {"state": "halted", "reason": "a test"})


def test_an_unsigned_request_is_403_and_reaches_no_function(slot: App) -> None:
    before = slot.invoked()
    for method, path in (("POST", "/decisions"), ("POST", "/flatten"), ("PUT", "/trading-state"), ("GET", "/portfolio")):
        assert slot.api.call(method, path, decision(), secret=None).status == 403
    assert slot.invoked() == before
    assert placed(slot) == 0


def test_a_tampered_request_is_403_and_reaches_no_function(slot: App) -> None:
    before = slot.invoked()
    other = '{"state": "active", "reason": "not what was signed"}'
    assert slot.api.call("PUT", "/trading-state", {"state": "halted", "reason": "signed"}, sent=other).status == 403
    assert slot.api.call("POST", "/decisions", decision(), secret="not the owner's").status == 403
    assert slot.invoked() == before
    assert placed(slot) == 0


def test_the_same_decision_twice_gets_the_same_answer_and_places_no_new_order(slot: App) -> None:
    first = slot.api.call("POST", "/decisions", decision())
    books = slot.exchange.books()
    assert (first.status, first.body["state"], first.body["verdict"]) == (200, "done", "accepted")
    assert [order["status"] for order in first.body["orders"]] == ["filled"] * 8
    assert books["counts"] == {"orders": 8, "fills": 8, "refused": 0, "duplicates": 0}
    assert slot.api.call("POST", "/decisions", decision()) == first
    assert slot.exchange.books() == books


def test_the_same_id_with_another_body_is_409(slot: App) -> None:
    first = slot.api.call("POST", "/decisions", decision())
    books = slot.exchange.books()
    again = slot.api.call("POST", "/decisions", decision(weights={"SPY": 1.0}))
    assert again.status == 409
    assert again.body["decision_id"] == DECISION
    assert slot.exchange.books() == books
    assert read(slot) == first.body


def test_a_halted_app_answers_423_and_sends_nothing(slot: App) -> None:
    assert halt(slot).status == 200
    answer = slot.api.call("POST", "/decisions", decision())
    assert (answer.status, answer.body["verdict"], answer.body["reason"]) == (423, "halted", "a test")
    assert slot.api.call("POST", "/orders", {"key": "k", "symbol": "SPY", "side": "buy", "quantity": "1"}).status == 423
    assert placed(slot) == 0
    assert slot.api.call("PUT", "/trading-state", {"state": "active", "reason": "over"}).status == 200
    assert slot.api.call("POST", "/decisions", decision()) == answer, "an id that was refused stays refused"
    assert placed(slot) == 0


def test_a_halt_lands_while_a_batch_runs(slot: App) -> None:
    """The exchange takes its time over the third order; the halt is set and answered meanwhile, and no fourth order goes out."""
    third, halted = threading.Event(), threading.Event()

    def hold(count: int) -> None:
        if count == 3:
            third.set()
            halted.wait(15)

    with slot.slow_exchange() as proxy:
        proxy.on_post = hold
        with in_background(lambda: slot.api.call("POST", "/decisions", decision())) as answers:
            assert third.wait(30)
            answer = halt(slot)
            assert not answers, "the batch was still running when the halt was answered"
            halted.set()
    assert answer.status == 200
    (batch,) = answers
    statuses = [order["status"] for order in batch.body["orders"]]
    refused = [order for order in batch.body["orders"] if order["status"] == "refused"]
    assert (batch.status, batch.body["state"], batch.body["verdict"]) == (200, "done", "halted")
    assert statuses == ["filled"] * 3 + ["refused"] * 5
    assert {order["risk"] for order in refused} == {"trading_state"}
    assert proxy.posts == placed(slot) == 3
    stored = slot.deployment.ledger.orders(FIRST[:7])
    assert sorted(order.client_order_id for order in stored if order.status == "refused") == sorted(o["client_order_id"] for o in refused)
    assert slot.api.call("POST", "/decisions", decision()) == batch
    assert placed(slot) == 3


def weights(**changes: float | str) -> dict[str, Any]:
    return decision(weights=dict.fromkeys(SYMBOLS, 0.1) | changes)


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        (weights(AAPL=float("nan")), "weights.AAPL", "nan"),
        (weights(AAPL=float("inf")), "weights.AAPL", "inf"),
        (weights(TSLA=0.1), "weights.TSLA", "TSLA"),
        (weights(SPY=0.5), "weights", "1.2"),
        (weights(IBM=-0.1), "weights.IBM", "-0.1"),
        (weights(IBM="much"), "weights.IBM", "much"),
        (decision(slot=f"{FIRST}/open+6"), "slot", "open+6"),
        (decision(observation_hash="0"), "observation_hash", "0"),
        (decision(decision_id="agent:another"), "decision_id", "another"),
        ({key: value for key, value in decision().items() if key != "model_version"}, "model_version", "absent"),
    ],
    ids=["NaN", "infinity", "unknown symbol", "sum of 1.2", "negative", "text", "other slot", "short hash", "other id", "absent field"],
)
def test_a_wrong_decision_is_422_naming_the_field(app: App, body: dict[str, Any], field: str, value: str) -> None:
    answer = app.api.call("POST", "/decisions", body)
    assert answer.status == 422
    (error,) = answer.body["errors"]
    assert error["field"] == field
    assert value in error["value"] + error["allowed"]
    assert app.deployment.ledger.decision(str(body["decision_id"])) is None or body["decision_id"] == DECISION


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/orders", {"key": "k", "symbol": "TSLA9", "side": "buy", "quantity": "1"}, "symbol"),
        ("POST", "/orders", {"key": "k", "symbol": "SPY", "side": "hold", "quantity": "1"}, "side"),
        ("POST", "/orders", {"key": "k", "symbol": "SPY", "side": "buy", "quantity": "-1"}, "quantity"),
        ("POST", "/flatten", {}, "reason"),
        ("PUT", "/trading-state", {"state": "asleep", "reason": "x"}, "state"),
        ("GET", "/orders?month=2020-13", None, "month"),
        ("GET", "/orders?cursor=nonsense&month=2020-08", None, "cursor"),
    ],
)
def test_another_wrong_request_is_422_naming_the_field(slot: App, method: str, path: str, body: dict[str, Any] | None, field: str) -> None:
    answer = slot.api.call(method, path, body)
    assert answer.status == 422
    assert [error["field"] for error in answer.body["errors"]] == [field]
    assert placed(slot) == 0


def test_decision_and_portfolio_read_back_what_the_exchange_says(slot: App) -> None:
    made = slot.api.call("POST", "/decisions", decision())
    assert read(slot) == made.body
    assert read(slot, safe="/") == made.body, "the slash may also go as it is"
    assert slot.api.call("GET", f"/decisions/{quote('agent:2019-01-02/open+5', safe='')}").status == 404
    assert slot.api.call("GET", "/portfolio").body["snapshot"] is None
    slot.succeed("reconcile", f"{FIRST}T20:05:00Z")
    portfolio, books = slot.api.call("GET", "/portfolio").body, slot.exchange.books()
    assert portfolio["unsettled"] == []
    assert portfolio["snapshot"]["session"] == FIRST
    for name in ("cash", "equity"):
        assert Decimal(portfolio["snapshot"][name]) == Decimal(books[name])
    held = {symbol: Decimal(position["quantity"]) for symbol, position in portfolio["snapshot"]["positions"].items()}
    assert held == {symbol: Decimal(quantity) for symbol, quantity in books["positions"].items()}


def test_orders_come_in_pages_each_once(slot: App) -> None:
    made = slot.api.call("POST", "/decisions", decision())
    pages, cursor = [], ""
    while True:
        page = slot.api.call("GET", f"/orders?{cursor}limit=3&month={FIRST[:7]}")
        assert page.status == 200
        pages.append([order["client_order_id"] for order in page.body["orders"]])
        if page.body["cursor"] is None:
            break
        cursor = f"cursor={quote(page.body['cursor'], safe='')}&"
    assert [len(page) for page in pages][:3] == [3, 3, 2]
    listed = [order for page in pages for order in page]
    assert sorted(listed) == sorted(order["client_order_id"] for order in made.body["orders"])
    assert slot.api.call("GET", "/orders?month=2020-07").body == {"orders": [], "cursor": None}


def test_a_manual_order_is_placed_once_and_what_is_filled_cannot_be_cancelled(slot: App) -> None:
    order = {"key": "by-hand", "symbol": "AAPL", "side": "buy", "quantity": "3.5"}
    first = slot.api.call("POST", "/orders", order)
    assert (first.status, first.body["verdict"]) == (200, "accepted")
    (made,) = first.body["orders"]
    assert (made["status"], made["filled_quantity"]) == ("filled", "3.5")
    assert slot.api.call("POST", "/orders", order) == first
    assert slot.api.call("POST", "/orders", {**order, "quantity": "4"}).status == 409
    assert slot.exchange.books()["positions"] == {"AAPL": "3.5"}
    cancelled = slot.api.call("DELETE", f"/orders/{made['client_order_id']}")
    assert (cancelled.status, cancelled.body["status"]) == (200, "filled")
    assert slot.api.call("DELETE", "/orders/pt1-unknown").status == 404
    too_much = slot.api.call("POST", "/orders", {"key": "more", "symbol": "AAPL", "side": "buy", "quantity": "1000"})
    assert (too_much.status, too_much.body["verdict"]) == (200, "refused")
    assert placed(slot) == 1


def test_flatten_sells_everything_once_and_leaves_only_sells_allowed(slot: App) -> None:
    slot.api.call("POST", "/decisions", decision())
    first = slot.api.call("POST", "/flatten", {"reason": "a test"})
    assert (first.status, first.body["state"]) == (200, "done")
    assert {(order["side"], order["status"]) for order in first.body["orders"]} == {("sell", "filled")}
    books = slot.exchange.books()
    assert books["positions"] == {}
    assert books["counts"]["orders"] == 16
    again = slot.api.call("POST", "/flatten", {"reason": "a test, again"})
    assert (again.status, again.body["orders"]) == (200, [])
    assert slot.exchange.books() == books
    assert slot.api.call("GET", "/trading-state").body["state"] == "reduce_only"
    bought = slot.api.call("POST", "/orders", {"key": "k", "symbol": "SPY", "side": "buy", "quantity": "1"})
    assert [order["risk"] for order in bought.body["orders"]] == ["trading_state"]
    assert placed(slot) == 16
