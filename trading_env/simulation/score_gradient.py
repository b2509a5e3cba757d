"""Why a network gave its scores: the derivative of each name's score by what the network reads of that name, and by what all names share.

Promise: the exact derivative of `NumpyPolicy.scores` at one observation, in closed form and float64, where there is one: the clip of a
seed's score at its limit has slope 0 beyond it, and the forecast of trees moves in steps, so it stands as an input of its own and what a
feature does through it is not in the feature's derivative. Everything is per standard deviation of the input over the training, and an
input's value is its distance from its mean there in the same unit. Pure. Failure: what `NumpyPolicy.scores` raises, and `PolicyError` for
a policy that is no network: a table of action values has no gradient.

The formulas, with h of a name, m its mean over the n tradable names, r a seed's raw score, p its softmax share, k 1 within the clip:
score_i = log(mean over seeds of p_i), so dscore_i = sum over seeds of w_i (dc_i - sum_j p_j dc_j) with w_i = p_i / (sum over seeds of p_i)
and dc_j = k_j (dr_j - mean of dr). A name's own inputs reach every r through m: one backward pass per seed carries both ways. An input
that all names share is one tangent forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading_env.data.observation import Layout, Observation, unpack
from trading_env.simulation.policy import ARCHITECTURE, HIDDEN, SCORE_LIMIT, NumpyPolicy, PolicyError

FloatArray = NDArray[np.float64]

FORECAST, HELD, CASH = "forecast", "held_weight", "cash_weight"


@dataclass(frozen=True, eq=False)
class ScoreGradient:
    """Of the n tradable names, whose places among the observation's names are `names` (n,); `inputs` names the K columns of the rest.

    `scores` (A,): those of the policy, of every name.
    `gradient` (n, K): change of the name's score per standard deviation of the input. `value` (n, K): the input, in standard deviations
    from its mean over the training. The first `own` columns are the name's own, the others are shared by all names.
    """

    scores: FloatArray
    names: NDArray[np.int64]
    inputs: tuple[str, ...]
    own: int
    gradient: FloatArray
    value: FloatArray

    @property
    def contribution(self) -> FloatArray:
        """(n, K) gradient x input: what the score has, to the first order, from an input that is not at its mean."""
        return self.gradient * self.value


def score_gradient(policy: NumpyPolicy, observation: Observation) -> ScoreGradient:
    """The gradient of `policy.scores(observation)`; an untradable name has none, and none of the others depends on it."""
    scores = policy.scores(observation)
    card, a = policy.card, policy.arrays
    if card.architecture != ARCHITECTURE:
        raise PolicyError(f"scores of the architecture {card.architecture} move in steps, they have no gradient")
    layout = Layout.of_width(len(observation.vector), features=len(card.features), context=len(card.context))
    (seen,), wider = policy.inputs(observation.vector[None], layout)
    parts, block = unpack(seen, layout=wider), card.block
    names = np.flatnonzero(parts.tradable)
    own = (parts.assets[names].astype(np.float64) - a["mu"][:block]) / a["sigma"][:block]
    shared = (parts.rest.astype(np.float64) - a["mu"][block:]) / a["sigma"][block:]
    inputs = (*card.features, *((FORECAST,) if card.forecast != "none" else ()), HELD, CASH, *card.context)
    by_own, by_shared = _gradient(a, own, shared) if len(names) else (own, np.empty((0, len(shared))))
    return ScoreGradient(
        scores=scores,
        names=names,
        inputs=inputs,
        own=block - 1,
        gradient=np.concatenate([by_own[:, :-1], by_shared], axis=1),  # the mask is no quantity
        value=np.concatenate([own[:, :-1], np.broadcast_to(shared, (len(names), len(shared)))], axis=1),
    )


def _gradient(a: dict[str, NDArray[Any]], own: FloatArray, shared: FloatArray) -> tuple[FloatArray, FloatArray]:
    """By `own` (n, B) and by `shared` (G,), standardised: (n, B) and (n, G). Arrays of the network are (seeds S, n, HIDDEN)."""
    block, head, head_mean = own.shape[1], a["w3"][:, :HIDDEN], a["w3"][:, HIDDEN:]
    inputs = np.concatenate([own, np.broadcast_to(shared, (len(own), len(shared)))], axis=1)
    first = np.tanh(inputs @ a["w1"] + a["b1"][:, None])
    second = np.tanh(first @ a["w2"] + a["b2"][:, None])
    joint = np.tanh(second @ head + second.mean(axis=1, keepdims=True) @ head_mean + a["b3"][:, None])
    slope1, slope2, slope3 = 1 - first**2, 1 - second**2, 1 - joint**2

    raw = joint @ a["w4"][:, :, None]
    centred = (raw - raw.mean(axis=1, keepdims=True))[:, :, 0]
    within = (np.abs(centred) < SCORE_LIMIT).astype(np.float64)
    mass = np.exp(np.clip(centred, -SCORE_LIMIT, SCORE_LIMIT))
    share = mass / mass.sum(axis=1, keepdims=True)
    of_seed = share / share.sum(axis=0)

    def to_scores(change: FloatArray) -> FloatArray:
        """(n,) changes of the scores from those of the raw scores (S, n)."""
        moved = within * (change - change.mean(axis=1, keepdims=True))
        return np.asarray((of_seed * (moved - (share * moved).sum(axis=1, keepdims=True))).sum(axis=0))

    # Backwards to each name's h: by the name's own raw score, and by everyone's through the mean
    back = slope3 * a["w4"][:, None]
    by_own, by_mean = back @ head.transpose(0, 2, 1), back @ head_mean.transpose(0, 2, 1)
    count = len(own)
    inside = (share * within).sum(axis=1, keepdims=True)
    onto_itself = of_seed * (within - within / count - share * within + inside / count)
    average = by_mean.mean(axis=1, keepdims=True)
    everyone = ((share * within)[:, :, None] * by_mean).sum(axis=1, keepdims=True) - inside[:, :, None] * average
    through_mean = of_seed[:, :, None] * (within[:, :, None] * (by_mean - average) - everyone)
    to_encoding = onto_itself[:, :, None] * by_own + through_mean / count
    encoder = ((to_encoding * slope2) @ a["w2"].transpose(0, 2, 1)) * slope1
    own_gradient = (encoder @ a["w1"][:, :block].transpose(0, 2, 1)).sum(axis=0)

    shared_gradient = np.empty((count, len(shared)))
    for column in range(len(shared)):
        second_moved = slope2 * ((slope1 * a["w1"][:, block + column, None]) @ a["w2"])
        joint_moved = slope3 * (second_moved @ head + second_moved.mean(axis=1, keepdims=True) @ head_mean)
        shared_gradient[:, column] = to_scores((joint_moved @ a["w4"][:, :, None])[:, :, 0])
    return own_gradient, shared_gradient
