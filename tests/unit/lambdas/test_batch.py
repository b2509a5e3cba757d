"""What a batch counts for risk: an order that has ended is counted once, however often its side of the plan is looked at again."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, cast

import pytest

from lambdas.common.ledger.records import OrderRecord
from lambdas.common.orders.batch import Batch
from trading_env.orders.order_state import OrderStatus
from trading_env.orders.risk import OpenOrder, Situation


def order(filled: str) -> OrderRecord:
    return OrderRecord(
        client_order_id="one",
        decision_id="agent:2020-01-02/open+5",
        slot="2020-01-02/open+5",
        symbol="SPY",
        side="sell",
        quantity=Decimal("3"),
        price=300.0,
        status=OrderStatus.FILLED,
        created_at="2020-01-02T14:35:00Z",
        filled_quantity=Decimal(filled),
    )


@pytest.mark.parametrize(("counted", "held"), [({}, 7.0), ({"one": Decimal("1")}, 8.0)], ids=["not yet", "a part before"])
def test_fills_are_counted_once(counted: dict[str, Decimal], held: float) -> None:
    situation = Situation(
        equity=3000.0,
        positions={"SPY": 10.0},
        prices={"SPY": 300.0},
        peak_equity=3000.0,
        last_close_equity=3000.0,
        state="active",
        bar_age_sessions=0,
        open_orders=(OpenOrder("SPY", "sell", 3.0, "one"),),
    )
    unused = cast("Any", None)
    batch = Batch(
        run=unused, window=unused, decision=unused, orders={}, missed_before=frozenset(), situation=situation, counted=counted, arrivals={}
    )
    for _ in range(2):
        batch.count_ended(order("3"))
        assert batch.situation.positions == {"SPY": held}
        assert batch.situation.open_orders == ()
