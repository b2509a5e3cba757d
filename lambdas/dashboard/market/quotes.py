"""The last quotes that the lake has: those of the newest minute, or slot of the stream, of the newest day that has any.

Promise: bid, ask and time are the feed's; a mid is known only of a quote that is not zero or crossed. Failure: the lake's.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from lambdas.common.lake.lake import Lake
from schema.exchange_time import new_york_date, parse_utc

LOOK_BACK = 5  # days: longer than the exchange is usually closed


class LastQuote(BaseModel):
    """Dollars; `spread_bp`: ask less bid over their mid, in basis points; `time` of the quote, ISO 8601 UTC."""

    symbol: str
    bid: float
    ask: float
    mid: float | None
    spread_bp: float | None
    time: str


def last_quotes(lake: Lake, *, now: str) -> dict[str, LastQuote]:
    """By name, as of the market's time `now`; a name without a quote in that minute or slot is not in it."""
    today = new_york_date(parse_utc(now))
    for back in range(LOOK_BACK):
        newest = lake.newest_quotes(day=today - timedelta(days=back))
        if newest:
            return {symbol: _quote(row) for symbol, row in newest.items()}
    return {}


def _quote(row: dict[str, Any]) -> LastQuote:
    bid, ask = float(row["bid"]), float(row["ask"])
    mid = (bid + ask) / 2 if 0 < bid <= ask else None
    spread = None if mid is None else (ask - bid) / mid * 1e4
    return LastQuote(symbol=row["symbol"], bid=bid, ask=ask, mid=mid, spread_bp=spread, time=row["ts"])
