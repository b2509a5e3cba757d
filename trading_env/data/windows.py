"""Sums, means and deviations over rolling windows, the same to the last bit wherever the history starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trading_env.data.bars import Array


@dataclass(frozen=True)
class RollingWindow:
    """Each `length` values in a row: their sum, and the sum of their squared distances from their mean.

    A window of 3 n values is three windows of n side by side: their sums add up, and so do their squared distances and, over 3 n, the
    squared difference of each two sums. Nothing cancels, and no running sum carries rounding from one window to the next: what a window
    holds depends on nothing but its values, to the last bit.

    `total` and `squares` run over the rows of an array of `shape` (..., T) one after the other, from the first whole window on.
    """

    length: int
    total: Array
    squares: Array
    shape: tuple[int, ...]

    @classmethod
    def of(cls, values: Array, length: int) -> RollingWindow:
        parts = _side_by_side(values.ravel(), length, apart=1)
        total = _sum(parts)
        centre = total / length
        squares = parts[0] - centre
        squares *= squares
        distance = np.empty_like(centre)
        for part in parts[1:]:
            np.subtract(part, centre, out=distance)
            distance *= distance
            squares += distance
        return cls(length=length, total=total, squares=squares, shape=values.shape)

    def times(self, count: int) -> RollingWindow:
        """Windows `count` times as long."""
        totals = _side_by_side(self.total, count, apart=self.length)
        pairs: list[Array] = []
        for lag in range(1, count):
            difference = self.total[lag * self.length :] - self.total[: -lag * self.length]
            difference *= difference
            pairs += _side_by_side(difference, count - lag, apart=self.length)
        between = _sum(pairs) if len(pairs) > 1 else pairs[0]
        between /= count * self.length
        for part in _side_by_side(self.squares, count, apart=self.length):
            between += part
        return RollingWindow(length=count * self.length, total=_sum(totals), squares=between, shape=self.shape)

    def mean(self) -> Array:
        """(..., T), at the window's last value; NaN before the first whole window, or if a value is."""
        return _at_last(self.total / self.length, self.length, self.shape)

    def deviation(self) -> Array:
        """Standard deviation (over n), as `mean`."""
        return _at_last(np.sqrt(self.squares / self.length), self.length, self.shape)


def rolling_sum(values: Array, *factors: int, apart: int = 1) -> Array:
    """Sums over windows of as many values as the product of the factors, (..., T) at the window's last value, NaN before the first.

    As `RollingWindow`, the same to the last bit wherever the history starts. `values` may be sums over `apart` values already.
    """
    length, total = apart, values.ravel()
    for factor in factors:
        total, length = _sum(_side_by_side(total, factor, apart=length)), length * factor
    return _at_last(total, length, values.shape)


def deviation(total: Array, squares: Array, length: int) -> Array:
    """Standard deviation (over n) of `length` values, from their sum and the sum of their squares, which is written over.

    For values that differ by about as much as they are large: the variance is wrong by some 1e-16 of the mean square. `RollingWindow` is
    for the others, such as prices.
    """
    mean = total / length
    mean *= mean
    squares /= length
    squares -= mean
    np.maximum(squares, 0.0, out=squares)
    return np.sqrt(squares, out=squares)


def _at_last(whole: Array, length: int, shape: tuple[int, ...]) -> Array:
    result = np.empty(math.prod(shape))
    result[result.size - whole.size :] = whole
    result = result.reshape(shape)
    result[..., : length - 1] = np.nan  # or the window would reach into the row before
    return result


def _sum(parts: list[Array]) -> Array:
    """Of two or more."""
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total += part
    return total


def _side_by_side(values: Array, count: int, *, apart: int) -> list[Array]:
    """Views such that element i of the k-th is values[i + k apart]."""
    length = max(len(values) - (count - 1) * apart, 0)
    return [values[k * apart :][:length] for k in range(count)]
