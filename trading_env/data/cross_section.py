"""Names beside each other at the same session: means, betas, what is left of a value without market, beta and volatility, and ranks.

Promise: a session's values depend on that session and, for betas, on the `BETA_SESSIONS` up to it, to the last bit wherever the history
starts; in which order the names stand changes them by rounding alone. Arrays are (A, T), a name per row, NaN where there is no value.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from trading_env.data.bars import Array
from trading_env.data.windows import rolling_sum

FLOOR = 1e-6  # what a deviation is measured in when there is hardly any; of log returns a hundredth of a basis point
TIE = 9  # decimals beyond which ranks see no difference: the last bits depend on where history starts
BETA_SESSIONS = 252
BETA_RETURNS = BETA_SESSIONS // 2  # of a name within them, or it has no beta
LEAST_NAMES = 6  # fewer have no residual: a regression with three coefficients would leave next to nothing of them


def mean(values: Array) -> Array:
    """(T,): the mean of the names with a value, NaN if there is none."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    found = np.full(values.shape[1], np.nan)
    np.divide(_total(np.where(finite, values, 0.0)), count, out=found, where=count > 0)
    return found


def betas(returns: Array) -> Array:
    """cov(r, m) / max(var(m), FLOOR^2) of each name's returns and their mean m across names (A, T).

    Over those of the last `BETA_SESSIONS` sessions in which the name has a return, NaN where these are fewer than `BETA_RETURNS`.
    """
    finite = np.isfinite(returns)
    market = np.nan_to_num(mean(returns)) * finite
    own = np.where(finite, returns, 0.0)
    count, own_sum, market_sum, product, square = (
        rolling_sum(values, 7, 3, 3, 2, 2) for values in (finite.astype(np.float64), own, market, own * market, market * market)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = product - own_sum * market_sum / count
        variance = np.maximum(square - market_sum * market_sum / count, count * FLOOR**2)
        return np.where(count >= BETA_RETURNS, covariance / variance, np.nan)


def residuals(values: Array, *exposures: Array) -> Array:
    """What each session's regression of the values on a constant and the exposures, across names, leaves of the values.

    Neutral to each: without correlation with any exposure, and the same when a constant or a multiple of an exposure is added to all
    values. An exposure that hardly differs between the names, or only as the ones before it do (deviation below FLOOR), is left in.
    NaN where the value or an exposure is; 0 where fewer than `LEAST_NAMES` names have all.
    """
    known = np.isfinite(values)
    for exposure in exposures:
        known &= np.isfinite(exposure)
    count = known.sum(axis=0)
    least = np.maximum(count, 1) * FLOOR**2
    axes: list[tuple[Array, Array]] = []
    for column in (*exposures, values):
        rest = np.where(known, column, 0.0)
        rest -= known * (_total(rest) / np.maximum(count, 1))
        for axis, square in axes:
            rest -= axis * (_total(axis * rest) / square)
        axes.append((rest, np.maximum(_total(rest * rest), least)))
    left = np.where(count < LEAST_NAMES, 0.0, axes[-1][0])
    return np.where(known, left, np.nan)


def ranks(values: Array) -> Array:
    """Centred ranks among the names with a value, ties (to `TIE` decimals) averaged, from -0.5 (lowest) to 0.5; 0 if alone."""
    places = pd.DataFrame(np.round(values.T, TIE)).rank(axis=1, method="average").to_numpy(dtype=np.float64).T
    others = np.isfinite(values).sum(axis=0) - 1
    centred: Array = (places - 1) / np.maximum(others, 1) - np.where(others > 0, 0.5, 0.0)
    return centred


def _total(values: Array) -> Array:
    """The sum over names (A, T) -> (T,), a name after the other: the same bits for a session whatever T is."""
    total = np.zeros(values.shape[1])
    for row in values:
        total += row
    return total
