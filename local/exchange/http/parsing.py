"""What a request may say: times, numbers, pages and orders, read from text without a float in between.

Promise: what is not understood is turned down with `Refused`, which names the field, its value and what is allowed, with the status and
code that the vendor uses. Nothing is guessed, and nothing that arrives can raise anything else.
"""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from local.exchange.money import QUANTUM, RATIOS
from local.exchange.orders import Changes, OrderType, Refused, Side, Ticket, TimeInForce
from local.exchange.replacing import require_day_for_fractions
from local.exchange.sessions import NEW_YORK, new_york_midnight

Json = dict[str, Any]

ORDER_FIELDS = {
    "symbol",
    "qty",
    "notional",
    "side",
    "type",
    "time_in_force",
    "limit_price",
    "client_order_id",
    "extended_hours",
    "order_class",
    "position_intent",
}
CHANGE_FIELDS = {"qty", "limit_price", "time_in_force", "client_order_id"}


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
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal) or (isinstance(value, str) and not value.isascii()):
        raise Refused(422, 40010001, f"{name} must be a number, was {value!r}")
    try:
        number = Decimal(value)
    except InvalidOperation as error:
        raise Refused(422, 40010001, f"{name} must be a number, was {value!r}") from error
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


def parse_ticket(document: Json) -> Ticket:
    """An order request as a ticket. Raises `Refused` (422) for whatever this exchange, or the vendor, does not take."""
    _require_known(document, ORDER_FIELDS)
    _require(document, "order_class", {None, "", "simple"})
    _require(document, "extended_hours", {None, False})
    time_in_force = TimeInForce(_require(document, "time_in_force", {word.value for word in TimeInForce}))
    side = Side(_require(document, "side", {side.value for side in Side}))
    kind = OrderType(_require(document, "type", {kind.value for kind in OrderType}))
    _require(document, "position_intent", {None, "buy_to_open" if side is Side.BUY else "sell_to_close"})
    symbol = document.get("symbol")
    if not isinstance(symbol, str) or not symbol:
        raise Refused(422, 40010001, f"symbol is required, was {symbol!r}")
    quantity, notional, limit_price = (_number(document, name) for name in ("qty", "notional", "limit_price"))
    _require_one_size(quantity, notional)
    _require_limit(kind, quantity, notional, limit_price)
    ticket = Ticket(
        symbol=symbol,
        side=side,
        kind=kind,
        quantity=quantity,
        notional=notional,
        limit_price=limit_price,
        time_in_force=time_in_force,
        client_order_id=_client_order_id(document),
    )
    require_day_for_fractions(ticket)
    return ticket


def parse_changes(document: Json) -> Changes:
    """What a replacement asks for. Raises `Refused` (422)."""
    _require_known(document, CHANGE_FIELDS)
    word = _require(document, "time_in_force", {None, *(word.value for word in TimeInForce)})
    return Changes(
        quantity=_number(document, "qty"),
        limit_price=_number(document, "limit_price"),
        time_in_force=TimeInForce(word) if word is not None else None,
        client_order_id=_client_order_id(document),
    )


def _require_known(document: Json, fields: set[str]) -> None:
    unknown = sorted(key for key in document.keys() - fields if document[key] is not None)
    if unknown:
        raise Refused(422, 40010001, f"{', '.join(unknown)}: not supported by this exchange")


def _require(document: Json, name: str, allowed: set[Any]) -> Any:
    value = document.get(name)
    if not isinstance(value, str | bool | None) or value not in allowed:
        readable = ", ".join(sorted(repr(choice) for choice in allowed if choice is not None and choice != ""))
        raise Refused(422, 40010001, f"{name} must be one of {readable}, was {value!r}")
    return value


def _number(document: Json, name: str) -> Decimal | None:
    value = document.get(name)
    return None if value is None else parse_decimal(value, name)


def _require_one_size(quantity: Decimal | None, notional: Decimal | None) -> None:
    if quantity is None and notional is None:
        raise Refused(422, 40010001, "qty or notional is required")
    if quantity is not None and notional is not None:
        raise Refused(422, 40010001, "only one of qty or notional is accepted")
    if notional is not None and notional < 1:
        raise Refused(422, 40010001, f"notional must be at least 1, was {notional}")


def _require_limit(kind: OrderType, quantity: Decimal | None, notional: Decimal | None, limit_price: Decimal | None) -> None:
    if kind is OrderType.MARKET and limit_price is not None:
        raise Refused(422, 40010001, "market orders require no stop or limit price")
    if kind is OrderType.LIMIT:
        if limit_price is None:
            raise Refused(422, 40010001, "limit orders require a limit price")
        if notional is not None or quantity is None or quantity != int(quantity):
            raise Refused(422, 42210000, "fractional orders must be market orders")


def _client_order_id(document: Json) -> str | None:
    value = document.get("client_order_id")
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 128:
        raise Refused(422, 40010001, f"client_order_id must be a string of at most 128 characters, was {value!r}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise Refused(422, 40010001, f"client_order_id must be text, was {value!r}")
    return value
