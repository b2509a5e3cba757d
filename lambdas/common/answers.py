"""What the execution API answers: one shape for decisions and orders, wherever they are shown. Money and quantities are strings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aws_lambda_powertools.event_handler import Response, content_types
from pydantic import ValidationError

from lambdas.common.records import Decision, Leg, OrderRecord, plain


def shown_order(order: OrderRecord) -> dict[str, Any]:
    body = order.model_dump(mode="json", exclude_none=True, exclude={"version", "missing_since"})
    return {**body, "quantity": plain(order.quantity), "filled_quantity": plain(order.filled_quantity)}


def shown_decision(decision: Decision, orders: Mapping[str, OrderRecord]) -> dict[str, Any]:
    """Return the decision with its orders, sells first; a planned order that was not sent yet has status `planned`."""
    legs: Sequence[Leg] = decision.plan or ()
    listed = [
        shown_order(orders[leg.client_order_id]) if leg.client_order_id in orders else {**_shown_leg(leg), "status": "planned"}
        for leg in legs
    ]
    kept = decision.model_dump(mode="json", exclude_none=True, exclude={"plan", "body_sha256", "buys_final"})
    return {**kept, "orders": listed}


def _shown_leg(leg: Leg) -> dict[str, Any]:
    return {**leg.model_dump(mode="json"), "quantity": plain(leg.quantity)}


def answer(status: int, body: Mapping[str, Any]) -> Response[str]:
    return Response(status_code=status, content_type=content_types.APPLICATION_JSON, body=json.dumps(body, allow_nan=False))


def refusals(error: ValidationError) -> dict[str, Any]:
    """Return the body of a 422: one entry a wrong field with its value and what is allowed."""
    return {"errors": [_refusal(problem) for problem in error.errors(include_url=False, include_context=False)]}


def _refusal(problem: Any) -> dict[str, str]:
    field = ".".join(str(part) for part in problem["loc"] if part != "[key]") or "body"
    missing = problem["type"] == "missing"
    return {
        "field": field,
        "value": "absent" if missing else repr(problem["input"])[:200],
        "allowed": problem["msg"].removeprefix("Value error, "),
    }
