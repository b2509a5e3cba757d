"""The routes of `/admin`, no part of the vendor's API: clock, reset, fault plan, and the books without any fault of the view."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

from starlette.requests import Request

from local.exchange.faults.plan import FaultPlan, FaultPlanError
from local.exchange.http import wire
from local.exchange.http.parsing import parse_decimal, parse_json, parse_moment
from local.exchange.http.wire import Answer
from local.exchange.orders import Refused
from local.exchange.venue import Venue

CLOCK, STREAMS = "papertape.clock", "papertape.streams"
TEST_SYMBOL = "FAKEPACA"
FASTEST, MOST_PER_SECOND = 100_000, 100_000


def move_clock(venue: Venue, request: Request, body: bytes) -> Answer:
    document = parse_json(body)
    speed = _speed_in(document) if "speed" in document else None
    if speed is None or "now" in document:
        venue.advance(_moment_in(document, venue))
    answer = {"now": wire.utc(venue.now), "is_open": venue.is_open}
    if speed is None:
        return 200, answer
    clock = _part_of_the_process(request, CLOCK)
    clock.run(speed)
    return 200, {**answer, "speed": speed}


def push_quotes(_venue: Venue, request: Request, body: bytes) -> Answer:
    """Invented quotes into the market-data stream, at a pace that a listener has to bear."""
    document = parse_json(body)
    symbols, pace, seconds = document.get("symbols", [TEST_SYMBOL]), document.get("per_second"), document.get("seconds")
    if not isinstance(symbols, list) or not symbols or not all(isinstance(symbol, str) for symbol in symbols):
        raise Refused(400, 40010000, f"symbols must be a list of names, was {symbols!r}")
    if not isinstance(pace, int) or isinstance(pace, bool) or not 1 <= pace <= MOST_PER_SECOND:
        raise Refused(400, 40010000, f"per_second must be a whole number from 1 to {MOST_PER_SECOND}, was {pace!r}")
    if not isinstance(seconds, int | Decimal) or not 0 < seconds <= 3_600:
        raise Refused(400, 40010000, f"seconds must be a number above 0, at most 3600, was {seconds}")
    try:
        return 200, {"quotes": _part_of_the_process(request, STREAMS).push_quotes(symbols, per_second=pace, seconds=float(seconds))}
    except LookupError as error:
        raise Refused(400, 40010000, f"symbols must have a price: {error.args[0]}") from error


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


def _speed_in(document: wire.Json) -> float:
    speed = document["speed"]
    if isinstance(speed, bool) or not isinstance(speed, int | Decimal) or not 0 <= speed <= FASTEST:
        raise Refused(400, 40010000, f"speed must be a number from 0 to {FASTEST}, was {speed}")
    return float(speed)


def _part_of_the_process(request: Request, name: str) -> Any:
    """The clock or the streams, which an exchange without a process of its own has not."""
    part = request.scope.get("extensions", {}).get(name)
    if part is None:
        raise Refused(501, 50110000, f"{request.url.path} as asked needs an exchange that runs as a process of its own")
    return part


def _moment_in(document: wire.Json, venue: Venue) -> datetime:
    now = document.get("now")
    if not isinstance(now, str):
        raise Refused(400, 40010000, f"now must be an RFC 3339 time, was {now!r}")
    moment = parse_moment(now, "now")
    first, last = venue.calendar.sessions[0].open, venue.calendar.sessions[-1].open
    if not first <= moment < last:
        raise Refused(400, 40010000, f"now must lie between {wire.utc(first)} and {wire.utc(last)}, was {now}")
    return moment
