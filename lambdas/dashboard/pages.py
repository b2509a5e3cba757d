"""From a view model to a fragment of HTML: one template engine that escapes everything, and the words and numbers of every page.

Money is in US dollars, shares of equity are percent, times are New York's. A value that a template names and nobody gave raises jinja2's
UndefinedError; what is unknown is shown as a dash, never as 0.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from aws_lambda_powertools.event_handler import Response

from lambdas.dashboard.request import PageRequest
from schema.exchange_time import NEW_YORK, parse_utc

UNKNOWN = "–"
Number = Decimal | float | int | str | None


def page(template: str, request: PageRequest, **values: Any) -> Response[str]:
    """The fragment from a template of this folder; every template has `may`, the scopes of who asks, and `now`."""
    body = _environment().get_template(template).render(may=request.principal.scopes, now=request.now, **values)
    return Response(status_code=200, content_type="text/html; charset=utf-8", body=body)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "money": money, "dollars": dollars, "signed": signed, "percent": percent, "gain": gain, "shares": shares, "number": number,
        "moment": moment, "day": day, "direction": direction, "plain": plain_word,
    }  # fmt: skip
    return environment


def money(value: Number) -> str:
    """ "$1,234.50", "−$1,234.50"."""
    amount = _decimal(value)
    return UNKNOWN if amount is None else f"{'−' if amount < 0 else ''}${abs(amount):,.2f}"


def dollars(value: Number) -> str:
    """Whole dollars."""
    amount = _decimal(value)
    return UNKNOWN if amount is None else f"{'−' if round(amount) < 0 else ''}${abs(amount):,.0f}"


def signed(value: Number) -> str:
    """Dollars with their sign, so that colour is not the only carrier of gain and loss."""
    amount = _decimal(value)
    return UNKNOWN if amount is None else f"{'−' if amount < 0 else '+'}${abs(amount):,.2f}"


def percent(value: Number, digits: int = 1) -> str:
    """A share as percent."""
    amount = _decimal(value)
    return UNKNOWN if amount is None else f"{'−' if amount < 0 else ''}{abs(amount) * 100:,.{digits}f} %"


def gain(value: Number, digits: int = 2) -> str:
    """A share as percent, with its sign."""
    amount = _decimal(value)
    return UNKNOWN if amount is None else f"{'−' if amount < 0 else '+'}{abs(amount) * 100:,.{digits}f} %"


def shares(value: Number) -> str:
    amount = _decimal(value)
    return UNKNOWN if amount is None else f"{amount:,.4f}".rstrip("0").rstrip(".")


def number(value: Number, digits: int = 2) -> str:
    amount = _decimal(value)
    return UNKNOWN if amount is None else f"{'−' if amount < 0 else ''}{abs(amount):,.{digits}f}"


def moment(value: str | None) -> str:
    """An instant (ISO 8601 UTC) as New York's date and time."""
    return UNKNOWN if not value else f"{parse_utc(value).astimezone(NEW_YORK):%a %Y-%m-%d %H:%M}"


def day(value: str | date | None) -> str:
    return UNKNOWN if not value else f"{date.fromisoformat(str(value)[:10]):%a %Y-%m-%d}"


def direction(value: Number) -> str:
    """The class of a number that is a gain or a loss."""
    amount = _decimal(value)
    return "" if amount is None or amount == 0 else "gain" if amount > 0 else "loss"


def plain_word(value: object) -> str:
    """ "reduce_only" as "reduce only"."""
    return UNKNOWN if value is None else str(value).replace("_", " ")


def _decimal(value: Number) -> Decimal | None:
    if value is None:
        return None
    amount = value if isinstance(value, Decimal) else Decimal(str(value))
    return amount if amount.is_finite() else None
