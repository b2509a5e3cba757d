"""Take the broker's word about an order into the ledger: cumulative, monotone, append-only.

`record` keeps the larger filled quantity, turns each rise into one fill whose sequence follows from the order's own count, and never goes
back from a terminal status. The same news twice, or old news after new, changes nothing. A status that nobody has heard of is kept
verbatim and counts as not terminal. More filled than was ordered is what the account now holds, so it is recorded; trading is halted before
that, with an alert.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Context, Decimal

from lambdas.common.alerts import raise_alert
from lambdas.common.broker import Order
from lambdas.common.broker_time import iso, new_york_date
from lambdas.common.ledger import Ledger, Stale
from lambdas.common.records import Fill, OrderRecord

RACES = 5
_PRICES = Context(prec=38)


class RecordingError(RuntimeError):
    """The broker's word contradicts the ledger: another symbol or side under our id, or a fill without a price."""


def record(ledger: Ledger, order: OrderRecord, seen: Order, *, now: datetime) -> OrderRecord:
    """Store what `seen` adds to `order` and return the order as stored; raise `RecordingError` on a contradiction."""
    for _ in range(RACES):
        _refuse_contradiction(order, seen)
        changed, fill = merged(order, seen, now=now)
        if changed == order:
            return order
        if changed.filled_quantity > max(order.quantity, order.filled_quantity):
            _halt(ledger, changed, now=now)
        try:
            return ledger.save_order(changed, fill=fill)
        except Stale:
            order = ledger.order(order.client_order_id) or order
    raise Stale(f"order {order.client_order_id} changed {RACES} times while it was recorded")


def merged(order: OrderRecord, seen: Order, *, now: datetime) -> tuple[OrderRecord, Fill | None]:
    """Return the order with the broker's news, and the fill that explains a rise of its filled quantity."""
    if seen.filled_quantity < order.filled_quantity or (order.terminal and seen.filled_quantity == order.filled_quantity):
        return order, None
    news: dict[str, object] = {"broker_id": seen.id, "missing_since": None}
    if not order.terminal:
        news["status"] = seen.status
    fill = _fill(order, seen, now=now)
    if fill is not None:
        news |= {
            "filled_quantity": seen.filled_quantity,
            "filled_average_price": seen.filled_average_price,
            "filled_at": fill.time,
            "fills": fill.sequence,
        }
    changed = order.model_copy(update=news)
    if changed == order:
        return order, None
    return changed.model_copy(update={"updated_at": iso(now)}), fill


def _fill(order: OrderRecord, seen: Order, *, now: datetime) -> Fill | None:
    quantity = seen.filled_quantity - order.filled_quantity
    if not quantity:
        return None
    if seen.filled_average_price is None:
        raise RecordingError(f"order {order.client_order_id}: {seen.filled_quantity} filled without a price")
    before = order.filled_quantity * (order.filled_average_price or Decimal(0))
    price = (
        seen.filled_average_price
        if not order.filled_quantity
        else _PRICES.divide(seen.filled_quantity * seen.filled_average_price - before, quantity)
    )
    return Fill(
        client_order_id=order.client_order_id,
        decision_id=order.decision_id,
        sequence=order.fills + 1,
        symbol=order.symbol,
        side=order.side,
        quantity=quantity,
        price=price,
        cumulative=seen.filled_quantity,
        time=seen.filled_at or iso(now),
    )


def _refuse_contradiction(order: OrderRecord, seen: Order) -> None:
    if (seen.symbol, seen.side) != (order.symbol, order.side):
        raise RecordingError(
            f"order {order.client_order_id} must be a {order.side} of {order.symbol}, was a {seen.side} of {seen.symbol} at the broker"
        )


def _halt(ledger: Ledger, order: OrderRecord, *, now: datetime) -> None:
    """Before the overfill is recorded, so that a crash in between repeats the halt and never misses it."""
    detail = f"{order.side} {order.symbol} {order.client_order_id}: at most {order.quantity} may fill, {order.filled_quantity} did"
    ledger.set_trading_state("halted", reason=f"overfill: {detail}", time=iso(now), by="recording")
    rule, session = f"overfill:{order.client_order_id}", new_york_date(now).isoformat()
    raise_alert(ledger=ledger, rule=rule, session=session, detail=f"{detail}; trading is halted, ask the broker", time=iso(now))
