"""What the vendor turns down before it looks at the account's cash: prices off the tick, orders of cents, trades with oneself, and orders
with exits that neither enter nor leave what an account without short sales can hold. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from local.exchange.money import CENT, EXACT, PRICE_TICK, RATIOS, plain
from local.exchange.orders import ExchangeOrder, ExchangePosition, OrderClass, OrderType, Refused, Side, Status, Ticket

LEAST = Decimal(1)


def require_tick(price: Decimal | None, name: str) -> None:
    """Raise `Refused` for a price that is finer than a cent from one dollar on, or than a hundredth of a cent below."""
    if price is None:
        return
    if price != price.quantize(CENT if price >= 1 else PRICE_TICK, context=RATIOS):
        sentence = f"invalid {name} {plain(price)}. sub-penny increment does not fulfill minimum pricing criteria"
        raise Refused(422, 42210000, sentence)


def require_least_cost(ticket: Ticket, price: Decimal, held: ExchangePosition | None) -> None:
    """Raise `Refused` for an order of less than one dollar, unless it sells all that is held."""
    if ticket.side is Side.SELL and held is not None and ticket.quantity == held.quantity:
        return
    cost = ticket.notional
    if cost is None:
        assert ticket.quantity is not None
        cost = RATIOS.multiply(ticket.quantity, ticket.limit_price or ticket.stop_price or price)
    if cost < LEAST:
        raise Refused(403, 40310000, f"cost basis must be >= minimal amount of order {LEAST}", cost_basis=plain(cost))


def require_long(ticket: Ticket, held: ExchangePosition | None) -> None:
    """Raise `Refused` for an order with exits that would open a short position, or that does not do what its class is for: a bracket and
    an oto enter, an oco leaves what is `held`."""
    if ticket.order_class is OrderClass.SIMPLE:
        return
    if ticket.order_class is OrderClass.OCO:
        if ticket.side is Side.BUY or held is None:
            raise Refused(422, 42210000, "oco orders must be exit orders")
    elif ticket.side is Side.SELL:
        if held is not None:
            raise Refused(422, 42210000, f"{ticket.order_class} orders must be entry orders")
        raise Refused(403, 40310000, "account is not allowed to short")


def require_exits_apart(ticket: Ticket, price: Decimal) -> None:
    """Raise `Refused` for a take profit that is not above the entry, or a stop loss that is not below it, by a cent."""
    base = ticket.limit_price or price
    for leg in ticket.legs:
        if leg.kind is OrderType.LIMIT and leg.limit_price is not None and leg.limit_price < EXACT.add(base, CENT):
            raise Refused(422, 42210000, "take_profit.limit_price must be >= base_price + 0.01", base_price=plain(base))
        if leg.stop_price is not None and leg.stop_price > EXACT.subtract(base, CENT):
            raise Refused(422, 42210000, "stop_loss.stop_price must be <= base_price - 0.01", base_price=plain(base))


def opposite(ticket: Ticket, open_orders: Iterable[ExchangeOrder]) -> ExchangeOrder | None:
    """The first open order that `ticket` would trade with. Orders with legs, and legs that are held, trade with none."""
    if ticket.order_class is not OrderClass.SIMPLE:
        return None
    return next((order for order in open_orders if order.status is not Status.HELD and _crosses(order.ticket, ticket)), None)


def wash_trade(against: ExchangeOrder | None) -> Refused:
    limit = against is not None and against.ticket.kind is OrderType.LIMIT
    return Refused(
        403,
        40310000,
        "potential wash trade detected. use complex orders",
        reject_reason=f"opposite side {'limit' if limit else 'market/stop'} order exists",
        **({"existing_order_id": against.id} if against is not None else {}),
    )


def _crosses(resting: Ticket, coming: Ticket) -> bool:
    """Opposite sides of one symbol, and no two limits that keep them apart; a stop may become a market order at any time."""
    if resting.symbol != coming.symbol or resting.side is coming.side:
        return False
    limits = {one.side: one.limit_price for one in (resting, coming) if one.kind is OrderType.LIMIT}
    buy, sell = limits.get(Side.BUY), limits.get(Side.SELL)
    return buy is None or sell is None or buy >= sell
