"""What a definite no of the broker's means, and whether the same need may be tried once more (docs/decisions/0011).

Promise: a second attempt follows only from a refusal that answered the one POST of the first: the broker has never had that order. So of
one need at most one attempt is ever accepted. Nothing follows from a doubt, from an order that was accepted and rejected later, from a
person's order, or from a second refusal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lambdas.common.ledger.records import Decision, OrderRecord, PlannedOrder
from schema.slot import MANUAL
from trading_env.orders.order_state import OrderStatus
from trading_env.orders.orders import Intent, client_order_id


def open_refusals(decision: Decision, orders: Mapping[str, OrderRecord]) -> list[tuple[PlannedOrder, OrderRecord]]:
    """What the broker turned down last of the plan, with its orders, as long as the decision does not say so."""
    plan = decision.plan or ()
    past = superseded(plan)
    return [
        (planned, order)
        for planned in plan
        if (order := orders.get(planned.client_order_id)) is not None
        and order.status == OrderStatus.REJECTED
        and planned.client_order_id not in past
        and planned.symbol not in decision.refused
    ]


def may_try_again(decision: Decision, order: OrderRecord) -> bool:
    """Whether the first attempt is known never to have existed at the broker, for a reason that can be put right."""
    never_there = order.broker_id is None and order.unknown_since is None and order.refusal is not None
    remediable = order.refusal in {"wash_trade", "not_fractionable"} or (order.refusal == "buying_power" and order.side == "buy")
    return decision.strategy != MANUAL and order.attempt == 0 and never_there and remediable


def again(decision: Decision, planned: PlannedOrder, **changes: object) -> PlannedOrder:
    """The second attempt at `planned`, under its own id."""
    attempt = planned.attempt + 1
    intent = Intent(strategy=decision.strategy, slot=decision.slot, symbol=planned.symbol, attempt=attempt)
    return planned.model_copy(update={"attempt": attempt, "client_order_id": client_order_id(intent), **changes})


def superseded(plan: Sequence[PlannedOrder]) -> set[str]:
    """The client order ids of attempts that a later one has followed."""
    last: dict[str, int] = {}
    for planned in plan:
        last[planned.symbol] = max(planned.attempt, last.get(planned.symbol, 0))
    return {planned.client_order_id for planned in plan if planned.attempt < last[planned.symbol]}
