"""What several features of one name need of its bars; `features.FEATURES` has the formulas.

Promise: arrays are (names, T), each row computed of its own row alone, NaN until the window is full; methods return arrays of their own,
cached ones are not to be written to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import talib

from trading_env.data.bars import Array
from trading_env.data.windows import RollingWindow, deviation, rolling_sum

FLOOR = 1e-6  # what a deviation is measured in when prices hardly move; a hundredth of a basis point


@dataclass(frozen=True)
class Bars:
    """Adjusted bars of names with the same sessions, each (names, T), contiguous and finite, and what several features need of them."""

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array

    @cached_property
    def log_close(self) -> Array:
        return np.log(self.close)

    def log_return(self, sessions: int, *, skip: int = 0) -> Array:
        """log(close[t − skip] / close[t − sessions])"""
        changes, rest = unknown(self.close, until=sessions)
        np.subtract(self.log_close[:, sessions - skip :][:, : rest.shape[1]], self.log_close[:, : rest.shape[1]], out=rest)
        return changes

    @cached_property
    def return_21(self) -> Array:
        return self.log_return(21)

    @cached_property
    def return_63(self) -> Array:
        return self.log_return(63)

    @cached_property
    def squares_21(self) -> Array:
        """Sum of 21 squared daily log returns."""
        daily = self.log_return(1)
        daily *= daily
        return rolling_sum(daily, 7, 3)

    @cached_property
    def volatility_21(self) -> Array:
        return deviation(self.return_21, self.squares_21.copy(), 21)

    @cached_property
    def gap(self) -> Array:
        """log(open[t] / close[t − 1])"""
        changes, rest = unknown(self.open, until=1)
        np.subtract(np.log(self.open[:, 1:]), self.log_close[:, :-1], out=rest)
        return changes

    @cached_property
    def overnight(self) -> Array:
        """Sum of the last 21 gaps."""
        return rolling_sum(self.gap, 7, 3)

    def distance(self, window: int) -> Array:
        """close / SMA − 1"""
        average = per_name(lambda close: talib.SMA(close, window), self.close)
        return relative(self.close, average)

    @cached_property
    def macd(self) -> tuple[Array, Array]:
        """The MACD line and its histogram, 12, 26, 9, as a share of the close."""
        line, histogram = np.empty_like(self.close), np.empty_like(self.close)
        for name, close in enumerate(self.close):
            line[name], _, histogram[name] = talib.MACD(close, 12, 26, 9)
        line /= self.close
        histogram /= self.close
        return line, histogram

    def bollinger_position(self) -> Array:
        """Not by TA-Lib, which takes the variance as a difference of running sums: after AIG's fall of 2008 its bands still differ by
        7e-10 with the start of history, most of the 1e-9 that is promised.
        """
        window = RollingWindow.of(self.close, 5).times(2).times(2)
        spread = np.maximum(window.deviation(), FLOOR * self.close)
        spread *= 2
        position = self.close - window.mean()
        position /= spread
        return position

    def rsi(self) -> Array:
        """Wilder's RSI over 14 sessions in [−0.5, 0.5], 0 when the last 15 closes are equal (TA-Lib would say −0.5)."""
        score = per_name(lambda close: talib.RSI(close, 14), self.close)
        score /= 100
        score -= 0.5
        idle = self.close[:, 1:] == self.close[:, :-1]
        for further in (1, 2, 4, 6):  # 1, 2, 4, 8 and at last 14 changes in a row
            idle = idle[:, further:] & idle[:, :-further]
        if idle.any():
            score[:, 14:][idle] = 0.0
        return score

    def range(self) -> Array:
        ratio = self.high / self.low
        return np.minimum(np.log(ratio, out=ratio), 0.5, out=ratio)

    def location(self) -> Array:
        """Where in the session's range the close lies, [−0.5, 0.5], 0 when there is no range."""
        width, share = self.high - self.low, self.close - self.low
        if (none := width <= 0).any():
            width[none], share[none] = 1.0, 0.5
        share /= width
        share -= 0.5
        return share

    def volume_score(self) -> Array:
        total = rolling_sum(self.volume, 7, 3, 3)
        spread = deviation(total, rolling_sum(self.volume * self.volume, 7, 3, 3), 63)
        total /= 63
        np.maximum(spread, FLOOR * total, out=spread)
        spread[spread == 0] = 1.0  # without volume the score is 0
        score = self.volume - total
        score /= spread
        return np.clip(score, -5, 5, out=score)

    def volatility_ratio(self) -> Array:
        quarter = deviation(self.return_63, rolling_sum(self.squares_21, 3, apart=21), 63)
        ratio = np.maximum(self.volatility_21, FLOOR)
        ratio /= np.maximum(quarter, FLOOR, out=quarter)
        return np.log(ratio, out=ratio)

    def drawdown(self, window: int) -> Array:
        highest = per_name(lambda close: talib.MAX(close, window), self.close)
        return relative(self.close, highest)


def per_name(indicator: Callable[[Array], Array], values: Array) -> Array:
    """TA-Lib's output for each name, (names, T)."""
    found = np.empty_like(values)
    for row, own in zip(found, values, strict=True):
        row[:] = indicator(own)
    return found


def relative(values: Array, level: Array) -> Array:
    """values / level − 1, which is written over the level."""
    np.divide(values, level, out=level)
    level -= 1
    return level


def unknown(values: Array, *, until: int) -> tuple[Array, Array]:
    """An array of the shape of `values` whose first `until` entries of the last axis are NaN, and a view of the rest, to be written."""
    result = np.empty_like(values)
    result[..., :until] = np.nan
    return result, result[..., until:]
