"""What a request may say: times, numbers, pages and choices, read from text without a float in between.

Promise: what is not understood is turned down with `Refused`, which names the field, its value and what is allowed, with the status and
code that the vendor uses. Nothing is guessed, and nothing that arrives can raise anything else.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from local.exchange.money import QUANTUM, RATIOS
from local.exchange.orders import Refused
from local.exchange.sessions import NEW_YORK, new_york_midnight

Json = dict[str, Any]

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


def parse_moment(text: str, name: str, *, end_of_day: bool = False) -> datetime:
    """RFC 3339 or YYYY-MM-DD, which is that day in New York; no zone is UTC, as the vendor's client sends it."""
    try:
        if len(text) == len("YYYY-MM-DD"):
            day = date.fromisoformat(text)
            return new_york_midnight(day + timedelta(days=1)) - timedelta(microseconds=1) if end_of_day else new_york_midnight(day)
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Refused(400, 40010000, f"{name} must be RFC 3339 or YYYY-MM-DD, was {text!r}") from error


def parse_date(text: str, name: str) -> date:
    return parse_moment(text, name).astimezone(NEW_YORK).date() if len(text) == len("YYYY-MM-DD") else parse_moment(text, name).date()


def parse_decimal(value: object, name: str) -> Decimal:
    """A finite number above zero, as a JSON number or string, with at most nine decimals."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal) or (isinstance(value, str) and not NUMBER.fullmatch(value)):
        raise Refused(422, 40010001, f"{name} must be a number, was {value!r}")
    number = Decimal(value)
    if not number.is_finite() or not 0 < number < Decimal("1e15"):
        raise Refused(422, 40010001, f"{name} must be above 0 and below 1e15, was {value}")
    if number.quantize(QUANTUM, context=RATIOS) != number:
        raise Refused(422, 40010001, f"{name} is limited to 9 decimal places, was {value}")
    return number


def parse_json(body: bytes) -> Json:
    """A JSON object with `Decimal` for every fraction; NaN and Infinity are not JSON."""
    try:
        document = json.loads(body, parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(400, 40010000, "request body format is invalid") from error
    if not isinstance(document, dict):
        raise Refused(400, 40010000, "request body format is invalid")
    return document


def _no_constant(name: str) -> Decimal:
    raise ValueError(f"{name} is not JSON")


def page_token(position: str) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode()


def parse_page_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise Refused(400, 40010000, f"page_token is invalid, was {token!r}") from error


def require_known(document: Json, fields: set[str]) -> None:
    """Raise `Refused` for a field that would be passed over."""
    unknown = sorted(key for key in document.keys() - fields if document[key] is not None)
    if unknown:
        raise Refused(422, 40010001, f"{', '.join(unknown)}: not supported by this exchange")


def require(document: Json, name: str, allowed: set[Any]) -> Any:
    """The field, which is one of `allowed`."""
    value = document.get(name)
    if not isinstance(value, str | bool | None) or value not in allowed:
        readable = ", ".join(sorted(repr(choice) for choice in allowed if choice is not None and choice != ""))
        raise Refused(422, 40010001, f"{name} must be one of {readable}, was {value!r}")
    return value


def number_in(document: Json, name: str) -> Decimal | None:
    value = document.get(name)
    return None if value is None else parse_decimal(value, name)
