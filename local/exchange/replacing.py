"""Replaces an order: from an open order and changes to the ticket of its replacement. Pure.

Promise: the replacement is an order of its own, for what is left: `qty` is the whole that is asked for, less what was filled before, and
its fills are its own. So the fills of all orders still add up to the position. What the vendor does not replace is `Refused` in its
words.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from local.exchange.money import EXACT
from local.exchange.orders import Changes, ExchangeOrder, OrderType, Refused, Status, Ticket, TimeInForce


def replacement(order: ExchangeOrder, changes: Changes, *, routed: bool) -> Ticket:
    """The ticket of the order that takes the place of `order`, which has met the market if it is `routed`. Raises `Refused`."""
    ticket = order.ticket
    if order.status is Status.REPLACED:
        raise Refused(422, 42210000, "order already replaced")
    if not order.open or not routed:
        raise Refused(422, 42210000, f"cannot replace order in {order.shown_status} status")
    if ticket.notional is not None or ticket.quantity is None:
        raise Refused(422, 42210000, "notional orders cannot be replaced, cancel it and send a new one")
    if changes.limit_price is not None and ticket.kind is OrderType.MARKET:
        raise Refused(422, 40010001, "market orders require no stop or limit price")
    changed = replace(
        ticket,
        quantity=_quantity(order, ticket.quantity, changes),
        limit_price=changes.limit_price if changes.limit_price is not None else ticket.limit_price,
        time_in_force=changes.time_in_force if changes.time_in_force is not None else ticket.time_in_force,
    )
    if changed == ticket:
        raise Refused(422, 42210000, "order parameters are not changed")
    require_day_for_fractions(changed)
    left = EXACT.subtract(changed.quantity or Decimal(0), order.filled_quantity)
    return replace(changed, quantity=left, client_order_id=changes.client_order_id)


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
