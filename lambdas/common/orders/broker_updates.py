"""What happens to an order, taken into the ledger by `order_state`: `record` what the broker shows, `note` an event of ours.

Promises: both may hear of the same thing twice, late or in another order; a writer that was overtaken reads again and applies its change
to what is there now. A rise of the filled quantity is one fill, written with the order's new total. More filled than was ordered is what
the account now holds, so it is recorded; trading is halted before that, with an alert. Another order under our id is never recorded:
trading is halted with an alert, once per session, and `RecordingError` is raised for this order alone.
"""

from __future__ import annotations

from datetime import datetime

from lambdas.common.broker.port import Order
from lambdas.common.ledger.alerts import raise_alert
from lambdas.common.ledger.ledger import Ledger, Stale
from lambdas.common.ledger.records import Fill, OrderRecord
from lambdas.common.ledger.table import RACES
from lambdas.common.telemetry import logger
from schema.exchange_time import iso, new_york_date
from trading_env.errors import PapertapeError
from trading_env.orders.order_state import Event, Life, rise


class RecordingError(PapertapeError, RuntimeError):
    """What the broker shows contradicts the ledger: another symbol or side under our id."""


def record(ledger: Ledger, order: OrderRecord, observed: Order, *, now: datetime) -> OrderRecord:
    """Store what `observed` adds to `order` and return the order as stored; raise `RecordingError` on a contradiction."""
    for _ in range(RACES):
        _refuse_contradiction(ledger, order, observed, now=now)
        changed, fill = merged(order, observed, now=now)
        if changed == order:
            return order
        if changed.filled_quantity > max(order.quantity, order.filled_quantity):
            detail = f"{_name(order)}: at most {order.quantity} may fill, {changed.filled_quantity} did"
            # Before the overfill is recorded, so that a crash in between repeats the halt and never misses it
            _halt(ledger, f"overfill:{order.client_order_id}", detail, now=now)
        try:
            return ledger.save_order(changed, fill=fill)
        except Stale:
            order = ledger.order(order.client_order_id) or order
    raise Stale(f"order {order.client_order_id} changed {RACES} times while it was recorded")


def note(ledger: Ledger, order: OrderRecord, event: Event, *, now: datetime, fence: int | None = None, **fields: str | None) -> OrderRecord:
    """Store an event of ours, with the order's `fields` that it changes, and return the order as stored.

    Once the broker has shown the order, or it has ended, the event is past and nothing is stored. With `fence`, only the lease's holder
    may write.
    """
    for _ in range(RACES):
        life = order.life
        if life.shown or life.ended:
            return order
        changed = order.model_copy(update={"status": life.after(event).status, **fields})
        if changed == order:
            return order
        try:
            return ledger.save_order(changed.model_copy(update={"updated_at": iso(now)}), fence=fence)
        except Stale:
            order = ledger.order(order.client_order_id) or order
    raise Stale(f"order {order.client_order_id} changed {RACES} times while it was noted")


def merged(order: OrderRecord, observed: Order, *, now: datetime) -> tuple[OrderRecord, Fill | None]:
    """Return the order as the broker shows it, and the fill that explains a rise of its filled quantity."""
    if observed.filled_quantity > order.filled_quantity and observed.filled_average_price is None:
        logger.warning("filled without a price: not recorded yet", extra={"client_order_id": order.client_order_id})
        return order, None
    before = order.life
    after = before.observed(observed.status, filled=observed.filled_quantity, average=observed.filled_average_price)
    fill = _fill(order, before, after, time=observed.filled_at or iso(now))
    changes: dict[str, object] = {
        "status": after.status,
        "broker_id": order.broker_id or observed.id,
        "missing_since": None,
        "filled_quantity": after.filled,
        "filled_average_price": after.average,
    }
    if fill is not None:
        changes |= {"filled_at": fill.time, "fills": fill.sequence}
    changed = order.model_copy(update=changes)
    if changed == order:
        return order, None
    return changed.model_copy(update={"updated_at": iso(now)}), fill


def _fill(order: OrderRecord, before: Life, after: Life, *, time: str) -> Fill | None:
    risen = rise(before, after)
    if risen is None:
        return None
    quantity, price = risen
    return Fill(
        client_order_id=order.client_order_id,
        decision_id=order.decision_id,
        sequence=order.fills + 1,
        symbol=order.symbol,
        side=order.side,
        quantity=quantity,
        price=price,
        cumulative=after.filled,
        time=time,
    )


def _refuse_contradiction(ledger: Ledger, order: OrderRecord, observed: Order, *, now: datetime) -> None:
    ours, theirs = (order.client_order_id, order.symbol, order.side), (observed.client_order_id, observed.symbol, observed.side)
    if ours == theirs:
        return
    detail = f"{_name(order)} is {observed.side} {observed.symbol} {observed.client_order_id} at the broker"
    rule = f"contradiction:{order.client_order_id}"
    if not ledger.has_alert(rule, session=new_york_date(now).isoformat()):
        _halt(ledger, rule, detail, now=now)
    raise RecordingError(detail)


def _halt(ledger: Ledger, rule: str, detail: str, *, now: datetime) -> None:
    ledger.set_trading_state("halted", reason=f"{rule.partition(':')[0]}: {detail}", time=iso(now), by="recording", automatic=True)
    session = new_york_date(now).isoformat()
    raise_alert(ledger=ledger, rule=rule, session=session, detail=f"{detail}; trading is halted, ask the broker", time=iso(now))


def _name(order: OrderRecord) -> str:
    return f"{order.side} {order.symbol} {order.client_order_id}"
