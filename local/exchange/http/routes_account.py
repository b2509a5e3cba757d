"""The clock, the calendar, the account as it stands, the assets and the positions."""

from __future__ import annotations

from starlette.requests import Request

from local.exchange.http import query, wire_account
from local.exchange.http.wire import Answer, Json
from local.exchange.orders import Refused
from local.exchange.venue import Venue


def clock(venue: Venue, _request: Request, _body: bytes) -> Answer:
    return 200, wire_account.clock_json(venue)


def calendar(venue: Venue, request: Request, _body: bytes) -> Answer:
    """Sessions by their date, or with `date_type` SETTLEMENT by the day on which their trades settle."""
    start, end = (query.day(request, name) for name in ("start", "end"))
    if query.choice(request, "date_type", ("TRADING", "SETTLEMENT")) == "TRADING":
        return 200, [wire_account.session_json(session, venue.calendar) for session in venue.calendar.between(start, end)]
    days = [(venue.calendar.settlement(session), session) for session in venue.calendar.between(None, end)]
    settling = [session for day, session in days if (start is None or day >= start) and (end is None or day <= end)]
    return 200, [wire_account.session_json(session, venue.calendar) for session in settling]


def account(venue: Venue, _request: Request, _body: bytes) -> Answer:
    return 200, wire_account.account_json(venue)


def assets(venue: Venue, request: Request, _body: bytes) -> Answer:
    asked = request.query_params
    if asked.get("status", "active") == "inactive" or asked.get("asset_class", "us_equity") != "us_equity" or asked.get("attributes"):
        return 200, []
    listed = [asset_of(venue, symbol) for symbol in venue.market.symbols]
    return 200, [item for item in listed if asked.get("exchange") in (None, item["exchange"])]


def asset(venue: Venue, request: Request, _body: bytes) -> Answer:
    symbol = query.symbol_of(venue.market, request.path_params["asset"])
    if symbol is None:
        raise Refused(404, 40410000, f"asset not found for {request.path_params['asset']}")
    return 200, asset_of(venue, symbol)


def positions(venue: Venue, _request: Request, _body: bytes) -> Answer:
    return 200, [wire_account.position_json(venue, symbol, held) for symbol, held in sorted(venue.positions.items())]


def position(venue: Venue, request: Request, _body: bytes) -> Answer:
    symbol = query.symbol_of(venue.market, request.path_params["asset"])
    held = venue.positions.get(symbol) if symbol is not None else None
    if symbol is None or held is None:
        raise Refused(404, 40410000, "position does not exist")
    return 200, wire_account.position_json(venue, symbol, held)


def asset_of(venue: Venue, symbol: str) -> Json:
    return wire_account.asset_json(symbol, tradable=venue.tradable(symbol), fractionable=venue.fractionable(symbol))
