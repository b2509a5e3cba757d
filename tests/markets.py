"""Small synthetic markets, built directly: prices by hand or a seeded walk, with splits, dividends, halts and late listings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trading_env.data.market import Market

FloatArray = NDArray[np.float64]


def market_of(
    *,
    open: FloatArray,  # noqa: A002  the column's name
    close: FloatArray,
    split: FloatArray | None = None,
    dividend: FloatArray | None = None,
    tradable: NDArray[np.bool_] | None = None,
    features: FloatArray | None = None,
    context: FloatArray | None = None,
    start: str = "2019-01-02",
) -> Market:
    """A market of (T, A) raw opens and closes; NaN is no bar. Without features each name has its last return and its log price."""
    sessions, assets = close.shape
    if features is None:
        level = np.log(close)
        returns = np.diff(level, axis=0, prepend=level[:1])
        features = np.stack([returns, level], axis=-1)
    days = np.busday_offset(np.datetime64(start, "D"), np.arange(sessions), roll="forward")
    return Market(
        symbols=tuple(f"S{index}" for index in range(assets)),
        sessions=days,
        open=open,
        high=np.maximum(open, close),
        low=np.minimum(open, close),
        close=close,
        volume=np.where(np.isfinite(close), 1e6, np.nan),
        split=np.ones(close.shape) if split is None else split,
        dividend=np.zeros(close.shape) if dividend is None else dividend,
        tradable=np.isfinite(close) & np.isfinite(features).all(axis=-1) if tradable is None else tradable,
        features=features,
        context=np.zeros((sessions, 1)) if context is None else context,
    )


def walk(*, sessions: int = 300, assets: int = 4, seed: int = 0, eventful: bool = True, start: str = "2019-01-02") -> Market:
    """A seeded random walk. Eventful: splits both ways, dividends, halts, and a last name that is listed a third of the way in."""
    rng = np.random.default_rng(seed)
    shape = (sessions, assets)
    gaps, moves = np.exp(rng.normal(0, 0.01, shape)), np.exp(rng.normal(0.0003, 0.015, shape))
    split, dividend, absent = np.ones(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
    if eventful:
        split = rng.choice([1.0, 4.0, 0.05, 1.5, 7.0], p=[0.98, 0.005, 0.005, 0.005, 0.005], size=shape)
        split[0] = 1.0
        absent = rng.random(shape) < 0.03
        absent[: sessions // 3, -1] = True
        absent[0, :-1] = False
    open_, close = np.empty(shape), np.empty(shape)
    last = rng.uniform(20, 200, assets)
    for t in range(sessions):
        open_[t] = last / split[t] * gaps[t]
        close[t] = open_[t] * moves[t]
        last = close[t]
    if eventful:
        paid = rng.random(shape) < 0.02
        dividend[1:] = np.where(paid, 0.01 * close / split, 0.0)[:-1]
    open_, close = np.where(absent, np.nan, open_), np.where(absent, np.nan, close)
    returns = np.diff(np.log(open_), axis=0, prepend=np.log(open_[:1]))
    features = np.stack([np.nan_to_num(np.log(close / open_)), np.nan_to_num(returns)], axis=-1)
    return market_of(
        open=open_,
        close=close,
        split=split,
        dividend=dividend,
        features=features,
        tradable=~absent,
        context=rng.normal(size=(sessions, 2)),
        start=start,
    )
