"""Train with the job's own `fit`, on markets whose truth is known, and trade the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from papertape.market_data import bundled
from schema.settings import Settings, load
from trading_env.data.bars import ACTION_COLUMNS, Adjusted, adjust_forward
from trading_env.data.market import Market, build_market
from trading_env.evaluation.backtest import BacktestResult, backtest
from trading_env.simulation.policy import Policy
from trading_env.simulation.portfolio import Costs, Rules

ROOT = Path(__file__).resolve().parents[2]

FREE, TEN_BP = (Rules(costs=Costs(slippage_bps=bps)) for bps in (0.0, 10.0))
CASH = 100_000.0
PLACE = 3  # of the feature that a test replaces by a forecast
WARM = 252  # sessions before the longest feature has a value


def settings(**changes: dict[str, Any]) -> Settings:
    """The project's, sections changed; `kappa` 1 and no limit on a weight where a test is about learning, not about holding back."""
    document = load(ROOT / "data" / "settings.toml").model_dump(mode="json")
    for section, values in changes.items():
        document[section] |= values
    return Settings.model_validate(document)


def traded(policy: Policy, market: Market, *, rules: Rules, first: int, last: int = -1) -> BacktestResult:
    """From row `first` to row `last` of the market."""
    start, end = market.sessions[first], market.sessions[last]
    return backtest(market, policy, rules=rules, start=start, end=end, initial_cash=CASH, limits=None)


def market_of_prices(open: NDArray[np.float64], close: NDArray[np.float64]) -> Market:  # noqa: A002  the column's name
    """(T, A) prices to a market with our own features."""
    sessions, assets = close.shape
    days = np.busday_offset(np.datetime64("2010-01-04"), np.arange(sessions)).astype("datetime64[us]")
    names = [f"S{number}" for number in range(assets)]
    bars = pd.DataFrame(
        {
            "symbol": np.tile(names, sessions),
            "session": np.repeat(days, assets),
            "open": open.ravel(),
            "high": np.maximum(open, close).ravel(),
            "low": np.minimum(open, close).ravel(),
            "close": close.ravel(),
            "volume": 1e6,
        }
    )
    return build_market(bars, bundled.corporate_actions()[:0][list(ACTION_COLUMNS)], symbols=names)


def waves(*, sessions: int, assets: int, period: float, amplitude: float) -> Market:
    """Each name a sine wave, out of step with the others; a session opens where the one before closed."""
    angle = 2 * np.pi * (np.arange(sessions)[:, None] / period + np.arange(assets) / assets)
    close = 50 * np.exp(amplitude * np.sin(angle))
    return market_of_prices(np.vstack([close[:1], close[:-1]]), close)


def shuffled(symbols: tuple[str, ...], *, seed: int) -> Market:
    """Bundled names whose sessions were dealt out anew, over days and names: moves as they are in markets, with nothing to know."""
    market = build_market(bundled.daily_bars(), bundled.corporate_actions(), symbols=symbols)
    raw = {name: getattr(market, name) for name in ("open", "high", "low", "close", "volume")}
    bars: Adjusted = adjust_forward(**raw, split=market.split, dividend=market.dividend)
    gap = np.log(bars.open[1:] / bars.close[:-1])
    day = np.log(bars.close[1:] / bars.open[1:])
    known = np.isfinite(gap + day).all(axis=1)
    moves = np.stack([gap[known], day[known]], axis=-1).reshape(-1, 2)
    dealt = np.random.default_rng(seed).permutation(moves).reshape(-1, len(symbols), 2)
    opened = np.cumsum(dealt.sum(axis=-1), axis=0) - dealt[..., 1]
    return market_of_prices(50 * np.exp(opened), 50 * np.exp(opened + dealt[..., 1]))


def with_forecast(market: Market, *, correlation: float, horizon: int = 5, seed: int = 7) -> Market:
    """The fourth feature is a noisy forecast of the return of the next sessions, from the next open on."""
    opened = np.log(market.open)
    coming = np.full(opened.shape, np.nan)
    coming[: -horizon - 1] = opened[1 + horizon :] - opened[1:-horizon]
    coming[: -horizon - 1] -= coming[: -horizon - 1].mean(axis=1, keepdims=True)
    noise = np.random.default_rng(seed).standard_normal(opened.shape)
    known = np.where(np.isfinite(coming), coming / np.nanstd(coming), noise)
    features = market.features.copy()
    features[..., PLACE] = correlation * known + np.sqrt(1 - correlation**2) * noise
    return replace(market, features=np.where(market.tradable[..., None], features, market.features))
