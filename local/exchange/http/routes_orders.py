"""Orders sent, replaced, canceled and listed, and positions closed, which is an order too.

`order_requests.py` says what can be asked for, `rules/` how long an order is good and what is turned down. The answer to an order has its
legs; elsewhere they are orders like others, or with `nested` listed within the order that they came with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal

from starlette.requests import Request

from local.exchange.http import query
from local.exchange.http.orders.order_requests import parse_changes, parse_ticket
from local.exchange.http.parsing import parse_decimal, parse_json, parse_moment
from local.exchange.http.wire import Answer, Json, error_json, order_json
from local.exchange.money import FLOOR, QUANTUM, plain
from local.exchange.orders import ExchangeOrder, ExchangePosition, Refused, Side, Ticket
from local.exchange.venue import Venue

PAGE = 500
HUNDRED = Decimal(100)


def submit_order(venue: Venue, _request: Request, body: bytes) -> Answer:
    try:
        ticket = parse_ticket(parse_json(body))
    except Refused:
        venue.book.refused += 1
        raise
    symbol = query.symbol_of(venue.market, ticket.symbol) or ticket.symbol
    order = _submit(venue, replace(ticket, symbol=symbol, legs=tuple(replace(leg, symbol=symbol) for leg in ticket.legs)))
    return 200, order_json(order, legs=venue.legs(order))


def _submit(venue: Venue, ticket: Ticket) -> ExchangeOrder:
    try:
        return venue.submit(ticket)
    except Refused:
        venue.book.refused += 1
        raise


def replace_order(venue: Venue, request: Request, body: bytes) -> Answer:
    return 200, order_json(venue.replace(_order(venue, request).id, parse_changes(parse_json(body))))


def order_by_id(venue: Venue, request: Request, _body: bytes) -> Answer:
    order = _order(venue, request)
    return 200, order_json(order, legs=venue.legs(order) if query.flag(request, "nested") else ())


def order_by_client_id(venue: Venue, request: Request, _body: bytes) -> Answer:
    client_order_id = request.query_params.get("client_order_id", "")
    order = venue.order_by_client_id(client_order_id)
    if order is None:
        raise Refused(404, 40410000, f"order not found for {client_order_id}")
    return 200, order_json(order)


def cancel_order(venue: Venue, request: Request, _body: bytes) -> Answer:
    venue.cancel(_order(venue, request).id)
    return 204, None


def cancel_orders(venue: Venue, _request: Request, _body: bytes) -> Answer:
    return 207, [{"id": order_id, "status": 200} for order_id in _cancel_all(venue)]


def _cancel_all(venue: Venue) -> list[str]:
    """Every open order, with those that end with another one."""
    found = [order.id for order in venue.book.open_orders]
    for order_id in found:
        if venue.book.orders[order_id].open:
            venue.cancel(order_id)
    return found


def _order(venue: Venue, request: Request) -> ExchangeOrder:
    return _order_named(venue, request.path_params["order_id"])


def _order_named(venue: Venue, order_id: str) -> ExchangeOrder:
    order = venue.order(order_id.lower())
    if order is None:
        raise Refused(404, 40410000, f"order not found for {order_id}")
    return order


# The list


def list_orders(venue: Venue, request: Request, _body: bytes) -> Answer:
    """Newest first unless asked otherwise. A leg is `nested` within an order that is listed as well, or else listed by itself."""
    nested = query.flag(request, "nested")
    limit = query.limit(request, default=50, most=PAGE)
    found = venue.orders(query.choice(request, "status", ("open", "closed", "all")))
    for wanted in _filters(venue, request):
        found = [order for order in found if wanted(order)]
    if query.choice(request, "direction", ("desc", "asc")) == "desc":
        found = found[::-1]
    if not nested:
        return 200, [order_json(order) for order in found[:limit]]
    ids = {order.id for order in found}
    parents = [order for order in found if venue.book.links.parent(order.id) not in ids]
    return 200, [order_json(order, legs=venue.legs(order)) for order in parents[:limit]]


def _filters(venue: Venue, request: Request) -> Iterator[Callable[[ExchangeOrder], bool]]:
    asked = request.query_params
    if asked.get("after"):
        after = parse_moment(asked["after"], "after")
        yield lambda order: order.submitted_at > after
    if asked.get("until"):
        until = parse_moment(asked["until"], "until")
        yield lambda order: order.submitted_at <= until
    if asked.get("symbols"):
        symbols = query.symbols(request)
        yield lambda order: order.ticket.symbol in symbols
    if asked.get("side"):
        side = Side(query.choice(request, "side", ("buy", "sell")))
        yield lambda order: order.ticket.side is side
    if asked.get("asset_class"):
        equities = not {"us_equity", "all"}.isdisjoint(query.words(request, "asset_class"))
        yield lambda _order: equities
    if asked.get("before_order_id") and asked.get("after_order_id"):
        raise Refused(422, 40010001, "only one of before_order_id or after_order_id is accepted")
    if asked.get("before_order_id"):
        later = _order_named(venue, asked["before_order_id"])
        yield lambda order: order.sequence < later.sequence
    if asked.get("after_order_id"):
        earlier = _order_named(venue, asked["after_order_id"])
        yield lambda order: order.sequence > earlier.sequence


# Positions closed


def close_position(venue: Venue, request: Request, _body: bytes) -> Answer:
    symbol = query.symbol_of(venue.market, request.path_params["asset"])
    held = venue.positions.get(symbol) if symbol is not None else None
    if symbol is None or held is None:
        raise Refused(404, 40410000, "position does not exist")
    return 200, order_json(_submit(venue, _closing(symbol, _part(request, held))))


def close_positions(venue: Venue, request: Request, _body: bytes) -> Answer:
    """One order a position; one that is refused, because its shares are promised to an open order for example, does not stop the others."""
    if query.flag(request, "cancel_orders"):
        _cancel_all(venue)
    return 207, [_closed(venue, symbol, held) for symbol, held in sorted(venue.positions.items())]


def _closed(venue: Venue, symbol: str, held: ExchangePosition) -> Json:
    ticket = _closing(symbol, held.quantity)
    try:
        return {"symbol": symbol, "status": 200, "body": order_json(_submit(venue, ticket))}
    except Refused as refused:
        # The vendor's description has an order here, the vendor itself a refusal: this is both, the refusal with what was asked for.
        asked = {"symbol": symbol, "qty": plain(held.quantity), "notional": None, "side": "sell", "type": "market", "time_in_force": "day"}
        return {"symbol": symbol, "status": refused.status, "body": {**asked, **error_json(refused)}}


def _closing(symbol: str, quantity: Decimal) -> Ticket:
    return Ticket(symbol=symbol, side=Side.SELL, quantity=quantity)


def _part(request: Request, held: ExchangePosition) -> Decimal:
    """Shares to sell: all, `qty`, or `percentage`; of whole shares only whole ones."""
    quantity, percentage = request.query_params.get("qty"), request.query_params.get("percentage")
    if quantity and percentage:
        raise Refused(422, 40010001, "only one of qty or percentage is accepted")
    if quantity:
        return parse_decimal(quantity, "qty")
    share = parse_decimal(percentage, "percentage") if percentage else HUNDRED
    if share > HUNDRED:
        raise Refused(422, 40010001, f"percentage must be above 0 and at most 100, was {percentage}")
    unit = Decimal(1) if held.quantity == int(held.quantity) else QUANTUM
    part = FLOOR.divide(FLOOR.multiply(held.quantity, share), HUNDRED).quantize(unit, context=FLOOR)
    if part <= 0:
        raise Refused(422, 40010001, f"percentage must be worth at least {plain(unit)} of {plain(held.quantity)} shares, was {percentage}")
    return part
