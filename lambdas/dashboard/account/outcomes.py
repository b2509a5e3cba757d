"""What the execution API answered, as a sentence for a person: its status stays, its words become plain. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from lambdas.common.api.client import Answer
from lambdas.common.ledger.item import plain
from lambdas.dashboard.writes import Written
from trading_env.orders.order_state import ENDED, OrderStatus

DONE = {"buy": "Bought", "sell": "Sold"}
STATES = {"active": "Trading goes on.", "reduce_only": "Only sells pass from now on.", "halted": "Trading is halted: nothing is sent."}


def ordered(answer: Answer) -> Written:
    """Of POST /orders."""
    return _written(answer, " ".join(_order(order) for order in answer.body.get("orders", [])) or _nothing_sent(answer))


def flattened(answer: Answer) -> Written:
    """Of POST /flatten."""
    body = answer.body
    orders = body.get("orders", [])
    if not orders:
        text = f"Nothing was sold: {body['reason']}." if body.get("reason") else "The sells are planned when the market is open."
        return _written(answer, f"Nothing buys any more. {text}")
    unsold = [order for order in orders if order.get("status") != OrderStatus.FILLED]
    more = f"; {len(unsold)} not filled yet" if unsold else ""
    return _written(answer, f"Nothing buys any more. {len(orders)} sell order{'' if len(orders) == 1 else 's'}{more}.")


def cancelled(answer: Answer) -> Written:
    """Of DELETE /orders/{id}."""
    body = answer.body
    if body.get("status") in ENDED:
        return _written(answer, _order(body))
    return _written(answer, f"The broker was asked to cancel {_what(body)}; it says {_word(body.get('status'))} so far.")


def state_set(answer: Answer) -> Written:
    """Of PUT /trading-state."""
    return _written(answer, STATES.get(str(answer.body.get("state")), ""))


def _written(answer: Answer, done: str) -> Written:
    """`done` where the API did it; where it did not, why, and the fields that were wrong."""
    message = done if answer.status < 300 else _refused(answer)
    errors = {"errors": answer.body["errors"]} if answer.status == 422 and "errors" in answer.body else {}
    return Written(answer.status, {"message": message, **errors})


def _refused(answer: Answer) -> str:
    body = answer.body
    if answer.status == 423:
        return f"Trading is halted ({body.get('reason') or 'no reason given'}): nothing was sent. Resume trading before you order."
    if answer.status == 409 and "decision_id" in body:
        return "This order's key was used for another order: nothing was sent. Order again."
    if answer.status == 409:
        return f"The trading state has changed since you looked, and stays as it is: {body.get('message', '')}."
    if answer.status == 422:
        return "Refused: " + "; ".join(f"{one['field']}: {one['allowed']}" for one in body.get("errors", []))
    if answer.status == 404:
        return f"There is {body.get('message', 'nothing like that')}."
    return f"The execution API answered {answer.status}: {body.get('message', 'no reason given')}."


def _nothing_sent(answer: Answer) -> str:
    return f"Nothing was sent yet: {answer.body.get('reason') or 'another batch is at work; reconcile goes on with this order'}."


def _order(order: Mapping[str, Any]) -> str:
    status, filled = order.get("status"), Decimal(str(order.get("filled_quantity", 0)))
    why = f": {order['reason']}" if order.get("reason") else ""
    if status == OrderStatus.FILLED:
        return f"{DONE[order['side']]} {plain(filled)} {order['symbol']} at ${plain(Decimal(str(order['filled_average_price'])))}."
    if status in ENDED:
        part = f", after {plain(filled)} had filled" if filled else ""
        return f"The order to {_what(order)} is {_word(status)}{part}{why}."
    return f"The order to {_what(order)} is {_word(status)} and goes on{why}."


def _what(order: Mapping[str, Any]) -> str:
    return f"{order.get('side')} {order.get('quantity')} {order.get('symbol')}"


def _word(status: object) -> str:
    return str(status).replace("_", " ")
