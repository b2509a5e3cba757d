"""A span of closes in numbers, in plain Python: the definitions of `trading_env.evaluation.metrics`, which needs NumPy.

Promise: 252 sessions per year, risk-free rate 0; fewer than three closes, or a ratio over 0, is None, never 0. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from math import sqrt
from statistics import fmean, stdev
from typing import Literal

from pydantic import BaseModel

from lambdas.dashboard.account.closings import AccountClose
from lambdas.dashboard.market.prices import PriceHistory

Span = Literal["1M", "3M", "YTD", "1Y", "ALL"]
SPANS: Mapping[Span, str] = {"1M": "1 month", "3M": "3 months", "YTD": "This year", "1Y": "1 year", "ALL": "All"}
DAYS: Mapping[Span, int] = {"1M": 30, "3M": 91, "1Y": 365}
SESSIONS_PER_YEAR = 252
STILL = 1e-12  # below this, a deviation is rounding


class SpanMeasures(BaseModel):
    """Shares; `drawdown` is the deepest, as a positive share."""

    change: float | None = None
    volatility: float | None = None
    sharpe: float | None = None
    drawdown: float | None = None


def first_of(span: Span, sessions: Sequence[str]) -> int:
    """The place of the close that the span begins with: the last one at or before its first day, else the first there is."""
    if span == "ALL" or not sessions:
        return 0
    last = date.fromisoformat(sessions[-1])
    start = date(last.year - 1, 12, 31) if span == "YTD" else last - timedelta(days=DAYS[span])
    return max(sum(session <= start.isoformat() for session in sessions) - 1, 0)


def measures(path: Sequence[float | None]) -> SpanMeasures:
    """Of values at closes; a close without one is left out."""
    values = [one for one in path if one is not None]
    if len(values) < 3 or min(values) <= 0:
        return SpanMeasures()
    returns = [later / earlier - 1 for earlier, later in pairwise(values)]
    spread = stdev(returns)
    return SpanMeasures(
        change=values[-1] / values[0] - 1,
        volatility=spread * sqrt(SESSIONS_PER_YEAR),
        sharpe=fmean(returns) / spread * sqrt(SESSIONS_PER_YEAR) if spread > STILL else None,
        drawdown=-min(one for one in drawdowns(values) if one is not None),
    )


def drawdowns(path: Sequence[float | None]) -> list[float | None]:
    """Each value against the highest so far, as a share at or below 0."""
    high, found = 0.0, list[float | None]()
    for value in path:
        high = high if value is None else max(high, value)
        found.append(None if value is None or high <= 0 else value / high - 1)
    return found


def turnover(closings: Sequence[AccountClose], prices: PriceHistory) -> float | None:
    """Mean share of equity bought and sold per session, from what changed between closes, at closing prices.

    A buy and a sell of one name on one day cancel out, and count with their difference.
    """
    shares = [_traded(before, after, prices) / after.equity for before, after in pairwise(closings) if after.equity > 0]
    return fmean(shares) if shares else None


def gains(closings: Sequence[AccountClose], prices: PriceHistory) -> dict[str, float]:
    """Dollars by name of what was held from close to close, the largest first.

    Without what an order won or lost against the close of its own day, and without dividends: both are the rest of the account's change.
    """
    found: dict[str, float] = {}
    for before, after in pairwise(closings):
        for symbol in before.held:
            found[symbol] = found.get(symbol, 0.0) + _gain(symbol, before, after, prices)
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def gain_of(symbol: str, closings: Sequence[AccountClose], prices: PriceHistory) -> float:
    """As `gains`, of one name."""
    return sum(_gain(symbol, before, after, prices) for before, after in pairwise(closings) if symbol in before.held)


def opened(symbol: str, closings: Sequence[AccountClose]) -> int:
    """The place of the first close of those without a break at which the last close's position was held."""
    place = len(closings) - 1
    while place > 0 and symbol in closings[place - 1].held:
        place -= 1
    return place


def _gain(symbol: str, before: AccountClose, after: AccountClose, prices: PriceHistory) -> float:
    quantity, close = before.held[symbol]
    price = after.price(symbol)
    return 0.0 if price is None else quantity * (price * prices.ratio(symbol, before.session, after.session) - close)


def _traded(before: AccountClose, after: AccountClose, prices: PriceHistory) -> float:
    traded = 0.0
    for symbol in before.held.keys() | after.held.keys():
        ratio = prices.ratio(symbol, before.session, after.session)
        was, close = before.held.get(symbol, (0.0, 0.0))
        now = after.held.get(symbol, (0.0, 0.0))[0]
        price = after.price(symbol)
        traded += abs(now - was * ratio) * (price if price is not None else close / ratio)
    return traded
