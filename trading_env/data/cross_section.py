"""Names beside each other at the same session: means, betas, what is left of a value without market, beta and volatility, and ranks.

Promise: a session's values depend on that session and, for betas, on the `BETA_SESSIONS` up to it, to the last bit wherever the history
starts; in which order the names stand changes them by rounding alone. Arrays are (A, T), a name per row, NaN where there is no value.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from trading_env.data.bars import Array
from trading_env.data.indicators import FLOOR
from trading_env.data.windows import rolling_sum

TIE = 9  # decimals beyond which ranks see no difference: the last bits depend on where history starts
BETA_SESSIONS = 252
BETA_RETURNS = BETA_SESSIONS // 2  # of a name within them, or it has no beta
LEAST_NAMES = 6  # fewer have no residual: a regression with three coefficients would leave next to nothing of them


def mean(values: Array) -> Array:
    """(T,): the mean of the names with a value, NaN if there is none."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    found = np.full(values.shape[1], np.nan)
    np.divide(np.where(finite, values, 0.0).sum(axis=0), count, out=found, where=count > 0)
    return found


def betas(returns: Array, *, market: Array) -> Array:
    """cov(r, m) / max(var(m), FLOOR^2) of each name's returns (A, T) and the market's m (T,), the mean of names.

    Over those of the last `BETA_SESSIONS` sessions in which the name has a return, NaN where these are fewer than `BETA_RETURNS`.
    """
    finite = np.isfinite(returns)
    market, own = np.nan_to_num(market), np.where(finite, returns, 0.0)
    kinds: dict[bytes, int] = {}  # names that have returns in the same sessions share what the market was in them
    kind = [kinds.setdefault(row.tobytes(), len(kinds)) for row in finite]
    present = finite[[kind.index(one) for one in range(len(kinds))]]
    count, total, square = (_year(values) for values in (present.astype(np.float64), present * market, present * market**2))
    average = total / np.maximum(count, 1)
    variance = np.maximum(square - total * average, count * FLOOR**2)
    variance[~(count >= BETA_RETURNS)] = np.nan
    product, own_total = _year(own * market), _year(own)
    own_total *= average[kind]
    product -= own_total
    product /= variance[kind]
    return product


def residuals(values: Array, *exposures: Array) -> Array:
    """What each session's regression of the values on a constant and the exposures, across names, leaves of the values.

    Neutral to each: without correlation with any exposure, and the same when a constant or a multiple of an exposure is added to all
    values. An exposure that hardly differs between the names, or only as the ones before it do (deviation below FLOOR), has no part.

    Args:
        values: (..., A, T), of which each (A, T) is regressed.
        exposures: (A, T) each.

    Returns:
        (..., A, T), NaN for a name without all of its values and exposures; 0 where fewer than `LEAST_NAMES` names have them.
    """
    known = np.isfinite(values).reshape(-1, *values.shape[-2:]).all(axis=0)
    for exposure in exposures:
        known &= np.isfinite(exposure)
    count = known.sum(axis=0)
    some, least = np.maximum(count, 1), np.maximum(count, 1) * FLOOR**2

    def rest(column: Array) -> Array:
        left = np.where(known, column, 0.0)
        left -= left.sum(axis=0) / some
        left *= known
        for axis, square in axes:
            left -= axis * ((axis * left).sum(axis=0) / square)
        return left

    axes: list[tuple[Array, Array]] = []
    for exposure in exposures:
        axis = rest(exposure)
        axes.append((axis, np.maximum((axis * axis).sum(axis=0), least)))
    found = np.empty_like(values)
    for place in np.ndindex(values.shape[:-2]):
        found[place] = rest(values[place])
    found[..., count < LEAST_NAMES] = 0.0
    found[..., ~known] = np.nan
    return found


def ranks(values: Array) -> Array:
    """Centred ranks among the names with a value, ties (to `TIE` decimals) averaged, from -0.5 (lowest) to 0.5; 0 if alone."""
    rounded = np.ascontiguousarray(values.T)
    np.round(rounded, TIE, out=rounded)
    order = np.argsort(rounded, axis=1)
    places = np.empty_like(rounded)
    np.put_along_axis(places, order, np.arange(len(values), dtype=np.float64)[None], axis=1)
    in_order = np.take_along_axis(rounded, order, axis=1)
    tied = (in_order[:, 1:] == in_order[:, :-1]).any(axis=1)
    if tied.any():
        places[tied] = pd.DataFrame(rounded[tied]).rank(axis=1, method="average") - 1
    finite = np.isfinite(rounded)
    others = finite.sum(axis=1, keepdims=True) - 1
    places /= np.maximum(others, 1)
    places -= np.where(others > 0, 0.5, 0.0)
    places[~finite] = np.nan
    return places.T


def _year(values: Array) -> Array:
    return rolling_sum(values, 7, 3, 3, 2, 2)
