"""The gradient of the scores is what the scores do when an input is moved: for networks, books and names of every kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trading_env.data.observation import Layout, Observation, observe
from trading_env.simulation.policy import NumpyPolicy, PolicyCard, PolicyError, array_shapes
from trading_env.simulation.score_gradient import score_gradient

CARD = PolicyCard(
    features=("f0", "f1", "f2"),
    context=("c0", "c1"),
    feature_hash="abc",
    schema_version=1,
    kappa=0.1,
    trained_on=("S0",),
    train_start="2006-01-03",
    train_end="2015-12-31",
    seeds=(0, 1),
    code_version="test",
)
STEP = 1e-5  # standard deviations: the error of the central difference is far below 1e-6 of the slope
TREE_FEATURE = np.array([[0, 1, 2], [2, 0, 1]])


@st.composite
def policies(draw: st.DrawFn) -> NumpyPolicy:
    seeds, forecast = draw(st.integers(1, 3)), draw(st.booleans())
    card = replace(CARD, seeds=tuple(range(seeds)), forecast="trees" if forecast else "none")
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    scale = draw(st.sampled_from([0.02, 0.2, 0.6]))
    arrays = {name: rng.normal(0, scale, shape) for name, shape in array_shapes(seeds=seeds, inputs=card.inputs).items()}
    arrays |= {"mu": rng.normal(size=card.inputs), "sigma": rng.uniform(0.3, 3.0, card.inputs)}
    if draw(st.booleans()):
        arrays["w4"] *= 20  # seeds whose scores are clipped
    if forecast:
        arrays |= {"tree_feature": TREE_FEATURE, "tree_threshold": rng.normal(size=(2, 3)), "tree_value": rng.normal(size=(2, 4))}
    return NumpyPolicy(arrays, card)


@settings(max_examples=60, deadline=None)
@given(policy=policies(), assets=st.integers(1, 6), seed=st.integers(0, 2**16), masked=st.integers(0, 63))
def test_moving_an_input_moves_the_scores_by_the_gradient(policy: NumpyPolicy, assets: int, seed: int, masked: int) -> None:
    rng = np.random.default_rng(seed)
    tradable = np.array([not masked >> place & 1 for place in range(assets)])
    assume(tradable.any())
    vector = observe(rng.normal(size=(assets, 3)), rng.normal(size=2), tradable, rng.dirichlet(np.ones(assets)), 0.05)
    symbols = tuple(f"S{place}" for place in range(assets))
    observed = Observation(as_of=np.datetime64("2020-01-02"), symbols=symbols, vector=vector)
    found = score_gradient(policy, observed)

    np.testing.assert_array_equal(found.names, np.flatnonzero(tradable))
    assert found.gradient.shape == found.value.shape == (tradable.sum(), len(found.inputs))
    layout, at = Layout(assets=assets, features=3, context=2), observed.vector.astype(np.float64)
    sigma = _by_input(policy)
    for row, name in enumerate(found.names):
        for column, label in enumerate(found.inputs):
            if label == "forecast":
                continue  # an input of the network alone: the observation does not hold it
            place = _place(label, name, layout, policy.card)
            moved = [at.copy(), at.copy()]
            moved[0][place] += STEP * sigma[label]
            moved[1][place] -= STEP * sigma[label]
            up, down = (policy.scores(one)[name] for one in moved)
            assert abs((up - down) / (2 * STEP) - found.gradient[row, column]) < 1e-6 * (1 + abs(found.gradient[row, column])), label


def _by_input(policy: NumpyPolicy) -> dict[str, float]:
    card, sigma = policy.card, policy.arrays["sigma"]
    own = [*card.features, *(["forecast"] if card.forecast == "trees" else []), "held_weight", "mask"]
    return dict(zip([*own, "cash_weight", *card.context], sigma.tolist(), strict=True))


def _place(label: str, name: int, layout: Layout, card: PolicyCard) -> int:
    """Where the observation holds an input."""
    own, shared = [*card.features, "held_weight"], ["cash_weight", *card.context]
    pitch = layout.features + 2
    return int(name) * pitch + own.index(label) if label in own else layout.assets * pitch + shared.index(label)


def test_a_table_of_action_values_has_none() -> None:
    table = {
        "q_columns": np.array([0]),
        "q_edges": np.zeros((1, 1)),
        "q_values": np.zeros((1, 2, 2, 3)),
        "q_visits": np.zeros((1, 2, 2, 3)),
    }
    card = replace(CARD, seeds=(0,), architecture="q-table")
    policy = NumpyPolicy({"mu": np.zeros(card.inputs), "sigma": np.ones(card.inputs), **table}, card)
    vector = observe(np.zeros((1, 3)), np.zeros(2), np.array([True]), np.array([0.9]), 0.1)
    with pytest.raises(PolicyError, match="the architecture q-table move in steps, they have no gradient"):
        score_gradient(policy, Observation(as_of=np.datetime64("2020-01-02"), symbols=("S0",), vector=vector))
