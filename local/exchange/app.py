"""The exchange's routes: Alpaca's trading, market-data and news paths on one port, and `/admin` for whoever moves the clock.

Each answer is a pure function of the venue; a `Refused` becomes the vendor's error body. A path of Alpaca's that is not served answers
501 with its name, so that a missing route is never mistaken for a missing order. `/admin` is not part of the vendor's API and asks for
no key: the server listens on loopback only.

| Path | Methods |
|--|--|
| /v2/clock, /v2/calendar, /v2/account, /v2/assets[/{symbol or id}], /v2/positions[/{symbol or id}] | GET |
| /v2/orders | GET, POST, DELETE |
| /v2/orders/{id} | GET, DELETE |
| /v2/orders:by_client_order_id | GET |
| /v2/stocks/bars (1Day, 1Min; raw), /v2/stocks/{bars,quotes,trades}/latest | GET |
| /v1/corporate-actions, /v1beta1/news | GET |
| /admin/clock, /admin/reset | POST |
| /admin/books | GET |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.exchange import wire
from local.exchange.book import Order, Refused, Side
from local.exchange.parsing import page_token, parse_date, parse_decimal, parse_json, parse_moment, parse_page_token, parse_ticket
from local.exchange.sessions import new_york_midnight
from local.exchange.tape import Bar
from local.exchange.venue import Venue

PAGE = 10_000
ACTIONS_PAGE = 1_000
ORDERS_PAGE = 500
TIMEFRAMES = {"1Day": "day", "1D": "day", "1Min": "minute", "1T": "minute"}

Answer = tuple[int, Any]
Handler = Callable[[Venue, Request, bytes], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    key_id: str = "local-key"
    secret_key: str = "local-secret"  # noqa: S105 opens nothing but this exchange


def create_app(*, venue: Venue, keys: Keys) -> Starlette:
    """The ASGI application over one venue."""
    routes = [
        ("/v2/clock", "GET", clock),
        ("/v2/calendar", "GET", calendar),
        ("/v2/account", "GET", account),
        ("/v2/assets", "GET", assets),
        ("/v2/assets/{asset}", "GET", asset),
        ("/v2/positions", "GET", positions),
        ("/v2/positions/{asset}", "GET", position),
        ("/v2/orders", "GET", list_orders),
        ("/v2/orders", "POST", submit_order),
        ("/v2/orders", "DELETE", cancel_orders),
        ("/v2/orders:by_client_order_id", "GET", order_by_client_id),
        ("/v2/orders/{order_id}", "GET", order_by_id),
        ("/v2/orders/{order_id}", "DELETE", cancel_order),
        ("/v2/stocks/bars", "GET", bars),
        ("/v2/stocks/bars/latest", "GET", latest_bars),
        ("/v2/stocks/quotes/latest", "GET", latest_quotes),
        ("/v2/stocks/trades/latest", "GET", latest_trades),
        ("/v1/corporate-actions", "GET", corporate_actions),
        ("/v1beta1/news", "GET", news),
    ]
    admin = [("/admin/clock", "POST", move_clock), ("/admin/books", "GET", books), ("/admin/reset", "POST", reset)]
    served = [Route(path, _endpoint(venue, handler, keys=keys), methods=[method]) for path, method, handler in routes]
    served += [Route(path, _endpoint(venue, handler, keys=None), methods=[method]) for path, method, handler in admin]
    served.append(Route("/{path:path}", _endpoint(venue, not_served, keys=keys), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))
    return Starlette(routes=served)


def _endpoint(venue: Venue, handler: Handler, *, keys: Keys | None) -> Callable[[Request], Any]:
    async def respond(request: Request) -> Response:
        body = await request.body()
        try:
            if keys is not None:
                _authorize(request, keys)
            status, content = handler(venue, request, body)
        except Refused as refused:
            status, content = refused.status, wire.error_json(refused)
        if content is None:
            return Response(status_code=status)
        text = content if isinstance(content, wire.Printed) else wire.dumps(content)
        return Response(text, status_code=status, media_type="application/json")

    return respond


def _authorize(request: Request, keys: Keys) -> None:
    key_id, secret_key = request.headers.get("APCA-API-KEY-ID"), request.headers.get("APCA-API-SECRET-KEY")
    if not key_id or not secret_key:
        raise Refused(401, 40110000, "request is not authorized")
    if (key_id, secret_key) != (keys.key_id, keys.secret_key):
        raise Refused(403, 40310000, "forbidden.")


def not_served(_venue: Venue, request: Request, _body: bytes) -> Answer:
    raise Refused(501, 50110000, f"{request.method} {request.url.path} is not served by this exchange")


# Clock, account, assets, positions


def clock(venue: Venue, _request: Request, _body: bytes) -> Answer:
    return 200, wire.clock_json(venue)


def calendar(venue: Venue, request: Request, _body: bytes) -> Answer:
    start, end = (_date_of(request, name) for name in ("start", "end"))
    return 200, [wire.session_json(session, venue.calendar) for session in venue.calendar.between(start, end)]


def account(venue: Venue, _request: Request, _body: bytes) -> Answer:
    return 200, wire.account_json(venue)


def assets(venue: Venue, request: Request, _body: bytes) -> Answer:
    query = request.query_params
    if query.get("status", "active") == "inactive" or query.get("asset_class", "us_equity") != "us_equity":
        return 200, []
    listed = [wire.asset_json(symbol, tradable=venue.tradable(symbol)) for symbol in venue.tape.symbols]
    return 200, [item for item in listed if query.get("exchange") in (None, item["exchange"])]


def asset(venue: Venue, request: Request, _body: bytes) -> Answer:
    symbol = _symbol_of(venue, request.path_params["asset"])
    if symbol is None:
        raise Refused(404, 40410000, f"asset not found for {request.path_params['asset']}")
    return 200, wire.asset_json(symbol, tradable=venue.tradable(symbol))


def positions(venue: Venue, _request: Request, _body: bytes) -> Answer:
    return 200, [wire.position_json(venue, symbol, held) for symbol, held in sorted(venue.book.positions.items())]


def position(venue: Venue, request: Request, _body: bytes) -> Answer:
    symbol = _symbol_of(venue, request.path_params["asset"])
    held = venue.book.positions.get(symbol) if symbol is not None else None
    if symbol is None or held is None:
        raise Refused(404, 40410000, "position does not exist")
    return 200, wire.position_json(venue, symbol, held)


# Orders


def submit_order(venue: Venue, _request: Request, body: bytes) -> Answer:
    try:
        return 200, wire.order_json(venue.submit(parse_ticket(parse_json(body))))
    except Refused:
        venue.book.refused += 1
        raise


def list_orders(venue: Venue, request: Request, _body: bytes) -> Answer:
    query = request.query_params
    limit = _limit(request, default=50, most=ORDERS_PAGE)
    found = _with_status(venue, _choice(request, "status", ("open", "closed", "all")))
    if query.get("after"):
        after = parse_moment(query["after"], "after")
        found = [order for order in found if order.submitted_at > after]
    if query.get("until"):
        until = parse_moment(query["until"], "until")
        found = [order for order in found if order.submitted_at <= until]
    if query.get("symbols"):
        symbols = _symbols(request)
        found = [order for order in found if order.ticket.symbol in symbols]
    if query.get("side"):
        side = Side(_choice(request, "side", ("buy", "sell")))
        found = [order for order in found if order.ticket.side is side]
    if _choice(request, "direction", ("desc", "asc")) == "desc":
        found = found[::-1]
    return 200, [wire.order_json(order) for order in found[:limit]]


def _with_status(venue: Venue, status: str) -> list[Order]:
    if status == "open":
        return venue.book.open_orders
    return [order for order in venue.book.orders.values() if status == "all" or not order.open]


def order_by_id(venue: Venue, request: Request, _body: bytes) -> Answer:
    return 200, wire.order_json(_order(venue, request))


def order_by_client_id(venue: Venue, request: Request, _body: bytes) -> Answer:
    client_order_id = request.query_params.get("client_order_id", "")
    order = venue.book.by_client_id(client_order_id)
    if order is None:
        raise Refused(404, 40410000, f"order not found for {client_order_id}")
    return 200, wire.order_json(order)


def cancel_order(venue: Venue, request: Request, _body: bytes) -> Answer:
    venue.cancel(_order(venue, request).id)
    return 204, None


def cancel_orders(venue: Venue, _request: Request, _body: bytes) -> Answer:
    canceled = [venue.cancel(order.id) for order in venue.book.open_orders]
    return 207, [{"id": order.id, "status": 200} for order in canceled]


def _order(venue: Venue, request: Request) -> Order:
    order_id = request.path_params["order_id"]
    order = venue.book.orders.get(order_id.lower())
    if order is None:
        raise Refused(404, 40410000, f"order not found for {order_id}")
    return order


# Market data


def bars(venue: Venue, request: Request, _body: bytes) -> Answer:
    query = request.query_params
    frame = TIMEFRAMES.get(query.get("timeframe", ""))
    if frame is None:
        raise Refused(400, 40010000, f"timeframe must be one of {', '.join(TIMEFRAMES)}, was {query.get('timeframe')!r}")
    if query.get("adjustment", "raw") != "raw":
        raise Refused(400, 40010000, f"adjustment must be raw, this exchange serves raw bars only, was {query['adjustment']!r}")
    if _choice(request, "sort", ("asc", "desc")) != "asc":
        raise Refused(400, 40010000, "sort must be asc, was 'desc'")
    start = parse_moment(query["start"], "start") if query.get("start") else new_york_midnight(venue.today)
    end = parse_moment(query["end"], "end", end_of_day=True) if query.get("end") else venue.now
    recorded = venue.tape.daily_bars if frame == "day" else venue.tape.minute_bars

    def of(symbol: str) -> Sequence[Bar]:
        return recorded(symbol, start=start, end=end, now=venue.now)

    page, token = _bars_page(_symbols(request), of, limit=_limit(request, default=1000, most=PAGE), after=query.get("page_token"))
    return 200, {"bars": page, "next_page_token": token}


def _bars_page(
    symbols: Iterable[str], of: Callable[[str], Sequence[Bar]], *, limit: int, after: str | None
) -> tuple[dict[str, list[wire.Json]], str | None]:
    """At most `limit` bars by symbol, then time; `after` and the token that is returned name the last bar of a page."""
    last_symbol, last_start = _bars_position(after)
    page: dict[str, list[wire.Json]] = {}
    last: tuple[str, Bar] | None = None
    for symbol in sorted(symbols):
        if symbol < last_symbol:
            continue
        rows = of(symbol)
        if symbol == last_symbol:
            rows = [bar for bar in rows if bar.start > last_start]
        if rows and limit == 0 and last is not None:
            return page, page_token(f"{last[0]}|{wire.utc(last[1].start)}")
        taken = rows[:limit]
        if taken:
            page[symbol] = [wire.bar_json(bar) for bar in taken]
            last = symbol, taken[-1]
            limit -= len(taken)
        if len(taken) < len(rows) and last is not None:
            return page, page_token(f"{last[0]}|{wire.utc(last[1].start)}")
    return page, None


def _bars_position(token: str | None) -> tuple[str, datetime]:
    if not token:
        return "", datetime.min.replace(tzinfo=UTC)
    symbol, separator, start = parse_page_token(token).partition("|")
    if not separator:
        raise Refused(400, 40010000, f"page_token is invalid, was {token!r}")
    return symbol, parse_moment(start, "page_token")


def latest_bars(venue: Venue, request: Request, _body: bytes) -> Answer:
    start = new_york_midnight(venue.today)
    latest = {symbol: venue.tape.minute_bars(symbol, start=start, end=venue.now, now=venue.now) for symbol in _symbols(request)}
    return 200, {"bars": {symbol: wire.bar_json(rows[-1]) for symbol, rows in latest.items() if rows}}


def latest_quotes(venue: Venue, request: Request, _body: bytes) -> Answer:
    known = [symbol for symbol in _symbols(request) if symbol in venue.tape.symbols]
    quotes = {symbol: venue.tape.quote(symbol, venue.now) for symbol in known}
    return 200, {"quotes": {symbol: wire.quote_json(symbol, quote) for symbol, quote in quotes.items() if quote is not None}}


def latest_trades(venue: Venue, request: Request, _body: bytes) -> Answer:
    trades = {symbol: venue.last_trade(symbol) for symbol in _symbols(request) if symbol in venue.tape.symbols}
    return 200, {"trades": {symbol: wire.trade_json(symbol, trade) for symbol, trade in trades.items() if trade is not None}}


def corporate_actions(venue: Venue, request: Request, _body: bytes) -> Answer:
    query = request.query_params
    start, end = (_date_of(request, name) or venue.today for name in ("start", "end"))
    symbols = _symbols(request) if query.get("symbols") else venue.tape.symbols
    types = set(query["types"].split(",")) if query.get("types") else None
    listed = [wire.action_json(a) for a in venue.tape.actions_between(start=start, end=end, now=venue.now) if a.symbol in symbols]
    if _choice(request, "sort", ("asc", "desc")) == "desc":
        listed.reverse()
    wanted = [(kind, action) for kind, action in listed if types is None or kind.removesuffix("s") in types]
    offset = _offset(query.get("page_token"))
    limit = _limit(request, default=100, most=ACTIONS_PAGE)
    page: dict[str, list[wire.Json]] = {}
    for kind, action in wanted[offset : offset + limit]:
        page.setdefault(kind, []).append(action)
    more = offset + limit < len(wanted)
    return 200, {"corporate_actions": page, "next_page_token": page_token(str(offset + limit)) if more else None}


def _offset(token: str | None) -> int:
    text = parse_page_token(token) if token else "0"
    if not text.isascii() or not text.isdigit():
        raise Refused(400, 40010000, f"page_token is invalid, was {token!r}")
    return int(text)


def news(_venue: Venue, _request: Request, _body: bytes) -> Answer:
    return 200, {"news": [], "next_page_token": None}


# Administration


def move_clock(venue: Venue, _request: Request, body: bytes) -> Answer:
    venue.advance(_moment_in(parse_json(body), venue))
    return 200, {"now": wire.utc(venue.now), "is_open": venue.is_open}


def books(venue: Venue, request: Request, _body: bytes) -> Answer:
    since = request.query_params.get("since")
    return 200, wire.books_json(venue, since=parse_moment(since, "since") if since else None)


def reset(venue: Venue, _request: Request, body: bytes) -> Answer:
    document = parse_json(body)
    cash = parse_decimal(document["cash"], "cash") if "cash" in document else venue.initial_cash
    venue.reset(cash=Decimal(cash), now=_moment_in(document, venue))
    return 200, wire.books_json(venue, since=None)


def _moment_in(document: wire.Json, venue: Venue) -> datetime:
    now = document.get("now")
    if not isinstance(now, str):
        raise Refused(400, 40010000, f"now must be an RFC 3339 time, was {now!r}")
    moment = parse_moment(now, "now")
    first, last = venue.calendar.sessions[0].open, venue.calendar.sessions[-1].open
    if not first <= moment < last:
        raise Refused(400, 40010000, f"now must lie between {wire.utc(first)} and {wire.utc(last)}, was {now}")
    return moment


# Query parameters


def _choice(request: Request, name: str, allowed: Sequence[str]) -> str:
    """The parameter's value; the first of `allowed` when it is absent."""
    value = request.query_params.get(name) or allowed[0]
    if value not in allowed:
        raise Refused(422, 40010001, f"{name} must be one of {', '.join(allowed)}, was {value!r}")
    return value


def _limit(request: Request, *, default: int, most: int) -> int:
    text = request.query_params.get("limit")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise Refused(400, 40010000, f"limit must be a whole number from 1 to {most}, was {text!r}")
    return int(text)


def _symbols(request: Request) -> list[str]:
    names = [name for name in request.query_params.get("symbols", "").split(",") if name]
    if not names:
        raise Refused(400, 40010000, "symbols is required")
    return names


def _date_of(request: Request, name: str) -> date | None:
    text = request.query_params.get(name)
    return parse_date(text, name) if text else None


def _symbol_of(venue: Venue, symbol_or_id: str) -> str | None:
    if symbol_or_id in venue.tape.symbols:
        return symbol_or_id
    return next((symbol for symbol in venue.tape.symbols if wire.asset_id(symbol) == symbol_or_id.lower()), None)
