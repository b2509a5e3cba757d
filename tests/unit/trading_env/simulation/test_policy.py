"""Scores to weights as the design's formula has it, and the artifact: its arithmetic, its bytes, what it refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trading_env.data.observation import Observation, observe
from trading_env.simulation.policy import (
    HIDDEN,
    EqualWeight,
    NumpyPolicy,
    PolicyCard,
    PolicyError,
    SeededRandom,
    array_shapes,
    load_policy,
    make_policy,
    save_policy,
    stack_policies,
    weights_from_scores,
)

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
)
ALL = np.ones(4, dtype=bool)


def arrays_of(card: PolicyCard, *, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(0, 0.4, shape) for name, shape in array_shapes(seeds=len(card.seeds), inputs=card.inputs).items()}
    return arrays | {"sigma": rng.uniform(0.5, 2.0, card.inputs), "mu": np.random.default_rng(99).normal(size=card.inputs)}


def observation(*, assets: int = 5, tradable: np.ndarray | None = None, seed: int = 0) -> Observation:
    rng = np.random.default_rng(seed)
    mask = np.ones(assets, dtype=bool) if tradable is None else tradable
    vector = observe(rng.normal(size=(assets, 3)), rng.normal(size=2), mask, rng.dirichlet(np.ones(assets)), 0.05)
    return Observation(as_of=np.datetime64("2020-01-02"), symbols=tuple(f"S{i}" for i in range(assets)), vector=vector)


class TestWeightsFromScores:
    def test_zero_scores_all_the_way_are_equal_weight(self):
        held = np.array([0.7, 0.1, 0.1, 0.0])
        assert weights_from_scores(np.zeros(4), held, ALL, kappa=1.0).tolist() == [0.25] * 4

    def test_a_partial_step_goes_from_the_normalised_holdings(self):
        held = np.array([0.6, 0.2, 0.1, 0.05])  # 5 % cash, normalised away
        weights = weights_from_scores(np.array([1.0, 0.0, -1.0, 2.0]), held, ALL, kappa=0.1)
        exp = np.exp([1.0, 0.0, -1.0, 2.0])
        h = held / 0.95
        np.testing.assert_allclose(weights, h + 0.1 * (exp / exp.sum() - h), rtol=1e-12)
        assert weights.sum() == pytest.approx(1.0, abs=1e-12)

    def test_untradable_names_keep_their_weight_and_the_rest_share_what_is_left(self):
        held, tradable = np.array([0.3, 0.3, 0.2, 0.2]) * 0.995, np.array([True, False, True, False])
        weights = weights_from_scores(np.array([0.0, 9.0, 0.0, -9.0]), held, tradable, kappa=1.0)
        np.testing.assert_allclose(weights, [0.25, 0.3, 0.25, 0.2], rtol=1e-12)

    def test_an_empty_book_starts_at_its_target(self):
        np.testing.assert_allclose(weights_from_scores(np.zeros(4), np.zeros(4), ALL, kappa=0.1), [0.25] * 4)
        assert weights_from_scores(np.zeros(4), np.zeros(4), ~ALL, kappa=0.1).tolist() == [0.0] * 4

    def test_each_book_of_a_batch_has_its_own_pace(self):
        held = np.array([[0.0, 0.0], [0.9, 0.1]])
        weights = weights_from_scores(np.zeros((2, 2)), held, np.ones((2, 2), dtype=bool), kappa=0.1)
        np.testing.assert_allclose(weights, [[0.5, 0.5], [0.86, 0.14]])

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_a_score_that_is_not_finite_is_refused(self, bad):
        with pytest.raises(PolicyError, match="scores must be finite"):
            weights_from_scores(np.array([0.0, bad, 0.0, 0.0]), np.zeros(4), ALL, kappa=1.0)


def test_simple_policies():
    seen = observation()
    assert make_policy("equal-weight") == EqualWeight()
    assert EqualWeight().scores(seen).tolist() == [0.0] * 5
    random = make_policy("random:7")
    assert random.name == "random:7"
    np.testing.assert_array_equal(random.scores(seen), SeededRandom(7).scores(observation(seed=5)))
    assert not np.array_equal(random.scores(seen), SeededRandom(8).scores(seen))
    assert not np.array_equal(random.scores(seen), random.scores(replace(seen, as_of=np.datetime64("2020-01-03"))))
    for spec in ("random", "random:x", "random:-1", "ppo", ""):
        with pytest.raises(PolicyError, match="policy must be"):
            make_policy(spec)


def by_hand(arrays: dict[str, np.ndarray], seed: int, vector: np.ndarray, assets: int) -> list[float]:
    """One seed's scores by loops over plain floats."""
    v, width, size = [float(x) for x in vector], 5, range(HIDDEN)
    blocks = [v[a * width : (a + 1) * width] for a in range(assets)]
    tradable = [block[-1] == 1.0 for block in blocks]

    def layer(x: list[float], weight: np.ndarray, bias: np.ndarray) -> list[float]:
        return [math.tanh(sum(x[i] * weight[i, j] for i in range(len(x))) + bias[j]) for j in size]

    hidden = []
    for block in blocks:
        x = [(value - m) / s for value, m, s in zip(block + v[assets * width :], arrays["mu"], arrays["sigma"], strict=True)]
        hidden.append(layer(layer(x, arrays["w1"][seed], arrays["b1"][seed]), arrays["w2"][seed], arrays["b2"][seed]))
    mean = [sum(h[j] for h, t in zip(hidden, tradable, strict=True) if t) / sum(tradable) for j in size]
    raw = []
    for h in hidden:
        head = layer(h + mean, arrays["w3"][seed], arrays["b3"][seed])
        raw.append(sum(head[j] * arrays["w4"][seed][j] for j in size) + arrays["b4"][seed])
    centre = sum(r for r, t in zip(raw, tradable, strict=True) if t) / sum(tradable)
    return [min(10.0, max(-10.0, r - centre)) if t else 0.0 for r, t in zip(raw, tradable, strict=True)]


class TestNetwork:
    @pytest.mark.parametrize("tradable", [[True] * 5, [True, False, True, True, False]])
    def test_one_seed_equals_the_formula_and_the_ensemble_mixes_portfolios(self, tradable):
        mask = np.array(tradable)
        arrays, seen = arrays_of(CARD), observation(tradable=mask)
        by_seed = [np.array(by_hand(arrays, seed, seen.vector, 5)) for seed in (0, 1)]
        portfolios = [np.where(mask, np.exp(s), 0.0) / np.exp(s)[mask].sum() for s in by_seed]
        scores = NumpyPolicy(arrays, CARD).scores(seen)
        np.testing.assert_allclose(scores[mask], np.log((portfolios[0] + portfolios[1])[mask] / 2), atol=1e-10)
        assert (scores[~mask] == 0).all()
        weights = weights_from_scores(scores, np.zeros(5), mask, kappa=1.0)
        np.testing.assert_allclose(weights, (portfolios[0] + portfolios[1]) / 2, atol=1e-12)

    def test_a_zero_head_is_equal_weight(self):
        arrays = arrays_of(CARD)
        arrays["w4"] = np.zeros_like(arrays["w4"])
        weights = weights_from_scores(NumpyPolicy(arrays, CARD).scores(observation()), np.zeros(5), np.ones(5, dtype=bool), kappa=1.0)
        np.testing.assert_allclose(weights, 0.2, rtol=1e-12)

    def test_it_trades_any_number_of_names_in_any_order(self):
        policy, seen = NumpyPolicy(arrays_of(CARD), CARD), observation(assets=7)
        order = np.array([3, 0, 6, 1, 5, 2, 4])
        blocks = seen.vector[:35].reshape(7, 5)[order].ravel()
        shuffled = np.concatenate([blocks, seen.vector[35:]])
        np.testing.assert_allclose(policy.scores(shuffled), policy.scores(seen)[order], atol=1e-10)

    @pytest.mark.parametrize("seeds", [(0,), (0, 1)])
    def test_many_observations_at_once_score_what_each_scores_alone_to_the_bit(self, seeds):
        card = replace(CARD, seeds=seeds)
        policy = NumpyPolicy(arrays_of(card), card)
        vectors = np.stack([observation(seed=s, tradable=np.arange(5) != s).vector for s in range(6)])
        alone = [policy.scores(v) for v in vectors]
        np.testing.assert_array_equal(policy.scores(vectors), alone)
        np.testing.assert_array_equal(policy.scores(vectors.reshape(2, 3, -1)), np.reshape(alone, (2, 3, 5)))

    def test_no_tradable_name_scores_zero(self):
        assert NumpyPolicy(arrays_of(CARD), CARD).scores(observation(tradable=np.zeros(5, dtype=bool))).tolist() == [0.0] * 5

    def test_an_observation_that_does_not_fit_is_refused(self):
        policy, seen = NumpyPolicy(arrays_of(CARD), CARD), observation()
        with pytest.raises(PolicyError, match="must hold 4 assets, was 5"):
            policy.scores(replace(seen, symbols=("A", "B", "C", "D")))
        with pytest.raises(ValueError, match="wide for some A"):
            policy.scores(seen.vector[:-1])
        for value in (np.nan, np.inf, -np.inf):
            with pytest.raises(PolicyError, match=f"must be finite, was {value}"):
                policy.scores(np.where(np.arange(len(seen.vector)) == 3, np.float32(value), seen.vector))


class TestArtifact:
    def test_round_trip_gives_the_same_policy_and_the_same_bytes(self, tmp_path):
        arrays = arrays_of(CARD)
        card = replace(CARD, metrics={"timesteps": 10})
        save_policy(tmp_path / "a", arrays, card)
        save_policy(tmp_path / "b", dict(reversed(arrays.items())), card)
        for name in ("policy.npz", "policy.json"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        loaded = load_policy(tmp_path / "a", expected_feature_hash="abc")
        assert loaded.card == card
        assert loaded.kappa == 0.1
        np.testing.assert_array_equal(loaded.scores(observation()), NumpyPolicy(arrays, CARD).scores(observation()))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"w1": np.zeros((2, 7, HIDDEN))}, r"w1 must be floats of shape \(2, 8, 64\), was float64 \(2, 7, 64\)"),
            ({"b4": np.array([0.0, np.nan])}, "b4 must be finite, was nan"),
            ({"b4": np.array([0, 1])}, "b4 must be floats"),
            ({"b4": np.array(["0", "1"])}, "b4 must be floats"),
            ({"sigma": np.zeros(8)}, "sigma must be above 0"),
            ({"extra": np.zeros(1)}, "must hold b1, b2"),
        ],
    )
    def test_arrays_that_do_not_fit_are_refused_on_saving_and_loading(self, tmp_path, change, message):
        arrays = arrays_of(CARD)
        save_policy(tmp_path, arrays, CARD)
        with pytest.raises(PolicyError, match=message):
            save_policy(tmp_path, arrays | change, CARD)
        np.savez(tmp_path / "policy.npz", **(arrays | change))
        with pytest.raises(PolicyError, match=message):
            load_policy(tmp_path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"schema": 2}, "schema must be 1"),
            ({"architecture": "mlp"}, "architecture must be"),
            ({"kappa": 0.0}, r"kappa must lie in \(0, 1\]"),
            ({"kappa": "1"}, r"kappa must lie in \(0, 1\]"),
            ({"surprise": 1}, "differ: surprise"),
            ({"seeds": [0]}, "w1 must be floats of shape|b1 must be floats of shape"),
        ],
    )
    def test_a_card_that_does_not_fit_is_refused(self, tmp_path, change, message):
        save_policy(tmp_path, arrays_of(CARD), CARD)
        path = tmp_path / "policy.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(PolicyError, match=message):
            load_policy(tmp_path)

    def test_another_feature_version_is_refused(self, tmp_path):
        save_policy(tmp_path, arrays_of(CARD), CARD)
        with pytest.raises(PolicyError, match="feature_hash must be xyz, was abc"):
            load_policy(tmp_path, expected_feature_hash="xyz")

    def test_a_model_of_slot_bars_is_refused_where_rows_are_others_and_one_of_daily_bars_does_not_name_them(self, tmp_path):
        save_policy(tmp_path / "daily", arrays_of(CARD), CARD)
        assert "slots" not in json.loads((tmp_path / "daily" / "policy.json").read_text())
        card = replace(CARD, slots=("open+5", "open+120"))
        save_policy(tmp_path / "slots", arrays_of(card), card)
        assert (
            load_policy(tmp_path / "slots", expected_feature_hash="abc", slots=card.slots).card
            == load_policy(tmp_path / "slots").card
            == card
        )
        with pytest.raises(PolicyError, match=r"slots must be none \(daily bars\), was open\+5, open\+120"):
            load_policy(tmp_path / "slots", expected_feature_hash="abc")  # as the functions load what they serve
        with pytest.raises(PolicyError, match=r"slots must be open\+5, was none \(daily bars\)"):
            load_policy(tmp_path / "daily", expected_feature_hash="abc", slots=("open+5",))

    def test_pickles_truncated_and_missing_files_are_refused(self, tmp_path: Path):
        with pytest.raises(PolicyError, match=r"policy\.json cannot be read"):
            load_policy(tmp_path)
        save_policy(tmp_path, arrays_of(CARD), CARD)
        data = (tmp_path / "policy.npz").read_bytes()
        (tmp_path / "policy.npz").write_bytes(data[: len(data) // 2])
        with pytest.raises(PolicyError, match=r"policy\.npz cannot be read"):
            load_policy(tmp_path)
        np.savez(tmp_path / "policy.npz", **(arrays_of(CARD) | {"b4": np.array([{}, {}])}))
        with pytest.raises(PolicyError, match=r"policy\.npz cannot be read: .*allow_pickle"):
            load_policy(tmp_path)


def test_seeds_trained_apart_stack_to_one_ensemble():
    parts = [NumpyPolicy(arrays_of(replace(CARD, seeds=(s,)), seed=s), replace(CARD, seeds=(s,))) for s in (3, 4)]
    parts[1] = NumpyPolicy(parts[1].arrays | {"sigma": parts[0].arrays["sigma"]}, parts[1].card)
    both = stack_policies(parts)
    assert both.card.seeds == (3, 4)
    mixed = np.log((np.exp(parts[0].scores(observation())) + np.exp(parts[1].scores(observation()))) / 2)
    np.testing.assert_allclose(both.scores(observation()), mixed, atol=1e-12)
    with pytest.raises(PolicyError, match=r"agree on kappa, was 0\.5"):
        stack_policies([parts[0], NumpyPolicy(parts[1].arrays, replace(parts[1].card, kappa=0.5))])
    with pytest.raises(PolicyError, match="share mu and sigma"):
        stack_policies([parts[0], NumpyPolicy(parts[1].arrays | {"mu": np.zeros(8)}, parts[1].card)])
    with pytest.raises(PolicyError, match="at least one"):
        stack_policies([])
