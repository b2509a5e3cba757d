"""Stop orders: at which price one is triggered, and how a trailing stop follows the market. Pure.

Promise: a stop knows the prices that the venue sees, and no others. On a day with daily bars alone that is the open; on one with recorded
minutes also the price at the end of each. A stop that lies between two of them is triggered by the later one and filled at its price.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from local.exchange.money import CEILING, HALF_UP, HUNDRED, PRICE_TICK, RATIOS
from local.exchange.orders import ExchangeOrder, OrderType, Side, Ticket

STOPS = frozenset({OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP})


def stop_price(order: ExchangeOrder) -> Decimal | None:
    """The price that triggers a stop; None for other orders, and for a trailing stop that has not seen the market yet."""
    ticket = order.ticket
    if ticket.kind is not OrderType.TRAILING_STOP or order.high_water is None:
        return ticket.stop_price
    trail = _trail(ticket, order.high_water)
    return (order.high_water - trail if ticket.side is Side.SELL else order.high_water + trail).quantize(PRICE_TICK, context=HALF_UP)


def observed(order: ExchangeOrder, price: Decimal) -> ExchangeOrder:
    """The order after a trade of the market at `price`: trailed, and triggered if the price has reached its stop."""
    ticket = order.ticket
    if ticket.kind not in STOPS or order.triggered:
        return order
    sells = ticket.side is Side.SELL
    if ticket.kind is OrderType.TRAILING_STOP:
        best = price if order.high_water is None else max(price, order.high_water) if sells else min(price, order.high_water)
        order = replace(order, high_water=best) if best != order.high_water else order
    stop = stop_price(order)
    if stop is None or (price > stop if sells else price < stop):
        return order
    return replace(order, triggered=True)


def seen_first(ticket: Ticket, price: Decimal) -> Decimal | None:
    """What a trailing stop starts from when it comes to a market at `price`."""
    return price if ticket.kind is OrderType.TRAILING_STOP else None


def dearest(ticket: Ticket, price: Decimal) -> Decimal:
    """The price that a buy without a limit is reckoned with while the market is at `price`."""
    if ticket.stop_price is not None:
        return max(price, ticket.stop_price)
    if ticket.kind is OrderType.TRAILING_STOP:
        return RATIOS.add(price, _trail(ticket, price)).quantize(PRICE_TICK, context=CEILING)
    return price


def _trail(ticket: Ticket, price: Decimal) -> Decimal:
    if ticket.trail_price is not None:
        return ticket.trail_price
    assert ticket.trail_percent is not None
    return RATIOS.divide(RATIOS.multiply(price, ticket.trail_percent), HUNDRED)
