"""What a split does to an order that outlives it. Pure."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from local.exchange.money import CEILING, CENT, FLOOR, PRICE_TICK, RATIOS
from local.exchange.orders import ExchangeOrder, OrderClass, OrderType, Side, Ticket, TimeInForce


def after_split(order: ExchangeOrder, *, ratio: Decimal, price: Decimal) -> Ticket | None:
    """The ticket in new shares, worth what it was, its limit on the tick that asks for more; None ends the order.

    A limit that is good until canceled lives on, if nothing of it is filled, it comes to whole shares, and the new price does not meet it.
    """
    ticket = order.ticket
    lasting = ticket.kind is OrderType.LIMIT and ticket.time_in_force is TimeInForce.GTC and ticket.order_class is OrderClass.SIMPLE
    if not lasting or ticket.limit_price is None or ticket.quantity is None or order.filled_quantity:
        return None
    buys = ticket.side is Side.BUY
    quantity, exact = RATIOS.multiply(ticket.quantity, ratio), RATIOS.divide(ticket.limit_price, ratio)
    limit = exact.quantize(CENT if exact >= 1 else PRICE_TICK, context=FLOOR if buys else CEILING)
    met = price <= limit if buys else price >= limit
    if met or limit <= 0 or quantity != int(quantity):
        return None
    return replace(ticket, quantity=quantity, limit_price=limit)
