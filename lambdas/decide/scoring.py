"""From an observed state to target weights by a model: is it young enough, what are its scores, can they be traded on.

Promise: scores are a rule's own, the endpoint's, or those of the very package that the endpoint serves, verified by its hash; whatever
makes a model or its scores doubtful is `NoTrade`, which names the health rule.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
from numpy.typing import NDArray

from lambdas.common.ledger.records import ServedModel
from lambdas.decide.decision import ObservedState, target
from lambdas.decide.edges import Edges, NoTrade
from lambdas.decide.endpoint import EndpointError, Retries, Scores, ask_again
from lambdas.decide.package import PackageError, score_package
from schema.settings import Settings
from trading_env.simulation.policy import PolicyError, make_policy

#: The share of a model's inputs that may lie outside of its training's envelope. The worst day of 2008 has 8 % of them there, March 2020
#: 2 %: beyond 10 % it is another world, or broken data.
OUTSIDE_LIMIT = 0.10

Array = NDArray[np.float64]


def refuse_stale(model: ServedModel, *, session: date, settings: Settings) -> None:
    """A model's age counts from the last data it was trained or judged on, else from its deployment."""
    if model.policy != "endpoint":
        return
    age = (session - model.known_until).days
    if age > settings.risk.max_model_age_days:
        limit = settings.risk.max_model_age_days
        raise NoTrade("stale-model", f"model {model.model_version} may be {limit} days old, was {age}; train again with later dates")


def scores_of(model: ServedModel, *, observed: ObservedState, edges: Edges, retries: Retries) -> Scores:
    """A rule's scores, or the endpoint's; or, when it gives none for as long as `retries` last, those of the package that it serves."""
    if model.policy != "endpoint":
        try:
            return Scores(make_policy(model.spec).scores(observed.observation))
        except PolicyError as error:
            raise NoTrade("model-unavailable", str(error)) from error
    table = observed.feature_hash
    if model.feature_hash != table:
        raise NoTrade("model-unavailable", f"model {model.model_version} needs feature table {model.feature_hash}, was {table}")
    try:
        scored = _asked(model, observed=observed, edges=edges, retries=retries)
    except EndpointError as silence:
        try:
            own = score_package(s3=edges.lake.s3, model=model, observation=observed.observation, feature_hash=table, slots=observed.slots)
        except PackageError as error:
            raise NoTrade("model-unavailable", f"{silence}; and without it: {error}") from error
        scored = replace(own, fallback=str(silence))
    _refuse_out_of_envelope(model, scored)
    return scored


def _asked(model: ServedModel, *, observed: ObservedState, edges: Edges, retries: Retries) -> Scores:
    observation = observed.observation
    return ask_again(
        retries=retries,
        runtime=edges.runtime,
        model=model,
        as_of=date.fromisoformat(str(observation.as_of.astype("datetime64[D]"))),
        symbols=observation.symbols,
        observation=observation.vector,
        slots=observed.slots,
    )


def _refuse_out_of_envelope(model: ServedModel, scored: Scores) -> None:
    if scored.outside is not None and scored.outside > OUTSIDE_LIMIT:
        share = f"{scored.outside:.1%} of its inputs lie outside of what it was trained on, at most {OUTSIDE_LIMIT:.0%}"
        raise NoTrade("out-of-envelope", f"model {model.model_version}: {share}")


def weights_of(model: ServedModel, *, observed: ObservedState, values: Array) -> dict[str, float]:
    if not observed.tradable.any():
        raise NoTrade("no-observation", f"no name is tradable at the close of {observed.observation.as_of}")
    return target(observed=observed, scores=values, kappa=model.kappa)
