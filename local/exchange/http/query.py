"""What the query of a request says: choices, limits, dates, symbols and pages.

Promise: a parameter that is not understood is `Refused` with its name, its value and what is allowed. One that the vendor has and this
exchange does not know is ignored only where it could not change the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from starlette.requests import Request

from local.exchange.http.listings import asset_id
from local.exchange.http.parsing import parse_date, parse_page_token
from local.exchange.orders import Refused
from local.exchange.recorded_market import RecordedMarket

FEEDS = ("sip", "iex", "otc", "boats", "delayed_sip", "overnight")
TRUE, FALSE = ("true", "1"), ("false", "0", "")


def choice(request: Request, name: str, allowed: Sequence[str]) -> str:
    """The parameter's value; the first of `allowed` when it is absent."""
    value = request.query_params.get(name) or allowed[0]
    if value not in allowed:
        raise Refused(422, 40010001, f"{name} must be one of {', '.join(allowed)}, was {value!r}")
    return value


def limit(request: Request, name: str = "limit", *, default: int, most: int) -> int:
    text = request.query_params.get(name)
    if not text:
        return default
    if not _is_number(text) or not 1 <= int(text) <= most:
        raise Refused(400, 40010000, f"{name} must be a whole number from 1 to {most}, was {text!r}")
    return int(text)


def flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "").lower()
    if value not in TRUE + FALSE:
        raise Refused(422, 40010001, f"{name} must be true or false, was {value!r}")
    return value in TRUE


def words(request: Request, name: str) -> list[str]:
    """A list with commas; empty when it is absent."""
    return [word for word in request.query_params.get(name, "").split(",") if word]


def symbols(request: Request) -> list[str]:
    names = words(request, "symbols")
    if not names:
        raise Refused(400, 40010000, "symbols is required")
    return names


def day(request: Request, name: str) -> date | None:
    text = request.query_params.get(name)
    return parse_date(text, name) if text else None


def offset(token: str | None) -> int:
    text = parse_page_token(token) if token else "0"
    if not _is_number(text):
        raise Refused(400, 40010000, f"page_token is invalid, was {token!r}")
    return int(text)


def require_recorded(request: Request) -> None:
    """There is one recording, in US dollars; it stands for any of the vendor's feeds."""
    currency, feed = request.query_params.get("currency") or "USD", request.query_params.get("feed") or "sip"
    if currency != "USD":
        raise Refused(400, 40010000, f"currency must be USD, was {currency!r}")
    if feed not in FEEDS:
        raise Refused(400, 40010000, f"feed must be one of {', '.join(FEEDS)}, was {feed!r}")


def symbol_of(market: RecordedMarket, symbol_or_id: str) -> str | None:
    if symbol_or_id in market.symbols:
        return symbol_or_id
    return next((symbol for symbol in market.symbols if asset_id(symbol) == symbol_or_id.lower()), None)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
