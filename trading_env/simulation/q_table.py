"""Tables of action values as plain arrays: what to do with a name, by the bins that a few of its features fall into and whether it is
held.

Promise: NumPy alone; the same bits for the same observation. A table says buy, hold or sell of each name by itself: the action of the
highest value, hold where it ties. What is to be held after that (bought, or held and not sold) gets the score `VIEW`, the rest its
negative, so that the weights follow by the same softmax and kappa as any policy's; where all names are to be held, or none is, the book is
equal weight. Failure: `QTableError`, naming the array, what it was and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trading_env.errors import PapertapeError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

ARCHITECTURE = "q-table"
COLUMNS, EDGES, VALUES, VISITS = ARRAYS = ("q_columns", "q_edges", "q_values", "q_visits")
SHARED = (COLUMNS, EDGES)  # by the seeds of one ensemble
ACTIONS = ("buy", "hold", "sell")
BUY, HOLD, SELL = 0, 1, 2
VIEW = 1.0  # a name that is to be held gets e^2 times the weight of one that is not
HELD = 0.75  # of the equal share: a name counts as held from there on; those that are not to be held end below it
MOST_STATES = 100_000


class QTableError(PapertapeError, ValueError):
    """Arrays that are no tables over these features."""


@dataclass(frozen=True, eq=False)
class QTables:
    """S tables over the same K features in B bins each. `columns` (K,): which; `edges` (K, B - 1): a value above one is in the next bin.

    `values` (S, 2, B^K, 3): not held and held, by state, by action; `visits`: likewise, how often training took the action there.
    """

    columns: IntArray
    edges: FloatArray
    values: FloatArray
    visits: FloatArray

    @classmethod
    def of(cls, arrays: Mapping[str, ArrayLike], *, seeds: int, features: int) -> Self:
        """The tables in `arrays`, under the names of `ARRAYS`, over `features` columns. Raises QTableError."""
        columns, edges, values, visits = (np.asarray(arrays[name]) for name in ARRAYS)
        if columns.ndim != 1 or not len(columns) or not np.issubdtype(columns.dtype, np.integer):
            raise QTableError(f"{COLUMNS} must be whole numbers of shape (features,), was {columns.dtype} {columns.shape}")
        if columns.min() < 0 or columns.max() >= features or len(np.unique(columns)) < len(columns):
            raise QTableError(f"{COLUMNS} must be distinct and lie in 0 to {features - 1}, was {columns.tolist()}")
        if edges.ndim != 2 or edges.shape[0] != len(columns) or edges.shape[1] < 1:
            raise QTableError(f"{EDGES} must be of shape ({len(columns)}, bins - 1), was {edges.shape}")
        states = (edges.shape[1] + 1) ** len(columns)
        if states > MOST_STATES:
            raise QTableError(f"{EDGES} must make at most {MOST_STATES:,} states, was {states:,}")
        shape = (seeds, 2, states, len(ACTIONS))
        for name, table in ((VALUES, values), (VISITS, visits)):
            if table.shape != shape:
                raise QTableError(f"{name} must be of shape {shape}, was {table.shape}")
        for name, numbers in ((EDGES, edges), (VALUES, values), (VISITS, visits)):
            if not np.issubdtype(numbers.dtype, np.floating) or not np.isfinite(numbers).all():
                raise QTableError(f"{name} must be finite floats, was {numbers.dtype}")
        if (np.diff(edges, axis=1) < 0).any() or (visits < 0).any():
            raise QTableError(f"{EDGES} must ascend and {VISITS} be at least 0")
        return cls(columns.astype(np.int64), edges.astype(np.float64), values.astype(np.float64), visits.astype(np.float64))

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {COLUMNS: self.columns, EDGES: self.edges, VALUES: self.values, VISITS: self.visits}

    @property
    def bins(self) -> int:
        return int(self.edges.shape[1]) + 1

    def scores(self, assets: FloatArray, tradable: BoolArray) -> FloatArray:
        """(S, A) of one observation's blocks (A, F + 2): features, held weight and mask."""
        holding = held(assets[:, -2], tradable)
        states = states_of(assets, columns=self.columns, edges=self.edges)
        stays = kept(greedy(self.values[:, holding.astype(np.int64), states]), holding)
        return np.where(tradable, np.where(stays, VIEW, -VIEW), 0.0)


def states_of(features: NDArray[np.floating[Any]], *, columns: IntArray, edges: FloatArray) -> IntArray:
    """(...) numbers of the states of finite features (..., F), the first column's bin being the most significant digit."""
    number = np.zeros(features.shape[:-1], dtype=np.int64)
    for column, bounds in zip(columns, edges, strict=True):
        number = number * (len(bounds) + 1) + np.searchsorted(bounds, features[..., column])
    return number


def held(weights: FloatArray, tradable: BoolArray) -> BoolArray:
    """(A,) which tradable names count as held: at least `HELD` of an equal share of what is held of all of them."""
    own = np.where(tradable, weights, 0.0)
    return np.asarray(tradable & (own > 0) & (own * np.count_nonzero(tradable) >= HELD * own.sum()))


def greedy(values: FloatArray) -> IntArray:
    """(...) the action of the highest value (..., 3); hold where it ties, buy before sell."""
    best = np.where(values[..., BUY] >= values[..., SELL], BUY, SELL)
    return np.where(values[..., HOLD] >= values.max(axis=-1), HOLD, best)


def kept(actions: IntArray, holding: BoolArray) -> BoolArray:
    """Whether a name is to be held after an action: it is bought, or is held and not sold."""
    return np.asarray((actions == BUY) | ((actions == HOLD) & holding))
