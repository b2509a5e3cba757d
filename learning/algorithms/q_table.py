"""A trained Q-table for people: what each number means in words, ready for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trading_env.data.features import FEATURES
from trading_env.simulation.policy import PolicyError
from trading_env.simulation.q_table import ACTIONS, ARCHITECTURE, QTables, greedy

if TYPE_CHECKING:
    from trading_env.simulation.policy import NumpyPolicy

SCHEMA = 1
WORDS = {2: ("low", "high"), 3: ("low", "middle", "high")}
FORMULAS = {feature.name: feature.formula for feature in FEATURES}


def q_table(policy: NumpyPolicy) -> dict[str, Any]:
    """The table of an artifact, of several seeds their mean; raises PolicyError when it holds none.

    `features`: name, formula and bins, each with `above` and `up_to` (None at the ends) and words. `states`: for each combination of bins,
    not held and held, the three `values` (basis points of log growth over equal weight, to come, discounted), the `visits` of training
    over all seeds, the `greedy` action, and the share of the seeds that `agree` with it. `visited`: the share of all that were tried.
    """
    card = policy.card
    if card.architecture != ARCHITECTURE:
        raise PolicyError(f"a table of action values is in an artifact of the architecture {ARCHITECTURE}, was {card.architecture}")
    tables = QTables.of(policy.arrays, seeds=len(card.seeds), features=len(card.features))
    names = [card.features[column] for column in tables.columns]
    features = [_feature(name, edges.tolist()) for name, edges in zip(names, tables.edges, strict=True)]
    digits = np.stack(np.unravel_index(np.arange(tables.values.shape[2]), (tables.bins,) * len(names)), axis=-1)
    return {
        "schema": SCHEMA,
        "actions": list(ACTIONS),
        "unit": "basis points of log growth over equal weight, to come, discounted",
        "seeds": list(card.seeds),
        "train_start": card.train_start,
        "train_end": card.train_end,
        "visited": float((tables.visits > 0).mean()),
        "features": features,
        "states": [
            _state(tables, state, held=held, bins=digits[state].tolist(), features=features)
            for state in range(len(digits))
            for held in (0, 1)
        ],
    }


def _feature(name: str, edges: list[float]) -> dict[str, Any]:
    words = WORDS.get(len(edges) + 1, tuple(f"part {number + 1} of {len(edges) + 1}" for number in range(len(edges) + 1)))
    bounds = [None, *edges, None]
    bins = [
        {"above": above, "up_to": up_to, "name": word, "words": f"{word}: {_between(name, above, up_to)}"}
        for word, above, up_to in zip(words, bounds, bounds[1:], strict=False)
    ]
    return {"name": name, "formula": FORMULAS.get(name, ""), "bins": bins}


def _between(name: str, above: float | None, up_to: float | None) -> str:
    if above is None:
        return f"{name} up to {up_to:.4g}"
    return f"{name} above {above:.4g}" if up_to is None else f"{name} above {above:.4g}, up to {up_to:.4g}"


def _state(tables: QTables, state: int, *, held: int, bins: list[int], features: list[dict[str, Any]]) -> dict[str, Any]:
    own = tables.values[:, held, state]
    values, visits = own.mean(axis=0), tables.visits[:, held, state].sum(axis=0)
    best = int(greedy(values))
    return {
        "bins": bins,
        "words": [feature["bins"][number]["name"] for feature, number in zip(features, bins, strict=True)],
        "held": bool(held),
        "values": dict(zip(ACTIONS, values.round(4).tolist(), strict=True)),
        "visits": dict(zip(ACTIONS, visits.astype(int).tolist(), strict=True)),
        "greedy": ACTIONS[best],
        "agree": float((greedy(own) == best).mean()),
    }
