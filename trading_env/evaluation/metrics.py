"""Measures of a traded path, pure and small: each takes daily log growth (T,), an equity path, or weights (T, A), and says its unit.

Promise: the textbook number, on 252 sessions per year, risk-free rate 0. Failure: fewer than two values, or one that is not finite,
raise `MetricError`; a ratio whose denominator is 0 is NaN, for there is no such number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trading_env.errors import PapertapeError

FloatArray = NDArray[np.float64]
SESSIONS_PER_YEAR = 252
STILL = 1e-12  # a denominator below this share of its numerator is rounding, not a number


class MetricError(PapertapeError, ValueError):
    """There is nothing to measure; the message says what is missing."""


def log_growth(equity: FloatArray, *, initial: float) -> FloatArray:
    """(T,) log growth of each session, the first against `initial`; equity in dollars at the closes."""
    path = np.concatenate([[initial], equity])
    if not (np.isfinite(path) & (path > 0)).all():
        raise MetricError("equity must be finite and above 0 at every session")
    return np.diff(np.log(path))


def annual_return(growth: FloatArray) -> float:
    """Compound return a year, as a share."""
    return float(np.expm1(_checked(growth).mean() * SESSIONS_PER_YEAR))


def volatility(growth: FloatArray) -> float:
    """Standard deviation of simple daily returns, a year, as a share."""
    return float(_returns(growth).std(ddof=1) * np.sqrt(SESSIONS_PER_YEAR))


def sharpe(growth: FloatArray) -> float:
    """Mean over standard deviation of simple daily returns, a year's: Sharpe, J. Portfolio Management 21, 1994."""
    returns = _returns(growth)
    return _ratio(returns.mean(), returns.std(ddof=1)) * float(np.sqrt(SESSIONS_PER_YEAR))


def sortino(growth: FloatArray) -> float:
    """Mean over root mean square of the losses (0 where there is none) of simple daily returns, a year's.

    Sortino and van der Meer, J. Portfolio Management 17, 1991, with a target of 0.
    """
    returns = _returns(growth)
    return _ratio(returns.mean(), np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2))) * float(np.sqrt(SESSIONS_PER_YEAR))


def drawdown(equity: FloatArray, *, initial: float) -> FloatArray:
    """(T,) share below the highest equity so far, `initial` included; 0 at a high."""
    high = np.maximum.accumulate(np.concatenate([[initial], equity]))[1:]
    return np.asarray(1 - equity / high)


def max_drawdown(equity: FloatArray, *, initial: float) -> float:
    """The deepest drawdown, as a positive share."""
    return float(drawdown(_checked(equity), initial=initial).max())


def calmar(equity: FloatArray, *, initial: float) -> float:
    """Annual return over the deepest drawdown: Young, Futures 20, 1991, over the whole path instead of three years."""
    return _ratio(annual_return(log_growth(equity, initial=initial)), max_drawdown(equity, initial=initial))


def effective_n(weights: FloatArray) -> FloatArray:
    """(T,) number of equal positions as concentrated as these: (sum w)^2 / sum w^2, the inverse Herfindahl index; NaN for an empty book."""
    square = (weights**2).sum(axis=-1)
    return np.asarray(np.divide(weights.sum(axis=-1) ** 2, square, out=np.full(square.shape, np.nan), where=square > 0))


def _returns(growth: FloatArray) -> FloatArray:
    return np.asarray(np.expm1(_checked(growth)))


def _checked(values: FloatArray) -> FloatArray:
    if len(values) < 2 or not np.isfinite(values).all():
        finite = int(np.isfinite(values).sum())
        raise MetricError(f"a measure needs two or more sessions, all finite, was {len(values)} of which {finite} finite")
    return values


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > STILL * abs(part) else float("nan")
