"""Replaces an order: from an open order and changes to the ticket of its replacement. Pure.

Promise: the replacement is an order of its own, for what is left: `qty` is the whole that is asked for, less what was filled before, and
its fills are its own. So the fills of all orders still add up to the position. What the vendor does not replace is `Refused` in its
words.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from local.exchange.money import EXACT
from local.exchange.orders import Changes, ExchangeOrder, OrderClass, OrderType, Refused, Status, Ticket, TimeInForce
from local.exchange.rules.refusals import require_tick

LIMITS = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
STOPS_AT = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})


def replacement(order: ExchangeOrder, changes: Changes, *, live: bool) -> Ticket:
    """The ticket of the order that takes the place of `order`, which is at the market if it is `live`. Raises `Refused`."""
    ticket = order.ticket
    if order.status is Status.REPLACED:
        raise Refused(422, 42210000, "order already replaced")
    if not order.open or not live or order.status is Status.ACCEPTED:
        raise Refused(422, 42210000, f"cannot replace order in {order.shown_status} status")
    if ticket.notional is not None or ticket.quantity is None:
        raise Refused(422, 42210000, "notional orders cannot be replaced, cancel it and send a new one")
    _require_prices_of(ticket.kind, changes)
    changed = replace(
        ticket,
        quantity=_quantity(order, ticket.quantity, changes),
        limit_price=changes.limit_price or ticket.limit_price,
        stop_price=changes.stop_price or ticket.stop_price,
        trail_price=changes.trail if changes.trail is not None and ticket.trail_price is not None else ticket.trail_price,
        trail_percent=changes.trail if changes.trail is not None and ticket.trail_percent is not None else ticket.trail_percent,
        time_in_force=changes.time_in_force if changes.time_in_force is not None else ticket.time_in_force,
    )
    if changed == ticket:
        raise Refused(422, 42210000, "order parameters are not changed")
    if ticket.order_class is not OrderClass.SIMPLE and (changed.quantity, changed.time_in_force) != (ticket.quantity, ticket.time_in_force):
        raise Refused(422, 42210000, f"only prices of {ticket.order_class} orders can be replaced")
    for name in ("limit_price", "stop_price"):
        require_tick(getattr(changes, name), name)
    require_day_for_fractions(changed)
    left = EXACT.subtract(changed.quantity or Decimal(0), order.filled_quantity)
    return replace(changed, quantity=left, client_order_id=changes.client_order_id, legs=())


def _require_prices_of(kind: OrderType, changes: Changes) -> None:
    if kind is OrderType.MARKET and (changes.limit_price is not None or changes.stop_price is not None):
        raise Refused(422, 40010001, "market orders require no stop or limit price")
    for name, given, allowed in (
        ("limit_price", changes.limit_price, kind in LIMITS),
        ("stop_price", changes.stop_price, kind in STOPS_AT),
        ("trail", changes.trail, kind is OrderType.TRAILING_STOP),
    ):
        if given is not None and not allowed:
            raise Refused(422, 40010001, f"{kind} orders have no {name}, was {given}")


def _quantity(order: ExchangeOrder, before: Decimal, changes: Changes) -> Decimal:
    if changes.quantity is None:
        return before
    if changes.quantity != int(changes.quantity) or (before != int(before) and changes.quantity != before):
        raise Refused(422, 42210000, f"qty of a replaced order must be whole, and that of a fractional one stays, was {changes.quantity}")
    if changes.quantity <= order.filled_quantity:
        raise Refused(422, 42210000, "qty must be > filled_qty")
    return changes.quantity


def require_day_for_fractions(ticket: Ticket) -> None:
    """Raise `Refused` for a part of a share, or an amount of money, that is not for the day."""
    whole = ticket.notional is None and ticket.quantity is not None and ticket.quantity == int(ticket.quantity)
    if ticket.time_in_force is not TimeInForce.DAY and not whole:
        raise Refused(422, 42210000, "fractional orders must be DAY orders")
