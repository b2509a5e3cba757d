"""Weights from past prices alone, without a view on returns or with the oldest one: inverse volatility, minimum variance, momentum.

Promise: each function is its published rule, and takes a path (T + 1, n) of log prices with dividends reinvested, oldest first, to n
weights that are not negative and sum to one; the same path gives the same weights to the bit. Failure: `AllocationError` when the
covariance has no portfolio of least variance. A path that is not finite is the caller's mistake and gives weights that are not finite.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from trading_env.errors import PapertapeError
from trading_env.simulation.policy import FloatArray

MONTH = 21
STILL = 1e-6  # the daily volatility that a name has at least: a hundredth of a basis point


class AllocationError(PapertapeError, ValueError):
    """There is no such portfolio; the message says why."""


def inverse_volatility(path: FloatArray) -> FloatArray:
    """As 1 / deviation of daily returns (Kirby and Ostdiek, J. Financial and Quantitative Analysis 47, 2012, with eta = 1/2)."""
    inverse = 1 / np.maximum(_returns(path).std(axis=0, ddof=1), STILL)
    return np.asarray(inverse / inverse.sum())


def minimum_variance(path: FloatArray) -> FloatArray:
    """The long-only portfolio of least variance under `shrunk_covariance` (long-only: Jagannathan and Ma, J. Finance 58, 2003)."""
    return least_variance(shrunk_covariance(_returns(path)))


def momentum(path: FloatArray) -> FloatArray:
    """Equal shares of the n / 3 names, rounded up, that rose most over the path without its last month, which tends to reverse
    (Jegadeesh and Titman, J. Finance 48, 1993). Of equal names the first in order."""
    winners = np.argsort(path[0] - path[-1 - MONTH], kind="stable")[: -(-path.shape[1] // 3)]
    weights = np.zeros(path.shape[1])
    weights[winners] = 1 / len(winners)
    return weights


def shrunk_covariance(returns: FloatArray) -> FloatArray:
    """(n, n) covariance of `returns` (T, n), drawn towards m I, m the mean variance: Ledoit and Wolf, J. Multivariate Analysis 88, 2004.

    (b2 / d2) m I + (1 - b2 / d2) S with S = sum_t x_t x_t' / T, d2 = |S - m I|^2, b2 = min(d2, sum_t |x_t x_t' - S|^2 / T^2), x centred
    and |.| Frobenius: the share of the spread that noise explains is taken out. Well conditioned however few the sessions.
    """
    sessions, names = returns.shape
    x = returns - returns.mean(axis=0)
    sample = x.T @ x / sessions
    mean = float(np.trace(sample)) / names
    squared = float((sample**2).sum())
    distance = squared - names * mean**2
    noise = (float(((x**2).sum(axis=1) ** 2).sum()) / sessions - squared) / sessions
    share = min(max(noise / distance, 0.0), 1.0) if distance > 0 else 1.0
    return np.asarray(share * max(mean, STILL**2) * np.eye(names) + (1 - share) * sample)


def least_variance(covariance: FloatArray) -> FloatArray:
    """(n,) w >= 0 with sum 1 of the least w' C w, for C (n, n) positive definite: exact, by the active set of Lawson and Hanson (1974).

    The x >= 0 of the least x' C x / 2 - sum x, scaled to sum to one, is w. With C = L L' it is the x >= 0 of the least |L' x - L^-1 1|.
    Raises AllocationError when C is not positive definite.
    """
    scaled = covariance / np.diag(covariance).mean()
    try:
        lower = np.linalg.cholesky(scaled)
        x, _ = nnls(lower.T, np.linalg.solve(lower, np.ones(len(lower))))
    except (np.linalg.LinAlgError, RuntimeError) as error:
        raise AllocationError(f"the covariance of {len(scaled)} names must be positive definite: {error}") from error
    return np.asarray(x / x.sum())


def _returns(path: FloatArray) -> FloatArray:
    return np.asarray(np.expm1(np.diff(path, axis=0)))
