"""Does a feature know the future? Proved by taking the future away, and by replacing it.

Promise: for each cut t, a feature function is run on the bars up to t alone, and on all bars with everything after t poisoned. A column
any of whose values at or before t then differ, in a single bit, is a `Leak` that names the column, the cut and the first changed row. No
leak at the cuts that were tried is evidence, not proof, for a function that peeks only on days that were not tried.
Failure: `LookaheadError` when the function does not give one row a bar, changes its columns, or differs between two runs on the same
bars (a function that is not deterministic can be neither proved nor used).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

#: Bars of one name (index: sessions; columns open, high, low, close, volume) to one row of features a bar.
FeatureFunction = Callable[[pd.DataFrame], pd.DataFrame]
PRICES = ["open", "high", "low", "close"]


class LookaheadError(ValueError):
    """The function is not a feature function; the message says what it gave and what is needed."""


@dataclass(frozen=True)
class Leak:
    """`column` at `changed` (row number) is another value when the bars after row `cut` are taken away or replaced."""

    column: str
    cut: int
    changed: int
    how: Literal["truncated", "poisoned"]


def find_leaks(compute: FeatureFunction, bars: pd.DataFrame, *, cuts: Sequence[int]) -> list[Leak]:
    """The first leak of each column that has one, in the order of the columns.

    `bars` (T rows); `cuts`: row numbers in [0, T - 2]. Raises LookaheadError, and whatever `compute` raises on the whole bars.
    """
    last = len(bars) - 2
    if wrong := [cut for cut in cuts if not 0 <= cut <= last]:
        raise LookaheadError(f"cuts must lie in [0, {last}] for {len(bars)} bars, was {wrong[0]}")
    whole = _checked(compute, bars, like=None)
    if changed := _first_changes(whole, _checked(compute, bars, like=whole), rows=len(bars)):
        raise LookaheadError(f"the same bars must give the same features, {next(iter(changed))} differed between two runs")
    leaks: dict[str, Leak] = {}
    for cut in cuts:
        for how, known in _worlds(bars, cut):
            for column, row in _first_changes(whole, _checked(compute, known, like=whole), rows=cut + 1).items():
                leaks.setdefault(column, Leak(column, cut, row, how))
    return [leaks[column] for column in whole.columns if column in leaks]


def _worlds(bars: pd.DataFrame, cut: int) -> Iterator[tuple[Literal["truncated", "poisoned"], pd.DataFrame]]:
    """The bars up to `cut` without a future, and with another one: later days backwards, prices and volume several times as large."""
    yield "truncated", bars.iloc[: cut + 1].copy()
    poisoned = bars.copy()
    poisoned.iloc[cut + 1 :] = bars.iloc[cut + 1 :][::-1].to_numpy() * 7.3
    yield "poisoned", poisoned


def _checked(compute: FeatureFunction, bars: pd.DataFrame, *, like: pd.DataFrame | None) -> pd.DataFrame:
    found = compute(bars.copy())
    if not isinstance(found, pd.DataFrame) or len(found) != len(bars):
        shape = f"{len(found)} rows" if isinstance(found, pd.DataFrame) else type(found).__name__
        raise LookaheadError(f"features must be a DataFrame with one row a bar, {len(bars)}, was {shape}")
    if like is not None and list(found.columns) != list(like.columns):
        raise LookaheadError(f"the columns must not depend on the bars, was {list(found.columns)} and {list(like.columns)}")
    return found


def _first_changes(whole: pd.DataFrame, other: pd.DataFrame, *, rows: int) -> dict[str, int]:
    """Column -> the first of `rows` rows where it differs; NaN equals NaN, 0.0 is not -0.0."""
    changes = {}
    for column in whole.columns:
        ours, theirs = (np.asarray(table[column], dtype=np.float64)[:rows] for table in (whole, other))
        same = (ours.view(np.int64) == theirs.view(np.int64)) | (np.isnan(ours) & np.isnan(theirs))
        if not same.all():
            changes[str(column)] = int(np.argmin(same))
    return changes
