"""A forecast of each name's return: boosted trees by scikit-learn, fitted inside a fold, leaving as the arrays of `Trees`.

What is forecast is the log return from the next open over 21 sessions, neutral within its session: less its mean, and less what the
names' beta and volatility explain of it, both of the last 63 returns at that close.
Promise: nothing but the market's own rows enters, and no label that needs a session after the last of them; the same rows give the same
trees, whatever the seed of the policy and the number of threads. The fit is blind to chance: no sampling, no early stop. The trees'
forecast is the library's to 1e-9. Failure: `ForecastError` where rows hold no label.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trading_env.data import cross_section as across
from trading_env.data.bars import adjust_forward
from trading_env.data.observation import Layout, Observation, unpack
from trading_env.errors import PapertapeError
from trading_env.evaluation.walk_forward import Fold, WalkForward
from trading_env.simulation.trees import FEATURE, NEVER, THRESHOLD, VALUE, Trees

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trading_env.data.market import Market

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]

ROW = "trees"
HORIZON, QUARTER = 21, 63
REACH = HORIZON + 1  # sessions after the close that a label needs: it begins at the next open
BOUND = 3.0  # deviations: one name's accident must not be what the trees explain
BLOCKS = 5  # of sessions, each forecast by trees that never saw it
MOST_ROWS = 200_000  # of a larger universe every so-many-th session: the labels of neighbours overlap anyway
DEPTH = 3
HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 0.05,
    "max_iter": 150,
    "max_depth": DEPTH,
    "max_leaf_nodes": 2**DEPTH,
    "l2_regularization": 1.0,
    "early_stopping": False,
    "random_state": 0,
}
SMALLEST_LEAF = 0.01  # of the rows
DECIMALS = 4  # of a label: the last bits of a logarithm are the processor's, and the seeds of a fold, each on its own, share their trees


class ForecastError(PapertapeError, ValueError):
    """There is nothing to fit; the message says of which sessions."""


@dataclass(frozen=True)
class TreesPolicy:
    """The row of an evaluation: the forecast's ranks are the scores."""

    trees: Trees
    features: int
    kappa: float
    name: str = ROW

    def scores(self, observation: Observation) -> FloatArray:
        names = len(observation.symbols)
        layout = Layout(assets=names, features=self.features, context=len(observation.vector) - names * (self.features + 2) - 1)
        parts = unpack(observation.vector, layout=layout)
        return np.asarray(self.trees.scores(parts.assets[None, :, : self.features], parts.tradable[None])[0])


def row(market: Market, folds: Sequence[Fold], *, kappa: float) -> WalkForward:
    """The policy of each fold's trees, fitted on the fold's training rows alone. Raises ForecastError."""
    policies = [
        TreesPolicy(fit(market.rows(fold.train_start, fold.train_end)), features=market.features.shape[-1], kappa=kappa) for fold in folds
    ]
    return WalkForward(policies, folds=folds, sessions=market.sessions, name=ROW)


def fit(market: Market) -> Trees:
    """The trees of all rows of the market that have a label."""
    labels = neutral_labels(market)
    return _fit(market, labels, np.ones(len(market), dtype=bool))


def cross_fit(market: Market, *, purge: int) -> FloatArray:
    """(T, A) out-of-fold scores, NaN where a name is not tradable: each of `BLOCKS` runs of rows by trees that were fitted on the
    others, without the rows whose label reaches into the block, as many after it, and `purge` rows more on both sides.
    """
    labels, scores = neutral_labels(market), np.full(market.tradable.shape, np.nan)
    for block in np.array_split(np.arange(len(market)), BLOCKS):
        apart = np.ones(len(market), dtype=bool)
        apart[max(block[0] - REACH - purge, 0) : block[-1] + 1 + REACH + purge] = False
        trees, own = _fit(market, labels, apart), market.tradable[block]
        known = np.where(own[..., None], market.features[block], 0.0)
        scores[block] = np.where(own, trees.scores(known, own), np.nan)
    return scores


def with_column(market: Market, scores: FloatArray) -> Market:
    """The market with `scores` (T, A) as its last feature, which is how a policy is trained on a forecast."""
    return replace(market, features=np.concatenate([market.features, scores[..., None]], axis=-1))


def neutral_labels(market: Market) -> FloatArray:
    """(T, A) what is forecast, in units of its deviation within the session, within `BOUND`; NaN where there is none: a name without its
    prices of the 21 sessions or of the 63 before, a session after which too few are left, or one whose names all moved alike.
    """
    names = ("open", "high", "low", "close", "volume", "split", "dividend")
    adjusted = adjust_forward(**{name: getattr(market, name) for name in names})
    opens = np.log(adjusted.open)
    label = np.full(opens.shape, np.nan)
    label[:-REACH] = opens[REACH:] - opens[1:-HORIZON]
    beta, volatility = _exposures(np.log(adjusted.close))
    known = market.tradable & np.isfinite(label) & np.isfinite(beta) & np.isfinite(volatility)
    count = known.sum(axis=1, keepdims=True)
    label = np.where(known, label, np.nan)
    mean = across.mean(label.T)[:, None]
    # Of a few names beta and volatility would leave nothing
    label = np.where(count >= across.LEAST_NAMES, across.residuals(label.T, beta.T, volatility.T).T, label - mean)
    label = np.where(known, label, 0.0)
    deviation = np.sqrt(np.sum(label**2, axis=1, keepdims=True) / np.maximum(count, 1))
    moved = known & (deviation > 1e-8)
    return np.where(moved, np.clip(label / np.where(deviation > 1e-8, deviation, 1.0), -BOUND, BOUND), np.nan)


def _exposures(closes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(T, A) beta to the mean of all names, and volatility, of the last `QUARTER` returns of log closes; a halt's close is the last one."""
    returns = pd.DataFrame(closes).ffill().diff().to_numpy()
    known = np.isfinite(returns)
    together = np.sum(returns, axis=1, where=known, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)

    def mean(values: FloatArray) -> FloatArray:
        """Over the last QUARTER rows; NaN where one of them is."""
        whole = np.isfinite(values)
        sums = np.cumsum(np.where(whole, values, 0.0), axis=0)
        missing = np.cumsum(~whole, axis=0)
        found = np.full(values.shape, np.nan)
        lag = np.vstack([np.zeros((1, values.shape[1])), sums[:-QUARTER]])
        gone = np.vstack([np.zeros((1, values.shape[1])), missing[:-QUARTER]])
        found[QUARTER - 1 :] = np.where(missing[QUARTER - 1 :] == gone, (sums[QUARTER - 1 :] - lag) / QUARTER, np.nan)
        return found

    average, common = mean(returns), mean(together)
    spread = np.maximum(mean(together**2) - common**2, 1e-12)
    return (mean(returns * together) - average * common) / spread, np.sqrt(np.maximum(mean(returns**2) - average**2, 0.0))


def _fit(market: Market, labels: FloatArray, sessions: BoolArray) -> Trees:
    """The trees of the labelled rows of `sessions` (T,)."""
    chosen = np.isfinite(labels) & sessions[:, None]
    every = -(-int(chosen.sum()) // MOST_ROWS)
    if every > 1:
        chosen &= (np.arange(len(market)) % every == 0)[:, None]
    if not chosen.any():
        raise ForecastError(
            f"a forecast needs sessions with {QUARTER} returns before and {REACH} after, "
            f"those of {market.sessions[0]} to {market.sessions[-1]} have none"
        )
    return _grown(market.features[chosen].astype(np.float32).astype(np.float64), labels[chosen].round(DECIMALS))


def _grown(features: FloatArray, labels: FloatArray) -> Trees:
    """Trees over features (n, F) and labels (n,). One thread: seeds run side by side."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    model = HistGradientBoostingRegressor(min_samples_leaf=max(int(SMALLEST_LEAF * len(labels)), 2), **HYPERPARAMETERS)
    with threadpool_limits(limits=1, user_api="openmp"):
        model.fit(features, labels)
    return exported(model)


def exported(model: Any) -> Trees:
    """The arrays of a fitted HistGradientBoostingRegressor of depth `DEPTH`; they forecast what it predicts."""
    grown = [_perfect(predictor.nodes) for (predictor,) in model._predictors]  # noqa: SLF001  the library shows its nodes nowhere else
    feature, threshold, value = (np.stack(arrays) for arrays in zip(*grown, strict=True))
    value[0] += model._baseline_prediction.item()  # noqa: SLF001
    return Trees.of({FEATURE: feature, THRESHOLD: threshold, VALUE: value}, features=model.n_features_in_)


def _perfect(nodes: NDArray[Any]) -> tuple[NDArray[Any], FloatArray, FloatArray]:
    """One tree of the library's as a perfect one: below a leaf stand nodes that never split, and leaves of its value."""
    feature, threshold = np.zeros(2**DEPTH - 1, dtype=np.int64), np.full(2**DEPTH - 1, NEVER)
    at = np.zeros(1, dtype=np.int64)
    for level in range(DEPTH):
        leaf, here = nodes["is_leaf"][at].astype(bool), slice(2**level - 1, 2 ** (level + 1) - 1)
        feature[here] = np.where(leaf, 0, nodes["feature_idx"][at])
        threshold[here] = np.where(leaf, NEVER, nodes["num_threshold"][at])
        at = np.stack([np.where(leaf, at, nodes[side][at]) for side in ("left", "right")], axis=1).ravel()
    return feature, threshold, nodes["value"][at].astype(np.float64)
