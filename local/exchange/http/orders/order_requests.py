"""Orders and replacements as they are asked for, from JSON to tickets.

Promise: as in `parsing.py`, whatever this exchange or the vendor does not take is `Refused` (422) with the field, its value and what is
allowed. What only the market or the account can judge (a stop loss above the entry, a sale of what is not held) is the venue's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from local.exchange.http.parsing import Json, number_in, parse_decimal, require, require_known
from local.exchange.orders import Changes, OrderClass, OrderType, Refused, Side, Ticket, TimeInForce
from local.exchange.rules.refusals import require_tick
from local.exchange.rules.replacing import require_day_for_fractions
from local.exchange.rules.stops import STOPS

PRICES = ("limit_price", "stop_price", "trail_price", "trail_percent")
ORDER_FIELDS = {"symbol", "qty", "notional", "side", "type", "time_in_force", "client_order_id", "extended_hours", "order_class"} | {
    "position_intent",
    "take_profit",
    "stop_loss",
    *PRICES,
}
CHANGE_FIELDS = {"qty", "limit_price", "stop_price", "trail", "time_in_force", "client_order_id"}
UNTIL_CANCELED = frozenset({TimeInForce.DAY, TimeInForce.GTC})
#: The prices that a type asks for, and how the vendor says so.
ASKED: Mapping[OrderType, tuple[frozenset[str], str]] = {
    OrderType.MARKET: (frozenset(), "market orders require no stop or limit price"),
    OrderType.LIMIT: (frozenset({"limit_price"}), "limit orders require a limit price, and no stop price"),
    OrderType.STOP: (frozenset({"stop_price"}), "stop orders require a stop price, and no limit price"),
    OrderType.STOP_LIMIT: (frozenset({"stop_price", "limit_price"}), "stop limit orders require both stop and limit price"),
}
ONE_TRAIL = "trailing stop orders must specify one of trail_price or trail_percent, and no other price"


def parse_ticket(document: Json) -> Ticket:
    """An order request as a ticket."""
    require_known(document, ORDER_FIELDS)
    order_class = _order_class(document)
    time_in_force = TimeInForce(require(document, "time_in_force", {word.value for word in TimeInForce}))
    side = Side(require(document, "side", {side.value for side in Side}))
    kind = OrderType(require(document, "type", {kind.value for kind in OrderType}))
    require(document, "position_intent", {None, "buy_to_open" if side is Side.BUY else "sell_to_close"})
    extended_hours = require(document, "extended_hours", {None, False, True}) or False
    symbol = document.get("symbol")
    if not isinstance(symbol, str) or not symbol:
        raise Refused(422, 40010001, f"symbol is required, was {symbol!r}")
    quantity, notional = number_in(document, "qty"), number_in(document, "notional")
    prices = {name: number_in(document, name) for name in PRICES}
    if order_class is OrderClass.OCO:
        prices["limit_price"] = _only(prices["limit_price"], _exit_prices(document, "take_profit").get("limit_price"))
    _require_one_size(quantity, notional)
    _require_prices(kind, prices)
    ticket = Ticket(
        symbol=symbol,
        side=side,
        kind=kind,
        quantity=quantity,
        notional=notional,
        time_in_force=time_in_force,
        client_order_id=_client_order_id(document),
        extended_hours=extended_hours,
        order_class=order_class,
        limit_price=prices["limit_price"],
        stop_price=prices["stop_price"],
        trail_price=prices["trail_price"],
        trail_percent=prices["trail_percent"],
    )
    require_day_for_fractions(ticket)
    _require_hours(ticket)
    return ticket if order_class is OrderClass.SIMPLE else _with_legs(ticket, document)


def parse_changes(document: Json) -> Changes:
    """What a replacement asks for."""
    require_known(document, CHANGE_FIELDS)
    word = require(document, "time_in_force", {None, *(word.value for word in TimeInForce)})
    return Changes(
        quantity=number_in(document, "qty"),
        limit_price=number_in(document, "limit_price"),
        stop_price=number_in(document, "stop_price"),
        trail=number_in(document, "trail"),
        time_in_force=TimeInForce(word) if word is not None else None,
        client_order_id=_client_order_id(document),
    )


def _require_one_size(quantity: Decimal | None, notional: Decimal | None) -> None:
    if quantity is None and notional is None:
        raise Refused(422, 40010001, "qty or notional is required")
    if quantity is not None and notional is not None:
        raise Refused(422, 40010001, "only one of qty or notional is accepted")


def _require_prices(kind: OrderType, prices: Mapping[str, Decimal | None]) -> None:
    given = {name for name, price in prices.items() if price is not None}
    if kind is OrderType.TRAILING_STOP:
        if given not in ({"trail_price"}, {"trail_percent"}):
            raise Refused(422, 40010001, ONE_TRAIL)
        if (percent := prices["trail_percent"]) is not None and percent >= 100:
            raise Refused(422, 40010001, f"trail_percent must be above 0 and below 100, was {percent}")
        return
    asked, sentence = ASKED[kind]
    if given != asked:
        raise Refused(422, 40010001, sentence)
    for name in asked:
        require_tick(prices[name], name)


def _require_hours(ticket: Ticket) -> None:
    lasting = ticket.time_in_force in UNTIL_CANCELED
    if ticket.extended_hours and not (ticket.kind is OrderType.LIMIT and lasting and ticket.order_class is OrderClass.SIMPLE):
        raise Refused(422, 42210000, "extended hours order must be DAY or GTC limit orders")
    if ticket.kind in STOPS and not lasting:
        raise Refused(422, 42210000, f"{ticket.kind} orders must be DAY or GTC orders, was {ticket.time_in_force}")
    if ticket.kind is OrderType.TRAILING_STOP and (ticket.quantity is None or ticket.quantity != int(ticket.quantity)):
        raise Refused(422, 42210000, "fractional orders must be market, limit, stop or stop_limit orders")


# Orders with legs


def _order_class(document: Json) -> OrderClass:
    """The class that is named; without one, what the exits say: two are a bracket's, one is an oto's."""
    named = require(document, "order_class", {None, "", *(word.value for word in OrderClass)})
    exits = [name for name in ("take_profit", "stop_loss") if document.get(name) is not None]
    if named:
        if named == OrderClass.SIMPLE and exits:
            raise Refused(422, 40010001, f"simple orders have no {' and '.join(exits)}")
        return OrderClass(named)
    return (OrderClass.SIMPLE, OrderClass.OTO, OrderClass.BRACKET)[len(exits)]


def _exit_prices(document: Json, name: str) -> dict[str, Decimal]:
    value = document.get(name)
    allowed = {"limit_price"} if name == "take_profit" else {"stop_price", "limit_price"}
    if value is None:
        return {}
    if not isinstance(value, dict) or value.keys() - allowed:
        raise Refused(422, 40010001, f"{name} must be an object with {' and '.join(sorted(allowed))}, was {value!r}")
    prices = {key: parse_decimal(price, f"{name}.{key}") for key, price in value.items() if price is not None}
    for key, price in prices.items():
        require_tick(price, f"{name}.{key}")
    return prices


def _only(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    """The take profit of an oco, which may be named in two places."""
    if one is not None and other is not None and one != other:
        raise Refused(422, 40010001, f"limit_price and take_profit.limit_price of an oco order are one price, were {one} and {other}")
    return one if one is not None else other


def _with_legs(ticket: Ticket, document: Json) -> Ticket:
    name, oco = ticket.order_class.value, ticket.order_class is OrderClass.OCO
    if ticket.quantity is None or ticket.quantity != int(ticket.quantity):
        raise Refused(422, 42210000, "fractional orders must be simple orders")
    if ticket.time_in_force not in UNTIL_CANCELED:
        raise Refused(422, 42210000, f"{name} orders must be DAY or GTC orders, was {ticket.time_in_force}")
    if ticket.kind is not OrderType.LIMIT and (oco or ticket.kind is not OrderType.MARKET):
        raise Refused(422, 42210000, f"{name} orders must be {'limit' if oco else 'market or limit'} orders, was {ticket.kind}")
    profit, loss = _exit_prices(document, "take_profit"), _exit_prices(document, "stop_loss")
    if ticket.order_class is OrderClass.BRACKET and not profit:
        raise Refused(422, 40010001, "bracket orders require take_profit.limit_price")
    if (ticket.order_class is not OrderClass.OTO or loss) and "stop_price" not in loss:
        raise Refused(422, 40010001, f"{name} orders require stop_loss.stop_price")
    if ticket.order_class is OrderClass.OTO and bool(profit) is bool(loss):
        raise Refused(422, 40010001, "oto orders require either take_profit.limit_price or stop_loss.stop_price")
    exits = [_leg(ticket, OrderType.LIMIT, profit)] if profit and not oco else []
    exits += [_leg(ticket, OrderType.STOP_LIMIT if "limit_price" in loss else OrderType.STOP, loss)] if loss else []
    return replace(ticket, legs=tuple(exits))


def _leg(order: Ticket, kind: OrderType, prices: Mapping[str, Decimal]) -> Ticket:
    return Ticket(
        symbol=order.symbol,
        side=order.side if order.order_class is OrderClass.OCO else _other(order.side),
        kind=kind,
        quantity=order.quantity,
        limit_price=prices.get("limit_price"),
        stop_price=prices.get("stop_price"),
        time_in_force=order.time_in_force,
        order_class=order.order_class,
    )


def _other(side: Side) -> Side:
    return Side.BUY if side is Side.SELL else Side.SELL


def _client_order_id(document: Json) -> str | None:
    value = document.get("client_order_id")
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 128:
        raise Refused(422, 40010001, f"client_order_id must be a string of at most 128 characters, was {value!r}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise Refused(422, 40010001, f"client_order_id must be text, was {value!r}")
    return value
