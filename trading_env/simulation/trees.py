"""Boosted trees as plain arrays: a forecast of each name from its own features, and what it is worth within its session.

Promise: NumPy alone, and the same bits for the same features, however many rows are asked for at once. A tree is perfect: each of its 2^D
leaves is D comparisons away, so arrays of the right shape are a tree, whatever they hold, and end. A forecast enters a policy, or a row
of the evaluation, only as its rank among the names that are tradable in that session: nothing of another session enters.
Failure: `TreesError`, naming the array, what it was and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trading_env.data.observation import Layout, Vector, unpack
from trading_env.errors import PapertapeError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

FEATURE, THRESHOLD, VALUE = ARRAYS = ("tree_feature", "tree_threshold", "tree_value")
NEVER = float(np.finfo(np.float64).max)  # the threshold of a node that does not split: nothing that is finite lies above it
CELLS = 1 << 20  # rows x trees that are computed together: what memory holds easily


class TreesError(PapertapeError, ValueError):
    """Arrays that are no trees over these features."""


@dataclass(frozen=True, eq=False)
class Trees:
    """N perfect trees of depth D. `feature`, `threshold` (N, 2^D - 1): the nodes, level by level, the children of i being 2i + 1 and
    2i + 2; a value above the threshold goes to the latter. `value` (N, 2^D): the leaves, from left to right. A forecast is their sum.
    """

    feature: NDArray[np.int64]
    threshold: FloatArray
    value: FloatArray

    @classmethod
    def of(cls, arrays: Mapping[str, ArrayLike], *, features: int) -> Self:
        """The trees in `arrays`, under the names of `ARRAYS`, over `features` columns. Raises TreesError."""
        feature, threshold, value = (np.asarray(arrays[name]) for name in ARRAYS)
        leaves = value.shape[-1] if value.ndim == 2 else 0
        if leaves < 2 or leaves & (leaves - 1) or not len(value):
            raise TreesError(f"{VALUE} must be of shape (trees, 2^depth), was {value.shape}")
        for name, nodes in ((FEATURE, feature), (THRESHOLD, threshold)):
            if nodes.shape != (len(value), leaves - 1):
                raise TreesError(f"{name} must be of shape {(len(value), leaves - 1)}, was {nodes.shape}")
        for name, numbers in ((THRESHOLD, threshold), (VALUE, value)):
            if not np.issubdtype(numbers.dtype, np.floating):
                raise TreesError(f"{name} must hold floats, was {numbers.dtype}")
            if not np.isfinite(numbers).all():
                raise TreesError(f"{name} must be finite, was {numbers[~np.isfinite(numbers)][0]}")
        if not np.issubdtype(feature.dtype, np.integer):
            raise TreesError(f"{FEATURE} must hold whole numbers, was {feature.dtype}")
        if feature.min() < 0 or feature.max() >= features:
            raise TreesError(f"{FEATURE} must lie in 0 to {features - 1}, was {feature.min()} to {feature.max()}")
        return cls(feature.astype(np.int64), threshold.astype(np.float64), value.astype(np.float64))

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {FEATURE: self.feature, THRESHOLD: self.threshold, VALUE: self.value}

    def predict(self, inputs: FloatArray) -> FloatArray:
        """(n,) forecasts from finite features (n, F)."""
        block = max(CELLS // len(self.value), 1)
        return np.concatenate([self._predict(inputs[first : first + block]) for first in range(0, max(len(inputs), 1), block)])

    def _predict(self, inputs: FloatArray) -> FloatArray:
        trees, nodes = self.feature.shape
        flat, begin = inputs.ravel(), np.arange(len(inputs)) * inputs.shape[1]
        tree = np.arange(trees)[:, None]
        node = np.zeros((trees, len(inputs)), dtype=np.int64)
        for _ in range(nodes.bit_length()):
            at = node + tree * nodes
            node = 2 * node + 1 + (flat.take(begin + self.feature.take(at)) > self.threshold.take(at))
        leaf = node - nodes + tree * (nodes + 1)
        return np.asarray(np.add.reduce(self.value.take(leaf), axis=0))

    def scores(self, features: NDArray[Any], tradable: BoolArray) -> FloatArray:
        """(N, A) from features (N, A, F), as an observation holds them, and the mask (N, A): `session_ranks` of the forecasts."""
        seen = features.astype(np.float32).astype(np.float64)  # the precision of an observation, also where features come from a market
        return session_ranks(self.predict(seen.reshape(-1, seen.shape[-1])).reshape(tradable.shape), tradable)


def session_ranks(values: FloatArray, tradable: BoolArray) -> FloatArray:
    """(N, A) ranks of `values` within each row's tradable names, centred, in units that deviate by 1 when no two are equal.

    Equal values have the mean of their ranks; 0 for an untradable name, and for one that is alone.
    """
    ranks = np.zeros(values.shape)
    for row, names in enumerate(tradable):
        own = values[row, names]
        if (count := len(own)) > 1:
            order = np.sort(own)
            twice = np.searchsorted(order, own, "left") + np.searchsorted(order, own, "right") - count
            ranks[row, names] = twice / 2 / np.sqrt((count**2 - 1) / 12)
    return ranks


def with_forecast(vectors: Vector, *, layout: Layout, trees: Trees) -> tuple[Vector, Layout]:
    """Observations (N, width) with the forecast behind each asset's features, as one feature more, and their layout."""
    parts, features = unpack(vectors, layout=layout), layout.features
    forecast = trees.scores(parts.assets[..., :features], parts.tradable).astype(np.float32)
    assets = np.concatenate([parts.assets[..., :features], forecast[..., None], parts.assets[..., features:]], axis=-1)
    wider = Layout(assets=layout.assets, features=features + 1, context=layout.context)
    return np.concatenate([assets.reshape(len(vectors), -1), parts.rest], axis=1), wider
