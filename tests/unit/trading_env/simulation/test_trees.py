"""The trees' arithmetic against one node at a time, their rank within a session, the artifact that carries them, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trading_env.data.observation import Layout, Observation, observe
from trading_env.simulation.policy import (
    NumpyPolicy,
    PolicyCard,
    PolicyError,
    array_shapes,
    load_policy,
    outside,
    save_policy,
    stack_policies,
)
from trading_env.simulation.score_gradient import score_gradient
from trading_env.simulation.trees import NEVER, Trees, TreesError, session_ranks, with_forecast

F, G, A = 3, 2, 6
LAYOUT = Layout(assets=A, features=F, context=G)


def trees_of(*, seed: int = 0, count: int = 20, depth: int = 3) -> Trees:
    rng = np.random.default_rng(seed)
    nodes = (count, 2**depth - 1)
    threshold = np.where(rng.random(nodes) < 0.1, NEVER, rng.normal(size=nodes))
    return Trees(rng.integers(0, F, nodes), threshold, rng.normal(size=(count, 2**depth)))


TREES = trees_of()
CARD = PolicyCard(
    features=("f0", "f1", "f2"),
    context=("c0", "c1"),
    feature_hash="abc",
    schema_version=1,
    kappa=0.1,
    trained_on=("S0", "S1"),
    train_start="2006-01-03",
    train_end="2015-12-31",
    seeds=(0, 1),
    code_version="test",
    forecast="trees",
)


def arrays_of(card: PolicyCard, *, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(0, 0.4, shape) for name, shape in array_shapes(seeds=len(card.seeds), inputs=card.inputs).items()}
    return arrays | {"mu": np.zeros(card.inputs), "sigma": np.ones(card.inputs)} | TREES.arrays


def vectors_of(count: int, *, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tradable = rng.random((count, A)) < 0.8
    held = rng.dirichlet(np.ones(A), count)
    return observe(rng.normal(size=(count, A, F)), rng.normal(size=(count, G)), tradable, held, np.full(count, 0.01))


def by_hand(trees: Trees, row: np.ndarray) -> float:
    total = 0.0
    for feature, threshold, value in zip(trees.feature, trees.threshold, trees.value, strict=True):
        node = 0
        while node < len(feature):
            node = 2 * node + (1 if row[feature[node]] <= threshold[node] else 2)
        total += float(value[node - len(feature)])
    return total


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_forecast_is_the_sum_of_the_leaves_that_the_comparisons_lead_to(depth: int) -> None:
    trees, rows = trees_of(depth=depth), np.random.default_rng(2).normal(size=(50, F))
    rows[:7, trees.feature[0, 0]] = trees.threshold[0, 0] if trees.threshold[0, 0] < NEVER else 0.0  # equal goes left
    np.testing.assert_allclose(trees.predict(rows), [by_hand(trees, row) for row in rows], atol=1e-12)


def test_a_row_has_the_same_bits_alone_and_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(3).normal(size=(500, F))
    whole = TREES.predict(rows)
    for first, stop in ((0, 2), (17, 40), (400, 500)):
        np.testing.assert_array_equal(TREES.predict(rows[first:stop]), whole[first:stop])
    monkeypatch.setattr("trading_env.simulation.trees.CELLS", 1000)
    np.testing.assert_array_equal(TREES.predict(rows), whole)
    assert TREES.predict(rows[:0]).shape == (0,)


class TestRanks:
    def test_they_are_centred_deviate_by_one_and_know_the_tradable_names_alone(self) -> None:
        values = np.array([[3.0, 1.0, 2.0, 99.0], [5.0, 5.0, 7.0, 6.0], [1.0, 2.0, 3.0, 4.0]])
        tradable = np.array([[True, True, True, False], [True, True, True, False], [False, False, True, False]])
        unit = np.sqrt(2 / 3)
        np.testing.assert_allclose(session_ranks(values, tradable)[0], np.array([1, -1, 0, 0]) / unit, atol=1e-15)
        np.testing.assert_allclose(session_ranks(values, tradable)[1], np.array([-0.5, -0.5, 1, 0]) / unit, atol=1e-15)
        assert session_ranks(values, tradable)[2].tolist() == [0.0] * 4
        even = session_ranks(np.random.default_rng(0).normal(size=(1, 50)), np.ones((1, 50), dtype=bool))
        assert (even.mean(), even.std()) == (pytest.approx(0, abs=1e-15), pytest.approx(1))

    def test_equal_values_have_no_view(self) -> None:
        assert not session_ranks(np.ones((2, 5)), np.ones((2, 5), dtype=bool)).any()


class TestPolicy:
    def test_the_network_reads_the_rank_behind_each_assets_features(self) -> None:
        """A policy with the trees, and one without them that is given their column as a feature, score the same."""
        vectors = vectors_of(30)
        assets = vectors[:, : A * (F + 2)].reshape(30, A, F + 2)
        tradable = assets[..., -1] > 0
        forecasts = np.array([[by_hand(TREES, row) for row in day] for day in assets[..., :F].astype(float)])
        ranks = session_ranks(forecasts, tradable)
        by_column = replace(CARD, features=(*CARD.features, "forecast"), forecast="none")
        wide = np.concatenate([assets[..., :F], ranks[..., None], assets[..., F:]], axis=-1).reshape(30, -1)
        wide = np.concatenate([wide, vectors[:, A * (F + 2) :]], axis=1).astype(np.float32)
        plain = {name: values for name, values in arrays_of(CARD).items() if name not in TREES.arrays}
        np.testing.assert_allclose(
            NumpyPolicy(arrays_of(CARD), CARD).scores(vectors), NumpyPolicy(plain, by_column).scores(wide), rtol=0, atol=1e-12
        )
        seen, layout = with_forecast(vectors, layout=LAYOUT, trees=TREES)
        np.testing.assert_array_equal(seen, wide)
        assert (layout.assets, layout.features, layout.context) == (A, F + 1, G)

    def test_the_forecast_has_a_gradient_of_its_own_and_hides_none_of_the_features(self) -> None:
        """A policy with the trees, and one without them that is given their column as a feature, have the same gradient."""
        by_column = replace(CARD, features=(*CARD.features, "forecast"), forecast="none")
        plain = {name: values for name, values in arrays_of(CARD).items() if name not in TREES.arrays}
        vector = vectors_of(1)
        (wide,), _ = with_forecast(vector, layout=LAYOUT, trees=TREES)
        seen, given = (Observation(np.datetime64("2020-01-02"), tuple("ABCDEF"), one) for one in (vector[0], wide))
        found = score_gradient(NumpyPolicy(arrays_of(CARD), CARD), seen)
        expected = score_gradient(NumpyPolicy(plain, by_column), given)
        assert found.inputs == expected.inputs == ("f0", "f1", "f2", "forecast", "held_weight", "cash_weight", "c0", "c1")
        assert found.own == 5
        np.testing.assert_allclose(found.gradient, expected.gradient, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.contribution, expected.contribution, rtol=0, atol=1e-12)
        assert np.abs(found.gradient[:, 3]).min() > 0

    def test_it_knows_no_order_of_names_and_no_other_session(self) -> None:
        policy, vectors = NumpyPolicy(arrays_of(CARD), CARD), vectors_of(8)
        whole, order = policy.scores(vectors), np.array([4, 2, 0, 5, 1, 3])
        np.testing.assert_allclose([policy.scores(vector) for vector in vectors], whole, atol=1e-12)
        blocks = vectors[:, : A * (F + 2)].reshape(8, A, F + 2)[:, order].reshape(8, -1)
        shuffled = np.concatenate([blocks, vectors[:, A * (F + 2) :]], axis=1)
        np.testing.assert_allclose(policy.scores(shuffled), whole[:, order], atol=1e-12)

    def test_the_envelope_is_over_what_the_network_reads(self) -> None:
        policy, vector = NumpyPolicy(arrays_of(CARD), CARD), vectors_of(1)[0]
        assert outside(policy, vector, LAYOUT) == 0.0
        narrow = NumpyPolicy(arrays_of(CARD) | {"sigma": np.where(np.arange(CARD.inputs) == F, 1e-9, 1e9)}, CARD)
        assert 0 < outside(narrow, vector, LAYOUT) <= 1 / CARD.inputs


class TestArtifact:
    def test_round_trip_gives_the_same_policy_and_the_same_bytes(self, tmp_path: Path) -> None:
        save_policy(tmp_path / "a", arrays_of(CARD), CARD)
        save_policy(tmp_path / "b", dict(reversed(arrays_of(CARD).items())), CARD)
        for name in ("policy.npz", "policy.json"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        loaded, vectors = load_policy(tmp_path / "a", expected_feature_hash="abc"), vectors_of(5)
        assert loaded.card == CARD
        np.testing.assert_array_equal(loaded.scores(vectors), NumpyPolicy(arrays_of(CARD), CARD).scores(vectors))

    def test_without_a_forecast_the_files_name_none(self, tmp_path: Path) -> None:
        """As before there was one: the hash of a model that has none is what it was."""
        card = replace(CARD, forecast="none")
        rng = np.random.default_rng(0)
        arrays = {name: np.abs(rng.normal(size=shape)) for name, shape in array_shapes(seeds=2, inputs=card.inputs).items()}
        save_policy(tmp_path, arrays, card)
        assert "forecast" not in json.loads((tmp_path / "policy.json").read_text(encoding="utf-8"))
        with np.load(tmp_path / "policy.npz") as archive:
            assert sorted(archive.files) == ["b1", "b2", "b3", "b4", "mu", "sigma", "w1", "w2", "w3", "w4"]
        assert load_policy(tmp_path).card == card

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"tree_feature": np.full((20, 7), F)}, "tree_feature must lie in 0 to 2, was 3 to 3"),
            ({"tree_feature": np.full((20, 7), -1)}, "tree_feature must lie in 0 to 2, was -1 to -1"),
            ({"tree_feature": np.zeros((20, 7))}, "tree_feature must hold whole numbers, was float64"),
            ({"tree_feature": np.zeros((20, 6), dtype=int)}, r"tree_feature must be of shape \(20, 7\), was \(20, 6\)"),
            ({"tree_threshold": np.full((20, 7), np.inf)}, "tree_threshold must be finite, was inf"),
            ({"tree_threshold": np.zeros((19, 7))}, r"tree_threshold must be of shape \(20, 7\), was \(19, 7\)"),
            ({"tree_value": np.full((20, 8), np.nan)}, "tree_value must be finite, was nan"),
            ({"tree_value": np.zeros((20, 8), dtype=int)}, "tree_value must hold floats, was int64"),
            ({"tree_value": np.zeros((20, 6))}, r"tree_value must be of shape \(trees, 2\^depth\), was \(20, 6\)"),
            ({"tree_value": np.zeros((0, 8))}, r"tree_value must be of shape \(trees, 2\^depth\), was \(0, 8\)"),
            ({"tree_value": np.zeros(8)}, r"tree_value must be of shape \(trees, 2\^depth\), was \(8,\)"),
            ({"other": np.zeros(8)}, "policy.npz must hold b1, b2"),
        ],
    )
    def test_arrays_that_are_no_trees_are_refused_on_saving_and_loading(self, tmp_path: Path, change, message: str) -> None:
        save_policy(tmp_path, arrays_of(CARD), CARD)
        with pytest.raises(PolicyError, match=message):
            save_policy(tmp_path, arrays_of(CARD) | change, CARD)
        np.savez(tmp_path / "policy.npz", **(arrays_of(CARD) | change))
        with pytest.raises(PolicyError, match=message):
            load_policy(tmp_path)

    def test_card_and_arrays_must_agree_on_the_forecast(self) -> None:
        with pytest.raises(PolicyError, match="must hold b1, b2"):
            NumpyPolicy({name: values for name, values in arrays_of(CARD).items() if name not in TREES.arrays}, CARD)
        with pytest.raises(PolicyError, match="must hold b1, b2"):
            NumpyPolicy(arrays_of(CARD), replace(CARD, forecast="none"))
        with pytest.raises(PolicyError, match="forecast must be one of none, trees, was 'oracle'"):
            NumpyPolicy(arrays_of(CARD), replace(CARD, forecast="oracle"))
        with pytest.raises(TreesError, match="0 to 0"):
            Trees.of(TREES.arrays, features=1)


def test_seeds_of_one_ensemble_share_the_trees() -> None:
    cards = [replace(CARD, seeds=(seed,)) for seed in (3, 4)]
    parts = [NumpyPolicy(arrays_of(card, seed=card.seeds[0]), card) for card in cards]
    both, vectors = stack_policies(parts), vectors_of(4)
    assert both.card.seeds == (3, 4)
    tradable = vectors[:, : A * (F + 2)].reshape(4, A, F + 2)[..., -1] > 0
    mixed = np.where(tradable, np.log(sum(np.exp(part.scores(vectors)) for part in parts) / 2), 0.0)
    np.testing.assert_allclose(both.scores(vectors), mixed, atol=1e-12)
    other = NumpyPolicy(parts[1].arrays | trees_of(seed=9).arrays, cards[1])
    with pytest.raises(PolicyError, match="share mu and sigma and tree_feature"):
        stack_policies([parts[0], other])
    plain = replace(cards[1], forecast="none")
    rng = np.random.default_rng(0)
    without = {name: np.abs(rng.normal(size=shape)) for name, shape in array_shapes(seeds=1, inputs=plain.inputs).items()}
    with pytest.raises(PolicyError, match="agree on forecast, was 'none'"):
        stack_policies([parts[0], NumpyPolicy(without, plain)])
