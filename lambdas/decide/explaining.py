"""Why a model gave the scores that were decided on: the gradient of its network, from the package that its endpoint serves.

Promise: never a reason not to trade. A package that cannot be read, or not within `TIMEOUT`, or whose scores are not those that were
decided on, gives an explanation that says so. A warm function reads a package once. Everything is rounded to `PLACES`, so that the same
decision has the same record.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

from lambdas.common.ledger.explanation import Cause, Explanation
from lambdas.common.ledger.records import ServedModel
from lambdas.decide.decision import ObservedState
from lambdas.decide.endpoint import Scores
from lambdas.decide.package import PackageError, verified_policy
from trading_env.data.observation import ObservationError
from trading_env.simulation.policy import NumpyPolicy, PolicyError
from trading_env.simulation.score_gradient import FORECAST, ScoreGradient, score_gradient

TIMEOUT = 1.0  # seconds
PLACES = 6
TOP = 5  # of a name's inputs, by what they contribute
AGREEMENT = 1e-9  # an endpoint runs the same code on the same numbers, perhaps on another processor
GRADIENT = "the gradient of each score, per standard deviation of the input over the training"
STEPS = f"the trees' forecast moves in steps: {FORECAST} is an input of its own, and what a feature does through it is not in the feature's"


def explanation_of(model: ServedModel, *, observed: ObservedState, scored: Scores, s3: Any) -> Explanation:
    """Explain `scored`, the scores of `model` for what was observed."""
    if model.policy != "endpoint":
        return Explanation(
            kind="rule", says=f"{model.spec} is a rule: its scores read nothing of the observation, so they have no gradient"
        )
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        found = pool.submit(_gradient, s3, model, observed=observed).result(timeout=TIMEOUT)
    except TimeoutError:
        return _missing(f"{model.model_uri} was not read within {TIMEOUT:g} s")
    except (PackageError, PolicyError, ObservationError) as error:
        return _missing(str(error))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if not np.allclose(found.scores, scored.values, rtol=0, atol=AGREEMENT):
        return _missing(f"the package of model {model.model_version} gives other scores than were decided on")
    if not (np.isfinite(found.gradient).all() and np.isfinite(found.value).all()):
        return _missing(f"the gradient of model {model.model_version} is beyond what a number can hold")
    return _rounded(found, observed.observation.symbols)


def _gradient(s3: Any, model: ServedModel, *, observed: ObservedState) -> ScoreGradient:
    return score_gradient(_known_policy(s3, model, observed.feature_hash, observed.slots), observed.observation)


@lru_cache(maxsize=4)
def _known_policy(s3: Any, model: ServedModel, feature_hash: str, slots: tuple[str, ...]) -> NumpyPolicy:
    return verified_policy(s3, model, feature_hash=feature_hash, slots=slots)


def _missing(why: str) -> Explanation:
    return Explanation(kind="missing", says=f"not explained: {why}")


def _rounded(found: ScoreGradient, symbols: tuple[str, ...]) -> Explanation:
    gradient, value, contribution = (np.round(one, PLACES) + 0.0 for one in (found.gradient, found.value, found.contribution))
    named = [symbols[place] for place in found.names]
    return Explanation(
        kind="gradient",
        says=f"{GRADIENT}; {STEPS}" if FORECAST in found.inputs else GRADIENT,
        inputs=found.inputs,
        gradient={symbol: tuple(row.tolist()) for symbol, row in zip(named, gradient, strict=True)},
        contribution={symbol: tuple(row.tolist()) for symbol, row in zip(named, contribution, strict=True)},
        top={
            symbol: tuple(
                Cause(
                    input=found.inputs[column],
                    gradient=float(gradient[row, column]),
                    value=float(value[row, column]),
                    contribution=float(contribution[row, column]),
                )
                for column in np.argsort(-np.abs(contribution[row]), kind="stable")[:TOP]
            )
            for row, symbol in enumerate(named)
        },
    )
