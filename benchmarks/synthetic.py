"""The data that both sides of a benchmark get: seeded walks, nothing of a market, the same numbers in every process."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SESSIONS, NAMES, INDICATORS = 2500, 30, 8


def prices(names: int) -> tuple[Array, Array]:
    """Opens and closes (SESSIONS, names)."""
    rng = np.random.default_rng(7)
    moves, gaps = rng.normal(0.0003, 0.015, (SESSIONS, names)), rng.normal(0, 0.005, (SESSIONS, names))
    close = rng.uniform(20, 200, names) * np.exp(np.cumsum(moves, axis=0))
    opening = np.vstack([close[:1], close[:-1]]) * np.exp(gaps)
    return opening, close


def indicators(names: int, *, columns: int = INDICATORS) -> Array:
    """(SESSIONS, names, columns)"""
    return np.random.default_rng(8).normal(size=(SESSIONS, names, columns))


def bars(*, names: int, rows: int, move: float) -> dict[str, Array]:
    """Open, high, low, close and volume, each (names, rows): a name's rows lie one after the other."""
    rng = np.random.default_rng(11)
    shape = (names, rows)
    close = rng.uniform(20, 200, (names, 1)) * np.exp(np.cumsum(rng.normal(0, move, shape), axis=1))
    opening = close * np.exp(rng.normal(0, move / 3, shape))
    above, below = np.exp(np.abs(rng.normal(0, move / 3, (2, *shape))))
    high, low = np.maximum(opening, close) * above, np.minimum(opening, close) / below
    return {"open": opening, "high": high, "low": low, "close": close, "volume": rng.lognormal(10, 0.5, shape)}


def market(names: int, *, columns: int = INDICATORS, context: int = 2) -> Any:
    """A `Market` of SESSIONS with random features: ours alone can make one."""
    from trading_env.data.market import Market

    opening, close = prices(names)
    return Market(
        symbols=tuple(f"S{index:02d}" for index in range(names)),
        sessions=np.busday_offset(np.datetime64("2010-01-04", "D"), np.arange(SESSIONS), roll="forward"),
        open=opening,
        high=np.maximum(opening, close),
        low=np.minimum(opening, close),
        close=close,
        volume=np.full(close.shape, 2e5),
        split=np.ones(close.shape),
        dividend=np.zeros(close.shape),
        tradable=np.ones(close.shape, dtype=bool),
        features=indicators(names, columns=columns),
        context=np.zeros((SESSIONS, context)),
    )
