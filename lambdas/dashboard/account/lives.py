"""An order as a page shows it: a line of a list, and its life from the ledger to its last fill with the trace behind it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from lambdas.common.ledger.item import plain
from lambdas.common.ledger.ledger import Page
from lambdas.common.ledger.records import OrderRecord
from lambdas.common.orders.execution_cost import execution_of
from schema.path_segment import segment_of
from schema.slot import PERSONAL
from trading_env.orders.order_state import ENDED, OrderStatus


class OrderView(BaseModel):
    """`who`: the agent, a person, or an external order's kind; `segment`: the id as a part of a path; `slippage_bp`: from the price that
    it arrived at to its fills, positive where it cost."""

    client_order_id: str
    segment: str
    time: str
    who: str
    symbol: str
    side: str
    quantity: Decimal
    filled: Decimal
    price: Decimal | None
    status: str
    ended: bool
    reason: str | None
    slippage_bp: float | None


class OrdersView(BaseModel):
    """`cursor` of the next page, null at the end."""

    month: str
    orders: tuple[OrderView, ...]
    cursor: str | None


class LifeEvent(BaseModel):
    time: str
    event: str
    detail: str | None = None


class TraceLink(BaseModel):
    """A step back from the order; `status` says what a second look at it found."""

    link: str
    says: str
    status: str
    hash: str | None = None
    where: str | None = None
    detail: str | None = None


class OrderLife(BaseModel):
    """One order; `replaces` and `replaced_by` are client order ids."""

    client_order_id: str
    segment: str
    decision_id: str
    decision_segment: str
    symbol: str
    side: str
    quantity: Decimal
    filled: Decimal
    price: Decimal | None
    sized_at: float
    arrival_price: float | None
    status: str
    ended: bool
    reason: str | None
    risk: str | None
    delay_bp: float | None
    slippage_bp: float | None
    missed: Decimal | None
    replaces: str | None
    replaced_by: str | None
    events: tuple[LifeEvent, ...]
    trace: tuple[TraceLink, ...]


def order_view(order: OrderRecord) -> OrderView:
    strategy = order.decision_id.partition(":")[0]
    return OrderView(
        client_order_id=order.client_order_id,
        segment=segment_of(order.client_order_id),
        time=order.created_at,
        who="you" if strategy in PERSONAL else strategy,
        symbol=order.symbol,
        side=order.side,
        quantity=order.quantity,
        filled=order.filled_quantity,
        price=order.filled_average_price,
        status=order.status.value,
        ended=order.terminal,
        reason=order.reason,
        slippage_bp=execution_of(order).slippage_bp,
    )


def orders_view(month: str, found: Page) -> OrdersView:
    return OrdersView(month=month, orders=tuple(order_view(one) for one in found.orders), cursor=found.cursor)


def life_of(body: Mapping[str, Any]) -> OrderLife:
    """From control's answer to GET /orders/{id}."""
    fields = ("client_order_id", "decision_id", "symbol", "side", "quantity", "arrival_price", "status", "reason", "risk")
    costs = ("delay_bp", "slippage_bp", "missed", "replaces", "replaced_by")
    return OrderLife(
        **{name: body.get(name) for name in (*fields, *costs)},
        segment=segment_of(body["client_order_id"]),
        decision_segment=segment_of(body["decision_id"]),
        filled=Decimal(str(body.get("filled_quantity", 0))),
        price=None if body.get("filled_average_price") is None else Decimal(str(body["filled_average_price"])),
        sized_at=float(body["price"]),
        ended=body["status"] in ENDED,
        events=tuple(_events(body)),
        trace=tuple(TraceLink(**link) for link in body.get("trace", [])),
    )


def _events(body: Mapping[str, Any]) -> list[LifeEvent]:
    """What is known of an order's life, in order of time."""
    sized = f"{body['side']} {body['quantity']} {body['symbol']}, sized at ${body['price']:,.2f}"
    events = [LifeEvent(time=body["created_at"], event="created and sent" if body.get("broker_id") else "created", detail=sized)]
    if body.get("unknown_since"):
        events.append(LifeEvent(time=body["unknown_since"], event="in doubt", detail="no definite answer came from the broker"))
    if body.get("sent_at"):
        events.append(LifeEvent(time=body["sent_at"], event="sent again"))
    events += [
        LifeEvent(time=fill["time"], event="filled" if last else "filled in part", detail=_fill(fill))
        for fill in body.get("fills", [])
        for last in [Decimal(str(fill["cumulative"])) >= Decimal(str(body["quantity"]))]
    ]
    status = body["status"]
    if status != OrderStatus.FILLED and status != OrderStatus.PENDING:
        end = body.get("updated_at") or body["created_at"]
        events.append(LifeEvent(time=end, event=status.replace("_", " "), detail=body.get("reason")))
    if body.get("replaced_by"):
        events.append(LifeEvent(time=body.get("updated_at") or body["created_at"], event="replaced", detail=f"by {body['replaced_by']}"))
    return sorted(events, key=lambda one: one.time)


def _fill(fill: Mapping[str, Any]) -> str:
    return f"{plain(Decimal(str(fill['quantity'])))} at ${plain(Decimal(str(fill['price'])))}"
