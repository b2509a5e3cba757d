"""The exchange's routes: Alpaca's trading, market-data and news paths on one port, and `/admin` to move the clock.

Each answer is a pure function of the venue; a `Refused` becomes the vendor's error body. A path of Alpaca's that is not served answers
501 with its name, so that a missing route is never mistaken for a missing order. `/admin` is not part of the vendor's API and asks for
no key: the server listens on loopback only.

| Path | Methods |
|--|--|
| /v2/clock, /v2/calendar, /v2/account, /v2/account/configurations, /v2/assets[/{symbol or id}] | GET |
| /v2/account/activities[/{type}], /v2/account/portfolio/history (1D) | GET |
| /v2/positions[/{symbol or id}] | GET, DELETE |
| /v2/orders | GET, POST, DELETE |
| /v2/orders/{id} | GET, PATCH, DELETE |
| /v2/orders:by_client_order_id | GET |
| /v2/stocks/{bars,quotes,trades}[/latest], /v2/stocks/snapshots (bars: 1Day, 1Min; raw) | GET |
| /v2/stocks/{symbol}/{bars,quotes,trades}[/latest], /v2/stocks/{symbol}/snapshot | GET |
| /v1/corporate-actions, /v1beta1/news (invented, for the bundled bars alone) | GET |
| /admin/clock, /admin/reset | POST |
| /admin/books | GET |
| /admin/faults | GET, POST |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.exchange.faults.middleware import FaultMiddleware
from local.exchange.http import routes_account, routes_admin, routes_market, routes_orders, routes_past, wire
from local.exchange.http.rounding import as_vendor_prints
from local.exchange.http.wire import Answer
from local.exchange.orders import Refused
from local.exchange.venue import Venue

Handler = Callable[[Venue, Request, bytes], Answer]

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/v2/clock", routes_account.clock),
    ("GET", "/v2/calendar", routes_account.calendar),
    ("GET", "/v2/account", routes_account.account),
    ("GET", "/v2/account/configurations", routes_account.configurations),
    ("GET", "/v2/account/activities", routes_past.activities),
    ("GET", "/v2/account/activities/{activity_type}", routes_past.activities_of_type),
    ("GET", "/v2/account/portfolio/history", routes_past.portfolio_history),
    ("GET", "/v2/assets", routes_account.assets),
    ("GET", "/v2/assets/{asset}", routes_account.asset),
    ("GET", "/v2/positions", routes_account.positions),
    ("DELETE", "/v2/positions", routes_orders.close_positions),
    ("GET", "/v2/positions/{asset}", routes_account.position),
    ("DELETE", "/v2/positions/{asset}", routes_orders.close_position),
    ("GET", "/v2/orders", routes_orders.list_orders),
    ("POST", "/v2/orders", routes_orders.submit_order),
    ("DELETE", "/v2/orders", routes_orders.cancel_orders),
    ("GET", "/v2/orders:by_client_order_id", routes_orders.order_by_client_id),
    ("GET", "/v2/orders/{order_id}", routes_orders.order_by_id),
    ("PATCH", "/v2/orders/{order_id}", routes_orders.replace_order),
    ("DELETE", "/v2/orders/{order_id}", routes_orders.cancel_order),
    ("GET", "/v2/stocks/bars", routes_market.bars),
    ("GET", "/v2/stocks/bars/latest", routes_market.latest_bars),
    ("GET", "/v2/stocks/quotes", routes_market.quotes),
    ("GET", "/v2/stocks/quotes/latest", routes_market.latest_quotes),
    ("GET", "/v2/stocks/trades", routes_market.trades),
    ("GET", "/v2/stocks/trades/latest", routes_market.latest_trades),
    ("GET", "/v2/stocks/snapshots", routes_market.snapshots),
    ("GET", "/v2/stocks/{symbol}/bars", routes_market.symbol_bars),
    ("GET", "/v2/stocks/{symbol}/bars/latest", routes_market.latest_bar),
    ("GET", "/v2/stocks/{symbol}/quotes", routes_market.symbol_quotes),
    ("GET", "/v2/stocks/{symbol}/quotes/latest", routes_market.latest_quote),
    ("GET", "/v2/stocks/{symbol}/trades", routes_market.symbol_trades),
    ("GET", "/v2/stocks/{symbol}/trades/latest", routes_market.latest_trade),
    ("GET", "/v2/stocks/{symbol}/snapshot", routes_market.snapshot),
    ("GET", "/v1/corporate-actions", routes_market.corporate_actions),
    ("GET", "/v1beta1/news", routes_market.news),
)
ADMIN: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/admin/clock", routes_admin.move_clock),
    ("GET", "/admin/books", routes_admin.books),
    ("POST", "/admin/reset", routes_admin.reset),
    ("GET", "/admin/faults", routes_admin.fault_plan),
    ("POST", "/admin/faults", routes_admin.use_faults),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    key_id: str = "local-key"
    secret_key: str = "local-secret"  # noqa: S105 opens nothing but this exchange


def create_app(*, venue: Venue, keys: Keys) -> FaultMiddleware:
    """The ASGI application over one venue."""
    served = [Route(path, _endpoint(venue, handler, keys=keys), methods=[method]) for method, path, handler in ROUTES]
    served += [Route(path, _endpoint(venue, handler, keys=None), methods=[method]) for method, path, handler in ADMIN]
    served.append(Route("/{path:path}", _endpoint(venue, not_served, keys=keys), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))
    return FaultMiddleware(Starlette(routes=served), venue=venue)


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
        if venue.book.rounded and keys is not None:
            content = as_vendor_prints(content)
        text = content if isinstance(content, wire.Printed) else wire.dumps(content)
        return Response(text, status_code=status, media_type="application/json")

    return respond


def _authorize(request: Request, keys: Keys) -> None:
    key_id, secret_key = request.headers.get("APCA-API-KEY-ID"), request.headers.get("APCA-API-SECRET-KEY")
    if not key_id or not secret_key:
        raise Refused(401, 40110000, "request is not authorized")
    if (key_id, secret_key) != (keys.key_id, keys.secret_key):
        raise Refused(403, None, "forbidden.")


def not_served(_venue: Venue, request: Request, _body: bytes) -> Answer:
    raise Refused(501, 50110000, f"{request.method} {request.url.path} is not served by this exchange")
