"""What the execution API answers: one shape for decisions and orders, wherever they are shown. Money and quantities are strings.

An order that is shown says what it cost (trading_env/orders/execution_cost.py): `delay_bp` from the price it was sized at to the one it
arrived at, `slippage_bp` from there to its fills, and in dollars `missed`, what the unfilled part has lost or saved by the close.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from aws_lambda_powertools.event_handler import Response, content_types
from pydantic import ValidationError

from lambdas.common.ledger.item import plain
from lambdas.common.ledger.records import Decision, OrderRecord, PlannedOrder
from lambdas.common.orders.execution_cost import execution_of
from trading_env.orders.execution_cost import Execution

CENT = Decimal("0.01")


def shown_order(order: OrderRecord, *, close: Decimal | None = None) -> dict[str, Any]:
    """`close`: its symbol's of the session, once it is known."""
    body = order.model_dump(mode="json", exclude_none=True, exclude={"version", "missing_since"})
    cost = _shown_cost(execution_of(order, close=close))
    return {**body, "quantity": plain(order.quantity), "filled_quantity": plain(order.filled_quantity), **cost}


def shown_decision(decision: Decision, orders: Mapping[str, OrderRecord], *, closes: Mapping[str, Decimal] | None = None) -> dict[str, Any]:
    """Return the decision with its orders, sells first; a planned order that was not sent yet has status `planned`.

    `closes`: closing prices of its session, once they are known.
    """
    plan: Sequence[PlannedOrder] = decision.plan or ()
    listed = [
        shown_order(orders[planned.client_order_id], close=(closes or {}).get(planned.symbol))
        if planned.client_order_id in orders
        else {**_shown_plan(planned), "status": "planned"}
        for planned in plan
    ]
    kept = decision.model_dump(mode="json", exclude_none=True, exclude={"plan", "body_sha256", "buys_final"})
    return {**kept, "orders": listed}


def _shown_cost(execution: Execution) -> dict[str, Any]:
    measured = {"delay_bp": execution.delay_bp, "slippage_bp": execution.slippage_bp}
    missed = execution.missed if execution.filled < execution.quantity else None
    return {
        **{name: round(value, 4) for name, value in measured.items() if value is not None},
        **({} if missed is None else {"missed": plain(missed.quantize(CENT))}),
    }


def _shown_plan(planned: PlannedOrder) -> dict[str, Any]:
    return {**planned.model_dump(mode="json"), "quantity": plain(planned.quantity)}


def answer(status: int, body: Mapping[str, Any]) -> Response[str]:
    return Response(status_code=status, content_type=content_types.APPLICATION_JSON, body=json.dumps(body, allow_nan=False))


def refusals(error: ValidationError) -> dict[str, Any]:
    """Return the body of a 422: one entry per wrong field, with its value and what is allowed."""
    return {"errors": [_refusal(problem) for problem in error.errors(include_url=False, include_context=False)]}


def _refusal(problem: Any) -> dict[str, str]:
    field = ".".join(str(part) for part in problem["loc"] if part != "[key]") or "body"
    missing = problem["type"] == "missing"
    return {
        "field": field,
        "value": "absent" if missing else repr(problem["input"])[:200],
        "allowed": problem["msg"].removeprefix("Value error, "),
    }
