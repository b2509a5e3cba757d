"""One scheduled minute's quotes as raw lines.

Promises: a line is what the feed said, zero, crossed or old included (judging is the job's work); a symbol without a quote has no line and
is named in `missing`. Nothing is invented. Raises `NoQuotesError` when the feed has none at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lambdas.common.broker.port import Quote
from lambdas.common.lake.lake import Row
from schema.exchange_time import iso
from trading_env.errors import PapertapeError

FEED = "iex"


class NoQuotesError(PapertapeError, RuntimeError):
    """The feed answered without a quote of any symbol."""


@dataclass(frozen=True)
class Minute:
    lines: tuple[Row, ...]
    missing: tuple[str, ...]


def minute_of(*, quotes: Mapping[str, Quote], symbols: Sequence[str], received_at: datetime) -> Minute:
    """The lines of `symbols`, in their order; `received_at` is the broker's clock, so that a replay writes the same bytes."""
    if not any(symbol in quotes for symbol in symbols):
        raise NoQuotesError(f"the feed sent no quote of {', '.join(symbols)} at {iso(received_at)}")
    lines = [
        {
            "symbol": symbol,
            "ts": quote.ts,
            "bid": quote.bid,
            "bid_size": quote.bid_size,
            "ask": quote.ask,
            "ask_size": quote.ask_size,
            "received_at": iso(received_at),
            "feed": FEED,
        }
        for symbol in symbols
        if (quote := quotes.get(symbol)) is not None
    ]
    return Minute(lines=tuple(lines), missing=tuple(symbol for symbol in symbols if symbol not in quotes))
