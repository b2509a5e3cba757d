"""Alpaca's wire format: how orders, refusals and the exchange's own books are printed, and numbers and times anywhere.

Money and quantities are printed in full, as strings. Accounts are printed in `wire_account.py`, market data in `wire_market.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from local.exchange.http.listings import asset_id
from local.exchange.money import RATIOS, SHOWN, plain
from local.exchange.orders import ExchangeFill, ExchangeOrder, Refused, Side, Status
from local.exchange.rules.stops import stop_price
from local.exchange.sessions import NEW_YORK
from local.exchange.venue import Venue

Json = dict[str, Any]
Answer = tuple[int, Any]
BOOK_FIELDS = (
    "id",
    "client_order_id",
    "symbol",
    "side",
    "type",
    "qty",
    "notional",
    "limit_price",
    "status",
    "submitted_at",
    "updated_at",
    "filled_qty",
    "filled_avg_price",
)


def dumps(content: object) -> str:
    """Compact JSON; NaN and infinity are a `ValueError`."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


# Numbers and times


def shown(number: Decimal) -> str:
    """A ratio or an average, to ten decimals: shown, never reckoned with."""
    return plain(number.quantize(SHOWN, context=RATIOS))


def utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def eastern(moment: datetime) -> str:
    return moment.astimezone(NEW_YORK).isoformat()


# Orders


def order_json(order: ExchangeOrder, *, legs: Sequence[ExchangeOrder] = ()) -> Json:
    """An order, with its `legs` where they are to be shown."""
    ticket = order.ticket
    ended = utc(order.ended_at) if order.ended_at is not None else None
    notional = ticket.notional
    return {
        "id": order.id,
        "client_order_id": order.client_order_id,
        "created_at": utc(order.submitted_at),
        "updated_at": utc(order.updated_at),
        "submitted_at": utc(order.submitted_at),
        "filled_at": ended if order.status is Status.FILLED else None,
        "expired_at": ended if order.status is Status.EXPIRED else None,
        "canceled_at": ended if order.status is Status.CANCELED else None,
        "failed_at": ended if order.status is Status.REJECTED else None,
        "replaced_at": ended if order.status is Status.REPLACED else None,
        "replaced_by": order.replaced_by,
        "replaces": order.replaces,
        "asset_id": asset_id(ticket.symbol),
        "symbol": ticket.symbol,
        "asset_class": "us_equity",
        "notional": plain(notional) if notional is not None else None,
        "qty": plain(ticket.quantity) if notional is None and ticket.quantity is not None else None,
        "filled_qty": plain(order.filled_quantity),
        "filled_avg_price": plain(order.filled_price) if order.filled_price is not None else None,
        "order_class": ticket.order_class.value,
        "order_type": ticket.kind.value,
        "type": ticket.kind.value,
        "side": ticket.side.value,
        "time_in_force": ticket.time_in_force.value,
        "limit_price": _price(ticket.limit_price),
        "stop_price": _price(stop_price(order)),
        "status": order.shown_status,
        "extended_hours": ticket.extended_hours,
        "legs": [order_json(leg) for leg in legs] or None,
        "trail_percent": _price(ticket.trail_percent),
        "trail_price": _price(ticket.trail_price),
        "hwm": _price(order.high_water),
        "position_intent": "buy_to_open" if ticket.side is Side.BUY else "sell_to_close",
        "expires_at": utc(order.expires_at),
    }


def _price(price: Decimal | None) -> str | None:
    return plain(price) if price is not None else None


def error_json(refused: Refused) -> Mapping[str, Any]:
    code = {} if refused.code is None else {"code": refused.code}
    return {**code, "message": refused.message, **refused.details}


# The exchange's own books


class Printed(str):
    """JSON that is already text."""

    __slots__ = ()


def books_json(venue: Venue, *, since: datetime | None) -> Printed:
    """The exchange's own books; `since` leaves out orders and fills that were last touched before it."""
    book = venue.book
    summary = {
        "now": utc(venue.now),
        "cash": plain(book.cash),
        "equity": plain(venue.equity),
        "positions": {symbol: plain(held.quantity) for symbol, held in sorted(book.positions.items())},
        "counts": {"orders": len(book.orders), "fills": len(book.fills), "refused": book.refused, "duplicates": book.duplicates},
    }
    if venue.market.minutes == "made":
        summary |= {"minutes": venue.market.minutes_label}
    if venue.faulted:
        summary |= {"faults": dict(sorted(venue.fault_sampler.counts.items())), "accepted": venue.accepted}
    orders = ",".join(_order_line(order) for order in book.orders.values() if since is None or order.updated_at >= since)
    fills = ",".join(_fill_line(fill) for fill in book.fills if since is None or fill.at >= since)
    return Printed(f'{dumps(summary)[:-1]},"orders":[{orders}],"fills":[{fills}]}}')


# A year's books are read after every session: what has been printed once is kept.


@lru_cache(maxsize=100_000)
def _order_line(order: ExchangeOrder) -> str:
    full = order_json(order)
    return dumps({name: full[name] for name in BOOK_FIELDS})


@lru_cache(maxsize=100_000)
def _fill_line(fill: ExchangeFill) -> str:
    return dumps(
        {
            "id": fill.id,
            "order_id": fill.order_id,
            "client_order_id": fill.client_order_id,
            "symbol": fill.symbol,
            "side": fill.side.value,
            "quantity": plain(fill.quantity),
            "price": plain(fill.price),
            "fee": plain(fill.fee),
            "at": utc(fill.at),
        }
    )
