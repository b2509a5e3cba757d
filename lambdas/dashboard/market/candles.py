"""Daily candles of a name with the agent's fills and signals on them, and the sparkline of its last closes.

Promise: prices before a split are in today's shares, volumes too; a fill is marked at what it was filled at, in words of its own day.
A signal is a change of the agent's target weight by half a percentage point or more from its decision before. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel

from lambdas.dashboard.account.months import DayFills, SessionTarget
from lambdas.dashboard.market.prices import PriceHistory, session_of

SIGNAL = 0.005
SPARK = 60  # sessions
WIDTH, HEIGHT = 120, 28


class ChartMarker(BaseModel):
    session: str
    kind: Literal["buy", "sell", "signal"]
    text: str


class MarkedCandles(BaseModel):
    """Columns by session, oldest first, in dollars, and what was traded."""

    symbol: str
    sessions: tuple[str, ...]
    open: tuple[float, ...]
    high: tuple[float, ...]
    low: tuple[float, ...]
    close: tuple[float, ...]
    markers: tuple[ChartMarker, ...]


class CandlesView(MarkedCandles):
    """With volumes in shares; `markers` of at most the last year."""

    volume: tuple[float, ...]


class Sparkline(BaseModel):
    """`points` of an SVG polyline of WIDTH x HEIGHT; `change` over its sessions, as a share."""

    points: str
    sessions: int
    change: float


def candles(
    symbol: str, bars: Iterable[Mapping[str, Any]], *, prices: PriceHistory, first: str, markers: Sequence[ChartMarker]
) -> CandlesView:
    """The bars of `symbol` from session `first` on."""
    rows = sorted((session_of(bar["ts"]), bar) for bar in bars if bar["symbol"] == symbol and session_of(bar["ts"]) >= first)
    last = rows[-1][0] if rows else first
    ratios = [prices.ratio(symbol, session, last) for session, _ in rows]
    columns = {
        name: tuple(float(bar[name]) / ratio for (_, bar), ratio in zip(rows, ratios, strict=True))
        for name in ("open", "high", "low", "close")
    }
    sessions = tuple(session for session, _ in rows)
    return CandlesView(
        symbol=symbol,
        sessions=sessions,
        **columns,
        volume=tuple(float(bar["volume"]) * ratio for (_, bar), ratio in zip(rows, ratios, strict=True)),
        markers=tuple(one for one in markers if one.session in set(sessions)),
    )


def markers(symbol: str, *, fills: Iterable[DayFills], targets: Sequence[SessionTarget]) -> list[ChartMarker]:
    """Fills of `symbol` and changes of its target, by session."""
    found = [
        ChartMarker(
            session=one.session, kind="buy" if one.side == "buy" else "sell", text=f"{one.side} {one.quantity:g} at {one.price:,.2f}"
        )
        for one in fills
        if one.symbol == symbol
    ]
    for before, after in pairwise(targets):
        was, now = before.weights.get(symbol), after.weights.get(symbol)
        if was is not None and now is not None and abs(now - was) >= SIGNAL:
            found.append(ChartMarker(session=after.session, kind="signal", text=f"target {was:.1%} to {now:.1%}"))
    return sorted(found, key=lambda one: (one.session, one.kind))


def sparkline(symbol: str, prices: PriceHistory) -> Sparkline | None:
    """Of its last closes; None of fewer than two."""
    closes = sorted(prices.closes.get(symbol, {}).items())[-SPARK:]
    if len(closes) < 2:
        return None
    last = closes[-1][0]
    values = [close / prices.ratio(symbol, session, last) for session, close in closes]
    low, high = min(values), max(values)
    room = (high - low) or 1.0
    step = WIDTH / (len(values) - 1)
    points = " ".join(f"{place * step:.1f},{HEIGHT - 2 - (value - low) / room * (HEIGHT - 4):.1f}" for place, value in enumerate(values))
    return Sparkline(points=points, sessions=len(values), change=values[-1] / values[0] - 1)
