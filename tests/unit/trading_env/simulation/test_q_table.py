"""A table of action values as an artifact: what it scores, how it is kept, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trading_env.data.observation import Layout, observe
from trading_env.simulation.policy import (
    NumpyPolicy,
    PolicyCard,
    PolicyError,
    load_policy,
    outside,
    save_policy,
    stack_policies,
    weights_from_scores,
)
from trading_env.simulation.q_table import ACTIONS, greedy, held, states_of

FEATURES = ("one", "two", "three")
CARD = PolicyCard(
    features=FEATURES,
    context=("market",),
    feature_hash="of a test",
    schema_version=1,
    kappa=1.0,
    trained_on=("AAA", "BBB"),
    train_start="2010-01-04",
    train_end="2012-01-03",
    seeds=(0,),
    code_version="test",
    architecture="q-table",
)
BUYS, HOLDS, SELLS = ([1.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 1.0])


def arrays(*, of: Mapping[tuple[int, int], list[float]] | None = None) -> dict[str, Any]:
    """One feature of two bins, `three` up to 0 and above; values by (held, state), 0 where none are given."""
    values = np.zeros((1, 2, 2, 3))
    for (holding, state), row in (of or {}).items():
        values[0, holding, state] = row
    return {
        "mu": np.zeros(CARD.inputs),
        "sigma": np.ones(CARD.inputs),
        "q_columns": np.array([2]),
        "q_edges": np.array([[0.0]]),
        "q_values": values,
        "q_visits": np.ones_like(values),
    }


def vector(third: list[float], weights: list[float], tradable: list[bool] | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
    features = np.zeros((len(third), 3))
    features[:, 2] = third
    mask = np.ones(len(third), dtype=bool) if tradable is None else np.array(tradable)
    return observe(features, np.zeros(1), mask, np.array(weights), 1 - sum(weights))


def target(policy: NumpyPolicy, seen: np.ndarray[Any, np.dtype[np.float32]], weights: list[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return weights_from_scores(policy.scores(seen), np.array(weights), np.ones(len(weights), dtype=bool), kappa=policy.kappa)


class TestScores:
    def test_what_is_bought_gets_more_than_what_is_sold(self):
        policy = NumpyPolicy(arrays(of={(0, 0): SELLS, (0, 1): BUYS, (1, 0): SELLS, (1, 1): BUYS}), CARD)
        weights = target(policy, vector([-0.5, 0.5], [0.5, 0.5]), [0.5, 0.5])
        np.testing.assert_allclose(weights, [1 / (1 + np.e**2), np.e**2 / (1 + np.e**2)])

    def test_hold_keeps_what_is_held_and_stays_out_of_what_is_not(self):
        policy = NumpyPolicy(arrays(of={(held, state): HOLDS for held in (0, 1) for state in (0, 1)}), CARD)
        weights = target(policy, vector([0.5, 0.5], [0.9, 0.1]), [0.9, 0.1])
        assert weights[0] > 0.8

    def test_nothing_learned_is_equal_weight_from_equal_weight_on(self):
        policy = NumpyPolicy(arrays(), CARD)
        np.testing.assert_allclose(target(policy, vector([0.5, -0.5], [0.49, 0.51]), [0.49, 0.51]), [0.5, 0.5])

    def test_an_untradable_name_scores_0_and_takes_no_part(self):
        policy = NumpyPolicy(arrays(of={(0, 1): BUYS, (1, 1): BUYS, (0, 0): SELLS, (1, 0): SELLS}), CARD)
        scores = policy.scores(vector([0.5, 0.5, -0.5], [0.3, 0.3, 0.3], [False, True, True]))
        assert scores[0] == 0
        assert scores[1] > scores[2]

    def test_the_bits_do_not_depend_on_how_many_are_asked_for(self):
        policy = NumpyPolicy(arrays(of={(0, 1): BUYS, (1, 0): SELLS}), CARD)
        seen = np.stack([vector([0.5, -0.5], [0.2, 0.7]), vector([-0.5, -0.1], [0.5, 0.5])])
        np.testing.assert_array_equal(policy.scores(seen), [policy.scores(row) for row in seen])

    def test_a_value_on_an_edge_is_below_it(self):
        edges = np.array([[0.0, 1.0]])
        np.testing.assert_array_equal(
            states_of(np.array([[-1.0], [0.0], [0.5], [1.0], [1.1]]), columns=np.array([0]), edges=edges), [0, 0, 1, 1, 2]
        )

    def test_ties_hold_and_buys_come_before_sells(self):
        values = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
        assert [ACTIONS[action] for action in greedy(values)] == ["hold", "hold", "buy", "sell"]

    def test_held_is_three_quarters_of_an_equal_share_of_what_can_be_traded(self):
        mask = np.array([True, True, True, False])
        assert held(np.array([0.25, 0.24, 0.5, 0.3]), mask).tolist() == [True, False, True, False]
        assert not held(np.zeros(4), mask).any()


class TestArtifact:
    def test_it_is_kept_as_data_and_comes_back_the_same(self, tmp_path: Path):
        made = arrays(of={(0, 1): BUYS})
        save_policy(tmp_path, made, CARD)
        save_policy(tmp_path / "again", made, CARD)
        policy = load_policy(tmp_path)
        assert policy.card == CARD
        for name, values in made.items():
            np.testing.assert_array_equal(policy.arrays[name], values)
        assert (tmp_path / "policy.npz").read_bytes() == (tmp_path / "again" / "policy.npz").read_bytes()
        with np.load(tmp_path / "policy.npz", allow_pickle=False) as archive:
            assert sorted(archive.files) == sorted(made)

    def test_seeds_stack_to_the_mean_of_their_weights(self):
        buys, sells = arrays(of={(1, 0): BUYS, (1, 1): SELLS}), arrays(of={(1, 0): SELLS, (1, 1): BUYS})
        one, other = NumpyPolicy(buys, CARD), NumpyPolicy(sells, replace(CARD, seeds=(1,)))
        both, seen = stack_policies([one, other]), vector([-0.5, 0.5], [0.5, 0.5])
        assert both.card.seeds == (0, 1)
        np.testing.assert_allclose(target(both, seen, [0.5, 0.5]), (target(one, seen, [0.5, 0.5]) + target(other, seen, [0.5, 0.5])) / 2)
        moved = {**sells, "q_edges": np.array([[0.1]])}
        with pytest.raises(PolicyError, match="must share mu and sigma and q_columns and q_edges, was different in q_edges"):
            stack_policies([one, NumpyPolicy(moved, replace(CARD, seeds=(1,)))])

    def test_how_far_an_input_lies_outside_is_told_as_of_a_network(self):
        policy, seen = NumpyPolicy(arrays(), CARD), vector([100.0, 0.0], [0.5, 0.5])
        assert outside(policy, seen, Layout(assets=2, features=3, context=1)) == pytest.approx(1 / 14)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"q_columns": np.array([3])}, r"q_columns must be distinct and lie in 0 to 2, was \[3\]"),
            ({"q_columns": np.array([0.0])}, "q_columns must be whole numbers"),
            ({"q_edges": np.zeros((2, 1))}, r"q_edges must be of shape \(1, bins - 1\), was \(2, 1\)"),
            ({"q_edges": np.zeros((1, 200_000))}, "q_edges must make at most 100,000 states"),
            ({"q_edges": np.array([[np.nan]])}, "q_edges must be finite floats"),
            ({"q_values": np.zeros((1, 2, 3, 3))}, r"q_values must be of shape \(1, 2, 2, 3\), was \(1, 2, 3, 3\)"),
            ({"q_values": np.full((1, 2, 2, 3), np.inf)}, "q_values must be finite floats"),
            ({"q_visits": -np.ones((1, 2, 2, 3))}, "q_visits be at least 0"),
            ({"w1": np.zeros(1)}, "policy.npz must hold mu, q_columns, q_edges, q_values, q_visits, sigma of at least one seed"),
        ],
    )
    def test_what_is_no_table_is_refused(self, changes: dict[str, Any], message: str):
        with pytest.raises(PolicyError, match=message):
            NumpyPolicy({**arrays(), **changes}, CARD)
