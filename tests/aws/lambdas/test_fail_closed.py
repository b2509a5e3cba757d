"""What cannot be read or written stops the batch where it is: no order goes out in doubt, and none is lost or doubled afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import boto3
import botocore.client
import pytest
from botocore.exceptions import ClientError

from lambdas.common.ledger.ledger import Ledger, LedgerCorrupt
from lambdas.common.ledger.records import OrderRecord
from lambdas.common.orders import batch
from local.exchange.server import RunningExchange
from tests.aws.proxy import Proxy

LATER, LATER_STILL = "2020-01-02T14:40:00Z", "2020-01-02T14:45:00Z"
THROTTLED = ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "operation")


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str, Any], Any]) -> Iterator[None]:
    """The AWS client as it is, but where `answer(operation, arguments)` raises, or returns what the service would."""
    real = botocore.client.BaseClient._make_api_call

    def call(self: Any, operation: str, arguments: Any) -> Any:
        told = answer(operation, arguments)
        return real(self, operation, arguments) if told is None else told

    with monkeypatch.context() as within:
        within.setattr(botocore.client.BaseClient, "_make_api_call", call)
        yield


def about_the_switches(arguments: Any) -> bool:
    return any(key["pk"] == "state" for asked in arguments["RequestItems"].values() for key in asked["Keys"])


def puts_an_order(arguments: Any) -> bool:
    return any("ConditionCheck" in action for action in arguments["TransactItems"]) and any(
        action.get("Put", {}).get("Item", {}).get("kind") == "order" for action in arguments["TransactItems"]
    )


def records_an_answer(arguments: Any) -> bool:
    return any(action.get("Put", {}).get("Item", {}).get("kind") == "fill" for action in arguments["TransactItems"])


def unreadable_state(operation: str, arguments: Any) -> Any:
    if operation == "BatchGetItem" and about_the_switches(arguments):
        raise THROTTLED
    return None


def unprocessed_state(operation: str, arguments: Any) -> Any:
    if operation == "BatchGetItem" and about_the_switches(arguments):
        return {"Responses": {}, "UnprocessedKeys": arguments["RequestItems"]}
    return None


def no_new_order(operation: str, arguments: Any) -> Any:
    if operation == "TransactWriteItems" and puts_an_order(arguments):
        raise THROTTLED
    return None


def no_record_of_the_answer(operation: str, arguments: Any) -> Any:
    if operation == "TransactWriteItems" and records_an_answer(arguments):
        raise THROTTLED
    return None


@pytest.mark.parametrize(
    "fault",
    [unreadable_state, unprocessed_state, no_new_order, no_record_of_the_answer],
    ids=["state unreadable", "state not read", "order not put", "answer not recorded"],
)
def test_a_ledger_that_fails_between_two_orders_stops_the_batch_which_is_finished_once_later(
    execution: Any,
    reconcile: Any,
    proxy: Proxy,
    exchange: RunningExchange,
    ledger_table: Ledger,
    decide: Any,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[str, Any], Any],
) -> None:
    with failing(monkeypatch, lambda operation, arguments: fault(operation, arguments) if proxy.posts >= 3 else None):
        answer = execution("POST", "/decisions", decide())
    assert answer.status == 503
    assert "slow down" in answer.body["message"] or "were not read" in answer.body["message"]
    assert len(exchange.books()["orders"]) == 3
    for moment in (LATER, LATER_STILL):
        exchange.advance(moment)
        reconcile()
    ids = [order["client_order_id"] for order in exchange.books()["orders"]]
    assert (len(ids), len(set(ids))) == (8, 8)
    assert {order.status for order in ledger_table.orders("2020-01")} == {"filled"}
    assert positions(ledger_table) == {symbol: Decimal(held) for symbol, held in exchange.books()["positions"].items()}


def test_a_lease_that_is_lost_in_the_middle_of_a_batch_ends_it(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    taken: list[int | None] = []

    def taken_over(count: int) -> None:
        if count == 3:
            taken.append(ledger_table.acquire_lease("another", now=time.time() + 1_000, seconds=60))

    proxy.on_post = taken_over
    answer = execution("POST", "/decisions", decide())
    assert (answer.status, answer.body["state"]) == (202, "working")
    assert len(exchange.books()["orders"]) == 3
    assert reconcile()["finished"] == 0  # the other one holds it
    ledger_table.release_lease(taken[0] or 0)
    assert reconcile()["finished"] == 1
    assert len(exchange.books()["orders"]) == 8


def test_a_lease_that_is_lost_before_an_order_is_sent_again_keeps_it_from_being_sent(
    execution: Any, reconcile: Any, proxy: Proxy, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    proxy.before = 1
    execution("POST", "/decisions", decide(weights={"SPY": 0.5}))
    exchange.advance(LATER)

    def taken_over(method: str, path: str, _body: bytes) -> None:
        if path.startswith("/v2/positions"):
            ledger_table.acquire_lease("another", now=time.time() + 1_000, seconds=60)

    proxy.instead = taken_over
    posts = [path for _, path in proxy.asked].count("/v2/orders")
    assert reconcile()["working"] == 1
    assert [path for _, path in proxy.asked].count("/v2/orders") == posts
    assert exchange.books()["orders"] == []


def test_the_window_is_kept_by_the_broker_s_clock_in_the_middle_of_a_batch(
    execution: Any, proxy: Proxy, exchange: RunningExchange, decide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "CLOCK_SECONDS", -1.0)  # every moment is long

    def slow(count: int) -> None:
        if count == 3:
            exchange.advance("2020-01-02T15:05:00Z")

    proxy.on_post = slow
    answer = execution("POST", "/decisions", decide())
    assert (answer.status, answer.body["verdict"]) == (200, "partial")
    assert len(exchange.books()["orders"]) == 3
    assert len(answer.body["refused"]) == 5
    assert all("the window is from" in reason for reason in answer.body["refused"].values())


def test_two_transactions_that_meet_are_not_an_error(
    execution: Any, exchange: RunningExchange, decide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[str] = []

    def conflict(operation: str, arguments: Any) -> Any:
        if operation == "TransactWriteItems" and len(met) < 3:
            met.append(operation)
            reasons = [{"Code": "TransactionConflict"}, *({"Code": "None"} for _ in arguments["TransactItems"][1:])]
            raise ClientError({"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons}, operation)  # type: ignore[typeddict-unknown-key]
        return None

    with failing(monkeypatch, conflict):
        assert execution("POST", "/decisions", decide()).status == 200
    assert len(met) == 3
    assert len(exchange.books()["orders"]) == 8


def test_an_item_that_cannot_be_read_is_the_ledger_s_fault_and_not_the_caller_s(
    execution: Any, control: Any, exchange: RunningExchange, ledger_table: Ledger, decide: Any
) -> None:
    made = execution("POST", "/decisions", decide(weights={"SPY": 0.5})).body["orders"][0]
    table = boto3.resource("dynamodb").Table("papertape-ledger")
    key = {"pk": f"order#{made['client_order_id']}", "sk": "order"}
    table.update_item(Key=key, UpdateExpression="SET quantity = :text", ExpressionAttributeValues={":text": "secret many"})
    for call in (
        lambda: execution("POST", "/decisions", decide(weights={"SPY": 0.5})),
        lambda: control("GET", "/orders", query={"month": "2020-01"}),
        lambda: ledger_table.orders_of_day("2020-01-02"),
    ):
        with pytest.raises(LedgerCorrupt, match=r"order#pt1-.* / order cannot be read: quantity: ") as raised:
            call()
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize("change", [{"schema": 2}, {"kind": "fill"}])
def test_an_item_of_another_kind_or_schema_is_not_guessed_at(change: dict[str, Any]) -> None:
    named = {"client_order_id": "pt1-x", "decision_id": "d", "slot": "s", "symbol": "SPY", "side": "buy"}
    order = OrderRecord.model_validate({**named, "quantity": 1, "price": 1.0, "created_at": "2020-01-02T14:35:00Z"})
    assert OrderRecord.of(order.item()) == order
    with pytest.raises(LedgerCorrupt, match="must be order of schema 1"):
        OrderRecord.of({**order.item(), **change})


def positions(ledger_table: Ledger) -> dict[str, Decimal]:
    held: dict[str, Decimal] = {}
    for fill in ledger_table.fills("2020-01"):
        held[fill.symbol] = held.get(fill.symbol, Decimal(0)) + (fill.quantity if fill.side == "buy" else -fill.quantity)
    return {symbol: quantity for symbol, quantity in held.items() if quantity}
