"""A second attempt needs proof that the first never was."""

from __future__ import annotations

from decimal import Decimal

import pytest

from lambdas.common.ledger.records import Decision, OrderRecord, PlannedOrder
from lambdas.common.orders.resubmission import again, may_try_again, open_refusals, superseded
from trading_env.orders.orders import Intent, client_order_id

SLOT = "2020-01-02/open+5"


def planned(symbol: str = "SPY", attempt: int = 0, side: str = "buy") -> PlannedOrder:
    identity = client_order_id(Intent("agent", SLOT, symbol, attempt))
    return PlannedOrder.model_validate(
        {"symbol": symbol, "side": side, "quantity": "1.5", "price": 300.0, "client_order_id": identity, "attempt": attempt}
    )


def turned_down(of: PlannedOrder, refusal: str | None = "wash_trade", **more: object) -> OrderRecord:
    named = of.model_dump(exclude={"price_reference"})
    told = {"decision_id": "d", "slot": SLOT, "created_at": "2020-01-02T14:35:00Z", "status": "rejected", "refusal": refusal, **more}
    return OrderRecord.model_validate({**named, **told})


def decision(*plan: PlannedOrder, strategy: str = "agent", **more: object) -> Decision:
    named = {
        "decision_id": f"{strategy}:{SLOT}",
        "strategy": strategy,
        "slot": SLOT,
        "body_sha256": "",
        "received_at": "2020-01-02T14:35:00Z",
    }
    return Decision.model_validate({**named, "plan": plan, **more})


@pytest.mark.parametrize(
    ("order", "allowed"),
    [
        (turned_down(planned()), True),
        (turned_down(planned(side="sell")), True),
        (turned_down(planned(), "not_fractionable"), True),
        (turned_down(planned(), "buying_power"), True),
        (turned_down(planned(side="sell"), "buying_power"), False),
        (turned_down(planned(), "inactive"), False),
        (turned_down(planned(), "other"), False),
        (turned_down(planned(), None), False),
        (turned_down(planned(attempt=1)), False),
        (turned_down(planned(), broker_id="o-1"), False),
        (turned_down(planned(), unknown_since="2020-01-02T14:35:00Z"), False),
    ],
)
def test_only_what_the_broker_has_certainly_never_had_is_tried_again(order: OrderRecord, allowed: bool) -> None:
    assert may_try_again(decision(), order) is allowed
    assert may_try_again(decision(strategy="flatten"), order) is allowed
    assert not may_try_again(decision(strategy="manual"), order)


def test_a_second_attempt_is_another_order_for_the_same_need() -> None:
    second = again(decision(), planned(), quantity=Decimal(1))
    assert second == planned(attempt=1).model_copy(update={"quantity": Decimal(1)})
    assert second.client_order_id != planned().client_order_id
    assert superseded([planned(), second, planned("IBM")]) == {planned().client_order_id}


def test_a_refusal_is_open_until_it_is_tried_again_or_named() -> None:
    first, other, second = planned(), planned("IBM"), planned(attempt=1)
    orders = {one.client_order_id: turned_down(one) for one in (first, second)} | {
        other.client_order_id: turned_down(other, status="filled")
    }
    assert [one for one, _ in open_refusals(decision(first, other), orders)] == [first]
    assert [one for one, _ in open_refusals(decision(first, other, second), orders)] == [second]
    assert open_refusals(decision(first, other, second, refused={"SPY": "no"}), orders) == []
    assert open_refusals(decision(first, second), {first.client_order_id: turned_down(first)}) == []
