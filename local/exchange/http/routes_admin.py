"""The routes of `/admin`, no part of the vendor's API: clock, reset, fault plan, and the books without any fault of the view."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal

from starlette.requests import Request

from local.exchange.faults.plan import FaultPlan, FaultPlanError
from local.exchange.http import wire
from local.exchange.http.parsing import parse_decimal, parse_json, parse_moment
from local.exchange.http.wire import Answer
from local.exchange.orders import Refused
from local.exchange.venue import Venue


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


def fault_plan(venue: Venue, _request: Request, _body: bytes) -> Answer:
    return 200, {"plan": venue.plan.document(), "faults": dict(sorted(venue.fault_sampler.counts.items()))}


def use_faults(venue: Venue, request: Request, body: bytes) -> Answer:
    parse_json(body)
    try:
        venue.use_faults(FaultPlan.from_document(json.loads(body)))
    except FaultPlanError as error:
        raise Refused(400, 40010000, str(error)) from error
    return fault_plan(venue, request, body)


def _moment_in(document: wire.Json, venue: Venue) -> datetime:
    now = document.get("now")
    if not isinstance(now, str):
        raise Refused(400, 40010000, f"now must be an RFC 3339 time, was {now!r}")
    moment = parse_moment(now, "now")
    first, last = venue.calendar.sessions[0].open, venue.calendar.sessions[-1].open
    if not first <= moment < last:
        raise Refused(400, 40010000, f"now must lie between {wire.utc(first)} and {wire.utc(last)}, was {now}")
    return moment
