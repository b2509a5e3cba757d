"""A linear policy by mean and variance: which inputs predict, how much each is worth under the settings' costs, and how far to lean.

Each input is first a portfolio of its own: books that lean by a little of it, up and down, trade every training session through the
compiled step, and half the difference of their growth is what a unit of it earns (T, F). The coefficients are the mean-variance portfolio
of these, with an L1 penalty in units of the mean's standard error and an L2 penalty (Kozak, Nagel and Santosh, "Shrinking the
Cross-Section", Journal of Financial Economics 135, 2020). Penalties and size are those that would have grown most on sessions left out,
purged, traded in full by the settings' costs, rules and limits: a gross gain below `HURDLE` standard errors counts as nothing, one above is
shrunk as James and Stein (1961) do, by 1 - (`SHRUNK` / t)^2. So no evidence gives zeros, which is equal weight.

Promise: the same market, settings and seed give the same coefficients; a seed fits a bootstrap of the sessions, for averages of seeds are
steadier. Failure: `DatasetError` for a market without a tradable row, or with `LEAST` sessions or fewer from the first one on.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from learning.dataset import DatasetError
from schema.trading_rules import limits_of, rules_of
from trading_env.evaluation.metrics import SESSIONS_PER_YEAR
from trading_env.evaluation.statistics import stationary_indices
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig
from trading_env.simulation.portfolio import Costs, FloatArray, IntArray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schema.settings import Settings
    from trading_env.data.market import Market
    from trading_env.orders.risk import Limits
    from trading_env.simulation.portfolio import Rules

FREE = Costs(slippage_bps=0.0)
BOUND = 3.0  # deviations at which an input is as good as flat
LEAN = 0.05  # of a score per unit of an input: small against 1, so that growth is linear in it
L1 = (1.5, 2.0, 2.5)  # standard errors of the mean: what is less sure than that is left out
L2 = (0.0, 1.0)  # variances
SIZES = (0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)  # tracking errors, a year's, before the limits on weights
BLOCKS, PURGE = 4, 42
LEAST = BLOCKS * 2 * PURGE // (BLOCKS - 1)  # sessions that leave none to fit on beside a block in the middle
HURDLE = 3.0  # standard errors: what the choice among penalties and sizes finds in noise stays below (Harvey, Liu and Zhu 2016)
SHRUNK = 2.0  # standard errors: how far the best of many sizes is taken to be too good
RESAMPLED = 63  # mean length of the bootstrap's blocks, sessions


def winsorised(market: Market, *, mu: FloatArray, sigma: FloatArray) -> FloatArray:
    """(T, A, F) features in deviations, softly bounded as two layers of the network bound them; 0 where a name cannot be traded."""
    count = market.features.shape[-1]
    inputs = np.where(market.tradable[..., None], (market.features - mu[:count]) / sigma[:count], 0.0)
    return np.asarray(BOUND * np.tanh(np.tanh(inputs / BOUND)))


def fit(market: Market, *, settings: Settings, seed: int, mu: FloatArray, sigma: FloatArray) -> FloatArray:
    """(F,) what a deviation of each input adds to a name's score."""
    rows = np.flatnonzero(market.tradable.any(axis=1))
    if not len(rows):
        raise DatasetError("the training rows must hold at least one tradable asset, was none")
    market = market.rows(market.sessions[rows[0]], market.sessions[-1])
    inputs, rules = winsorised(market, mu=mu, sigma=sigma), rules_of(settings)
    free = replace(rules, costs=FREE, min_notional=0.0, band=0.0)
    kappa, cash = settings.portfolio.kappa, settings.portfolio.initial_cash
    # One book trades all the years: a breaker that latched would say nothing about the sessions after it
    unbroken = replace(limits_of(settings), max_drawdown=1.0, max_daily_loss=1.0)
    if len(market) <= LEAST:
        raise DatasetError(f"direct reinforcement needs more than {LEAST} sessions from a tradable one on, were {len(market)}")
    gains = portfolios(market, inputs, rules=free, kappa=kappa, cash=cash)
    weights = _resampled(len(gains), seed=seed)
    keys = [(lasso, ridge) for lasso in L1 for ridge in L2]
    outside = np.zeros((len(keys), *gains.shape))
    for block, rest in left_out(len(gains)):
        outside[:, block] = _directions(gains[rest], weights[rest], keys)[:, None]
    sized = np.concatenate([size * outside for size in SIZES])
    gross, net = (
        _against_none(market, inputs, sized, rules=some, limits=limits, kappa=kappa, cash=cash)
        for some, limits in ((replace(rules, costs=FREE), None), (rules, unbroken))
    )
    utility = _utility(gross, net)
    best = int(utility.argmax())
    if not utility[best] > 0:
        return np.zeros(gains.shape[1])
    size, key = SIZES[best // len(keys)], keys[best % len(keys)]
    return np.asarray(size * _directions(gains, weights, [key])[0])


def portfolios(market: Market, inputs: FloatArray, *, rules: Rules, kappa: float, cash: float) -> FloatArray:
    """(T - 1, F) daily log growth per unit of a score that each input adds."""
    count = inputs.shape[-1]
    leans = LEAN * np.concatenate([np.eye(count), -np.eye(count)])
    grown = _grown(market, inputs, np.broadcast_to(leans[:, None], (2 * count, len(market) - 1, count)), rules, None, kappa, cash)
    return np.asarray((grown[:count] - grown[count:]).T / (2 * LEAN))


def elastic_net(mean: FloatArray, covariance: FloatArray, *, lasso: float, ridge: float) -> FloatArray:
    """The b of the least b' C b / 2 - b' m + lasso |b|_1 + ridge |b|^2 / 2: coordinate descent (Friedman, Hastie and Tibshirani 2010)."""
    found = np.zeros(len(mean))
    # Without an input that never varies; Python's floats are several times as fast as NumPy's, one by one
    varying = [(i, float(mean[i]), float(own), covariance[i]) for i, own in enumerate(np.diag(covariance)) if own != 0]
    for _ in range(500):
        before = found.copy()
        for i, gain, own, row in varying:
            rest = gain - row.dot(found).item() + own * found.item(i)
            found[i] = math.copysign(max(abs(rest) - lasso, 0.0), rest) / (own + ridge)
        if np.abs(found - before).max() <= 1e-7 * np.abs(found).max():
            break
    return found


def _directions(gains: FloatArray, weights: FloatArray, keys: list[tuple[float, float]]) -> FloatArray:
    """(K, F) coefficients for each pair of penalties, of a tracking error of 1 a year; zeros where nothing is left."""
    total = weights.sum()
    mean = weights @ gains / total
    scale = np.sqrt(weights @ (gains - mean) ** 2 / total)
    unit = gains / np.where(scale > 0, scale, np.inf)
    average = weights @ unit / total
    centred = unit - average
    covariance = (centred * weights[:, None]).T @ centred / total
    found = np.zeros((len(keys), gains.shape[1]))
    for row, (lasso, ridge) in enumerate(keys):
        own = elastic_net(average, covariance, lasso=lasso / np.sqrt(len(gains)), ridge=ridge)
        error = np.sqrt(own @ covariance @ own * SESSIONS_PER_YEAR)
        if error > 0:
            found[row] = own / np.where(scale > 0, scale, np.inf) / error
    return found


def _utility(gross: FloatArray, net: FloatArray) -> FloatArray:
    """(B,) a year's growth over no view less half its variance; the gross gain shrunk, its costs in full."""
    year = SESSIONS_PER_YEAR
    mean, error = gross.mean(axis=1) * year, gross.std(axis=1) * np.sqrt(year)
    noise = error / np.sqrt(gross.shape[1] / year)
    sure = (mean > HURDLE * noise) & (noise > 0)
    kept = np.where(sure, 1 - (SHRUNK * noise / np.where(sure, mean, 1.0)) ** 2, 0.0)
    return np.asarray(kept * mean - (mean - net.mean(axis=1) * year) - error**2 / 2)


def _against_none(
    market: Market, inputs: FloatArray, coefficients: FloatArray, *, rules: Rules, limits: Limits | None, kappa: float, cash: float
) -> FloatArray:
    """(B, T - 1) daily log growth less that of a book without a view, at the same pace."""
    none = np.zeros((1, *coefficients.shape[1:]))
    grown = _grown(market, inputs, np.concatenate([coefficients, none]), rules, limits, kappa, cash)
    return np.asarray(grown[:-1] - grown[-1])


def _grown(
    market: Market, inputs: FloatArray, coefficients: FloatArray, rules: Rules, limits: Limits | None, kappa: float, cash: float
) -> FloatArray:
    """(B, T - 1) daily log growth of books that score by `coefficients` (B, T - 1, F), from equal weight at the first row."""
    books, steps, _ = coefficients.shape
    config = EnvConfig(
        rules=rules, kappa=kappa, episode_sessions=steps, random_start=False, start="equal", initial_value=cash, limits=limits
    )
    environments = BatchedTradingEnv(market, num_envs=books, config=config, copy=False)
    environments.reset(seed=0)
    grown = np.empty((books, steps))
    for row in range(steps):
        *_, infos = environments.step((coefficients[:, row] @ inputs[row].T).astype(np.float32))
        grown[:, row] = infos["log_growth"]
    return grown


def left_out(sessions: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Each block, and the rows that are at least `PURGE` away from it."""
    rows = np.arange(sessions)
    for block in np.array_split(rows, BLOCKS):
        yield block, rows[(rows < block[0] - PURGE) | (rows > block[-1] + PURGE)]


def _resampled(sessions: int, *, seed: int) -> FloatArray:
    """(T,) how often the seed's bootstrap takes each session, and once more each, so that no block is left without any."""
    drawn = stationary_indices(sessions, draws=1, mean_block=min(RESAMPLED, sessions), rng=np.random.default_rng(seed))
    return np.asarray(np.bincount(drawn[0], minlength=sessions) + 1.0)
