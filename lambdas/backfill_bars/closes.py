"""After the bars of an evening: what other sources say the last close was, beside the lake's, for health to judge.

Nothing here changes a bar, and a source that fails never fails the backfill: why it failed is what is written of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from schema.exchange_time import new_york_date, parse_utc
from schema.sections.data import CloseSourceName
from sources.port import PriceSource, SourceError

Make = Callable[[CloseSourceName], PriceSource]
#: A free key of Alpha Vantage has 25 calls a day; each evening another part of the names is asked for.
MOST = {"alphavantage": 20}


def closes_of(bars: Sequence[Mapping[str, Any]], session: date) -> dict[str, float]:
    """Symbol -> the lake's close of `session`."""
    return {row["symbol"]: float(row["close"]) for row in bars if new_york_date(parse_utc(row["ts"])) == session}


def compared(names: Sequence[CloseSourceName], *, make: Make, closes: Mapping[str, float], session: date) -> list[dict[str, Any]]:
    """A row per source: `source`, `pairs` of [symbol, lake's close, its own] of that session, and `failed`, why it has none."""
    return [_row(name, make=make, closes=closes, session=session) for name in names]


def _row(name: CloseSourceName, *, make: Make, closes: Mapping[str, float], session: date) -> dict[str, Any]:
    asked = _part(sorted(closes), most=MOST.get(name, len(closes)), session=session)
    try:
        prices = make(name).last_prices(asked)
    except SourceError as error:
        return {"source": name, "pairs": [], "failed": str(error)}
    own = {symbol: price.price for symbol, price in prices.items() if new_york_date(price.ts) == session}
    pairs = [[symbol, closes[symbol], own[symbol]] for symbol in asked if symbol in own]
    return {"source": name, "pairs": pairs, "failed": "" if pairs else f"{name} has no price of {session}"}


def _part(symbols: Sequence[str], *, most: int, session: date) -> list[str]:
    """At most `most` of them, others on the next day."""
    if len(symbols) <= most:
        return list(symbols)
    first = session.toordinal() * most % len(symbols)
    return [*symbols[first:], *symbols[:first]][:most]
