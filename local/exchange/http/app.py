"""The exchange's routes: Alpaca's trading, market-data and news paths on one port, and `/admin` to move the clock.

Each answer is a pure function of the venue; a `Refused` becomes the vendor's error body. A path of Alpaca's that is not served answers
501 with its name, so that a missing route is never mistaken for a missing order. `/admin` is not part of the vendor's API and asks for
no key: the server listens on loopback only.

| Path | Methods |
|--|--|
| /v2/clock, /v2/calendar, /v2/account, /v2/assets[/{symbol or id}] | GET |
| /v2/account/configurations | GET, PATCH |
| /v2/watchlists, /v2/watchlists:by_name, /v2/watchlists/{id}[/{symbol}] | GET, POST, PUT, DELETE |
| /v2/corporate_actions/announcements[/{id}], /v1beta1/screener/stocks/{movers,most-actives} | GET |
| /v2/account/activities[/{type}], /v2/account/portfolio/history | GET |
| /v2/positions[/{symbol or id}] | GET, DELETE |
| /v2/orders | GET, POST, DELETE |
| /v2/orders/{id} | GET, PATCH, DELETE |
| /v2/orders:by_client_order_id | GET |
| /v2/stocks/{bars,quotes,trades}[/latest], /v2/stocks/snapshots (bars: every timeframe, adjusted or raw) | GET |
| /v2/stocks/{symbol}/{bars,quotes,trades}[/latest], /v2/stocks/{symbol}/snapshot | GET |
| /v1/corporate-actions, /v1beta1/news (invented, for the bundled bars alone) | GET |
| /admin/clock, /admin/reset, /admin/quotes | POST |
| /admin/books | GET |
| /admin/faults | GET, POST |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from local.exchange.faults.middleware import FaultMiddleware
from local.exchange.http import routes_account, routes_admin, routes_lists, routes_market, routes_orders, routes_past, wire
from local.exchange.http.guard import Guard
from local.exchange.http.orders.fills_after import FillsAfter
from local.exchange.http.rounding import as_vendor_prints
from local.exchange.http.wire import Answer
from local.exchange.orders import Refused
from local.exchange.venue import Venue

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST = 600

Handler = Callable[[Venue, Request, bytes], Answer]

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/v2/clock", routes_account.clock),
    ("GET", "/v2/calendar", routes_account.calendar),
    ("GET", "/v2/account", routes_account.account),
    ("GET", "/v2/account/configurations", routes_lists.configurations),
    ("PATCH", "/v2/account/configurations", routes_lists.configure),
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
    ("GET", "/v2/watchlists", routes_lists.watchlists),
    ("POST", "/v2/watchlists", routes_lists.new_watchlist),
    ("GET", "/v2/watchlists:by_name", routes_lists.watchlist),
    ("POST", "/v2/watchlists:by_name", routes_lists.watch_symbol),
    ("PUT", "/v2/watchlists:by_name", routes_lists.change_watchlist),
    ("DELETE", "/v2/watchlists:by_name", routes_lists.remove_watchlist),
    ("GET", "/v2/watchlists/{watchlist_id}", routes_lists.watchlist),
    ("POST", "/v2/watchlists/{watchlist_id}", routes_lists.watch_symbol),
    ("PUT", "/v2/watchlists/{watchlist_id}", routes_lists.change_watchlist),
    ("DELETE", "/v2/watchlists/{watchlist_id}", routes_lists.remove_watchlist),
    ("DELETE", "/v2/watchlists/{watchlist_id}/{symbol}", routes_lists.unwatch_symbol),
    ("GET", "/v2/corporate_actions/announcements", routes_lists.announcements),
    ("GET", "/v2/corporate_actions/announcements/{id}", routes_lists.announcement),
    ("GET", "/v1beta1/screener/stocks/most-actives", routes_lists.most_actives),
    ("GET", "/v1beta1/screener/{market_type}/movers", routes_lists.movers),
    ("GET", "/v1/corporate-actions", routes_market.corporate_actions),
    ("GET", "/v1beta1/news", routes_market.news),
)
ADMIN: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/admin/clock", routes_admin.move_clock),
    ("POST", "/admin/quotes", routes_admin.push_quotes),
    ("GET", "/admin/books", routes_admin.books),
    ("POST", "/admin/reset", routes_admin.reset),
    ("GET", "/admin/faults", routes_admin.fault_plan),
    ("POST", "/admin/faults", routes_admin.use_faults),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    key_id: str = "local-key"
    secret_key: str = "local-secret"  # noqa: S105 opens nothing but this exchange


def create_app(*, venue: Venue, keys: Keys) -> Guard:
    """The ASGI application over one venue."""
    served = [Route(path, _endpoint(venue, handler, keys=keys), methods=[method]) for method, path, handler in ROUTES]
    served += [Route(path, _endpoint(venue, handler, keys=None), methods=[method]) for method, path, handler in ADMIN]
    served += [
        Route(path, _endpoint(venue, not_allowed, keys=None), methods=METHODS) for path in dict.fromkeys(p for _, p, _ in (*ROUTES, *ADMIN))
    ]
    served.append(Route("/{path:path}", _endpoint(venue, not_served, keys=keys), methods=METHODS))
    return Guard(FaultMiddleware(FillsAfter(Router(routes=served), venue=venue), venue=venue))


def _endpoint(venue: Venue, handler: Handler, *, keys: Keys | None) -> Callable[[Request], Any]:
    async def respond(request: Request) -> Response:
        body = await request.body()
        counts = _counts(venue)
        try:
            if keys is not None:
                _authorize(request, keys)
            elif request.url.path.startswith("/admin"):
                _require_own_page(request)
            status, content = handler(venue, request, body)
        except Refused as refused:
            status, content = refused.status, wire.error_json(refused)
            content = {**content, "message": _shortened(content["message"])}
        if _counts(venue) != counts:
            venue.record({"counts": _counts(venue)})
        if content is None:
            return Response(status_code=status)
        if venue.book.rounded and keys is not None:
            content = as_vendor_prints(content)
        text = content if isinstance(content, wire.Printed) else wire.dumps(content)
        return Response(text, status_code=status, headers=_labels(venue, request), media_type="application/json")

    return respond


def _labels(venue: Venue, request: Request) -> dict[str, str]:
    """Prices that nobody recorded say so, where the vendor's JSON has no room for it."""
    made = venue.market.minutes == "made" and request.url.path.startswith("/v2/stocks")
    return {"X-Papertape-Minutes": venue.market.minutes_label} if made else {}


def _counts(venue: Venue) -> dict[str, int]:
    return {"refused": venue.book.refused, "duplicates": venue.book.duplicates}


def _shortened(message: str) -> str:
    """What was sent is repeated, but not a megabyte of it."""
    return message if len(message) <= LONGEST else f"{message[:LONGEST]}... ({len(message)} characters)"


def _require_own_page(request: Request) -> None:
    """A browser names the page that asks: one of another site may not move this clock."""
    origin = request.headers.get("origin")
    if (origin is not None and urlsplit(origin).hostname not in LOOPBACK) or request.headers.get("sec-fetch-site") == "cross-site":
        raise Refused(403, 40310000, f"/admin is not for pages of other sites, was asked by {origin}")


def _authorize(request: Request, keys: Keys) -> None:
    key_id, secret_key = request.headers.get("APCA-API-KEY-ID"), request.headers.get("APCA-API-SECRET-KEY")
    if not key_id or not secret_key:
        raise Refused(401, 40110000, "request is not authorized")
    if (key_id, secret_key) != (keys.key_id, keys.secret_key):
        raise Refused(403, None, "forbidden.")


def not_allowed(_venue: Venue, request: Request, _body: bytes) -> Answer:
    raise Refused(405, 40510000, f"{request.method} is not allowed for {request.url.path}")


def not_served(_venue: Venue, request: Request, _body: bytes) -> Answer:
    raise Refused(501, 50110000, f"{request.method} {request.url.path} is not served by this exchange")
