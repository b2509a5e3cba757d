"""Q-learning: a table that learns what there is to learn, is an artifact like any other, and can be read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learning.algorithms import q_learning
from learning.algorithms.q_table import q_table
from learning.dataset import DatasetError
from learning.serving import input_fn, model_fn, predict_fn
from papertape.research.policies import policy_called
from schema.settings import Settings
from schema.trading_rules import rules_of
from tests import small_run
from tests.learning import training
from trading_env.data.features import CONTEXT, FEATURE_HASH, FEATURES, SCHEMA_VERSION
from trading_env.data.market import Market
from trading_env.simulation.policy import EqualWeight, NumpyPolicy, PolicyCard, PolicyError, array_shapes, load_policy
from trading_env.simulation.portfolio import Book, ExecutionPrices, Trades, step
from trading_env.simulation.q_table import ACTIONS
from trading_env.simulation.rewards import equal_weight_growth

CHOSEN = small_run.settings(training={"algorithm": "q-learning", "timesteps": 20_000})


def policy_of(market: Market, *, settings: Settings, timesteps: int = 40_000, seed: int = 0) -> NumpyPolicy:
    fitted = q_learning.fit(market, settings=settings, seed=seed, timesteps=timesteps)
    card = PolicyCard(
        features=tuple(feature.name for feature in FEATURES),
        context=tuple(feature.name for feature in CONTEXT),
        feature_hash=FEATURE_HASH,
        schema_version=SCHEMA_VERSION,
        kappa=settings.portfolio.kappa,
        trained_on=market.symbols,
        train_start=str(market.sessions[0]),
        train_end=str(market.sessions[-1]),
        seeds=(seed,),
        code_version="test",
        architecture=fitted.architecture,
    )
    return NumpyPolicy(fitted.arrays, card)


def test_it_learns_waves_and_earns_from_them_after_costs_where_it_was_not_trained() -> None:
    market = training.waves(sessions=1000, assets=4, period=30, amplitude=0.05)
    settings = training.settings(training={"algorithm": "q-learning", "environments": 64}, portfolio={"kappa": 0.5})
    policy = policy_of(market.rows(market.sessions[0], market.sessions[700]), settings=settings)
    ours, even = (
        training.traded(one, market, rules=training.TEN_BP, first=720).growth.sum() for one in (policy, EqualWeight(kappa=policy.kappa))
    )
    assert ours > even + 0.5


@pytest.fixture(scope="module")
def market() -> Market:
    return small_run.market().rows(small_run.DAYS[240], small_run.DAYS[-1])


class TestWorld:
    def test_a_session_earns_what_the_step_gives_a_book_of_one_name_less_equal_weight_while_it_is_held(self, market: Market):
        world, rules = q_learning.World.of(market, settings=CHOSEN), rules_of(CHOSEN)
        row, name = map(int, world.starts[100])
        alone = market.only([market.symbols[name]])
        prices, cash = ExecutionPrices.of(alone), CHOSEN.portfolio.initial_cash
        even = equal_weight_growth(ExecutionPrices.of(market), rules=rules, initial_value=cash)[row + 1]
        night = np.log((market.open[row + 1] / market.close[row]).mean())
        closing = prices.closing[[row]]
        flat = Book.of_cash(cash / 3, assets=1)
        long = Book.invested(cash / 3, weights=np.ones((1, 1)), prices=closing, rules=rules)
        for held, book in enumerate((flat, long)):
            for action, sign in enumerate((1.0, 0.0, -1.0)):
                weights = Trades(np.array([[sign]]), share=1.0)
                taken = step(book, prices=prices, rows=np.array([row]), weights=weights, rules=rules)
                stays = action == 0 or (action == 1 and held == 1)
                expected = float(np.log(taken.value / book.value(closing))[0]) - held * night - (even - night) * stays
                assert world.rewards[row, name, held, action] == pytest.approx(expected * 1e4, abs=1e-9)
                assert world.after[row, name, held, action] == stays
        assert world.rewards[row, name, 0, 2] == 0, "who stays out earns nothing"

    def test_bins_hold_about_as_many_training_rows_each_and_read_no_other(self, market: Market):
        world = q_learning.World.of(market, settings=CHOSEN)
        for place, column in enumerate(world.columns):
            values = market.features[market.tradable][:, column]
            shares = np.bincount(np.searchsorted(world.edges[place], values), minlength=3) / len(values)
            np.testing.assert_allclose(shares, 1 / 3, atol=0.02)
        spoiled = np.where(market.tradable[..., None], market.features, 1e9)
        other = q_learning.World.of(replace(market, features=spoiled), settings=CHOSEN)
        np.testing.assert_array_equal(other.edges, world.edges)
        assert ((world.states == q_learning.NONE) == ~market.tradable).all()

    def test_a_name_that_can_never_be_traded_is_never_met(self, market: Market):
        tradable = market.tradable.copy()
        tradable[:, 1] = False
        world = q_learning.World.of(replace(market, tradable=tradable), settings=CHOSEN)
        assert set(world.starts[:, 1]) == {0, 2}

    def test_a_market_of_other_features_or_of_none_that_can_be_traded_is_refused(self, market: Market):
        with pytest.raises(DatasetError, match="q-learning reads momentum_12_1, return_5, volatility_21, rsi_14"):
            q_learning.World.of(replace(market, features=market.features[..., :5]), settings=CHOSEN)
        with pytest.raises(DatasetError, match="needs a session with a tradable name"):
            q_learning.World.of(replace(market, tradable=np.zeros_like(market.tradable)), settings=CHOSEN)


def test_the_update_is_that_of_watkins_and_dayan(market: Market):
    """One agent: Q(s, a) moves by a (r + gamma max Q(s', .) - Q(s, a)), a being visits^-0.7, and nothing else moves."""
    settings = small_run.settings(training={"algorithm": "q-learning", "environments": 1})
    world = q_learning.World.of(market, settings=settings)
    learner = q_learning.Learner(world, settings=settings, seed=0, timesteps=300)
    for _ in range(200):
        before = learner.state()
        agent = {name: int(before.arrays[name][0]) for name in ("row", "name", "held")}
        values, visits = before.arrays["values"].copy(), before.arrays["visits"].copy()
        reward, _ = learner._step()
        (cell,) = np.argwhere(learner.visits != visits)
        held, state, action = map(int, cell)
        assert (held, state) == (agent["held"], world.states[agent["row"], agent["name"]])
        assert reward[0] == world.rewards[agent["row"], agent["name"], held, action]
        coming = world.states[agent["row"] + 1, agent["name"]]
        after = world.after[agent["row"], agent["name"], held, action]
        best = values[after, coming].max() if coming != q_learning.NONE else 0.0
        rate = (visits[held, state, action] + 1) ** -0.7
        values[held, state, action] += rate * (reward[0] + 0.95 * best - values[held, state, action])
        np.testing.assert_allclose(learner.values, values, atol=1e-12)


def test_epsilon_falls_and_every_state_is_tried(market: Market):
    curve = q_learning.fit(market, settings=CHOSEN, seed=0, timesteps=20_000).curve
    epsilons = [line["epsilon"] for line in curve]
    assert epsilons[0] == 1.0
    assert epsilons == sorted(epsilons, reverse=True)
    assert epsilons[-1] == 0.05
    assert curve[-1]["timesteps"] == curve[-1]["of"] == 20_000
    assert curve[-1]["seconds_left"] == 0


def test_a_seed_is_repeatable_and_another_is_another(market: Market):
    one, same, other = (q_learning.fit(market, settings=CHOSEN, seed=seed, timesteps=2_000).arrays for seed in (0, 0, 1))
    assert one["q_values"].tobytes() == same["q_values"].tobytes()
    assert one["q_values"].tobytes() != other["q_values"].tobytes()
    np.testing.assert_array_equal(one["q_edges"], other["q_edges"])


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two seeds, trained and judged as any other algorithm's."""
    root = small_run.train_all(tmp_path_factory.mktemp("evaluation"), chosen=CHOSEN)
    return root, small_run.evaluate(root, trials=str(root / "trials"), chosen=CHOSEN)


class TestArtifact:
    def test_it_is_judged_by_the_same_gate(self, evaluated: tuple[Path, dict[str, Any]]):
        _, document = evaluated
        assert document["training"]["algorithm"] == "Q-learning"
        assert document["gate"]["checks"]
        assert document["answer"].startswith("Q-learning ")
        assert [row["name"] for row in document["rows"] if row["kind"] == "agent seed"] == ["Q-learning seed 0", "Q-learning seed 1"]

    def test_each_fold_has_its_table_beside_it(self, evaluated: tuple[Path, dict[str, Any]]):
        folder = evaluated[0] / "trained-0" / "fold-2"
        assert json.loads((folder / "q-table.json").read_text(encoding="utf-8")) == q_table(load_policy(folder))

    def test_its_package_is_served_and_backtested_as_any_other(self, evaluated: tuple[Path, dict[str, Any]], tmp_path: Path):
        root, _ = evaluated
        archive = root / "output" / "model" / "model.tar.gz"
        policy = policy_called(str(archive), sessions=small_run.DAYS, feature_hash=FEATURE_HASH)
        assert isinstance(policy, NumpyPolicy)
        assert (policy.name, policy.card.seeds) == ("q-table", (0, 1))
        market = small_run.market()
        book = training.traded(policy, market, rules=training.TEN_BP, first=400)
        assert np.isfinite(book.growth).all()

        (tmp_path / "model").mkdir()
        for name in ("policy.npz", "policy.json"):
            (tmp_path / "model" / name).write_bytes(_of_archive(archive, name))
        vector = np.zeros(3 * (len(FEATURES) + 2) + 1 + len(CONTEXT))
        vector[len(FEATURES) + 1 : 3 * (len(FEATURES) + 2) : len(FEATURES) + 2] = 1
        asked = {"schema": 1, "as_of": "2017-01-03", "symbols": list(market.symbols), "observation": vector.tolist()}
        answer = predict_fn(input_fn(json.dumps(asked), "application/json"), model_fn(str(tmp_path / "model")))
        np.testing.assert_array_equal(answer["scores"], policy.scores(vector.astype(np.float32)))


def _of_archive(archive: Path, name: str) -> bytes:
    import tarfile

    with tarfile.open(archive) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


class TestForPeople:
    @pytest.fixture(scope="class")
    @staticmethod
    def policy(market: Market) -> NumpyPolicy:
        return policy_of(market, settings=CHOSEN, timesteps=4_000)

    def test_every_state_has_its_values_visits_and_greedy_action_in_words(self, policy: NumpyPolicy):
        document = json.loads(json.dumps(q_table(policy), allow_nan=False))
        assert [feature["name"] for feature in document["features"]] == list(q_learning.READ)
        assert len(document["states"]) == 3**4 * 2
        low, middle, high = document["features"][3]["bins"]
        assert (low["above"], low["up_to"], high["up_to"]) == (None, middle["above"], None)
        assert high["words"] == f"high: rsi_14 above {middle['up_to']:.4g}"
        assert document["features"][3]["formula"].startswith("RSI(14)")
        for state in document["states"]:
            best = max(state["values"].values())
            assert state["values"][state["greedy"]] == best
            assert state["agree"] == 1.0
        assert sum(sum(state["visits"].values()) for state in document["states"]) == 4_000
        assert document["actions"] == list(ACTIONS)

    def test_a_state_stands_where_an_observation_of_it_is_looked_up(self, policy: NumpyPolicy):
        """The mean of each bin is put before the policy: the document's greedy action is what it does."""
        document, edges = q_table(policy), policy.arrays["q_edges"]
        middles = np.concatenate([edges[:, :1] - 1, edges.mean(axis=1, keepdims=True), edges[:, 1:] + 1], axis=1)
        for state in document["states"]:
            asset = np.zeros((2, len(FEATURES) + 2), dtype=np.float32)
            asset[0, policy.arrays["q_columns"]] = middles[np.arange(4), state["bins"]]
            asset[:, -2], asset[:, -1] = (0.5, 0.5) if state["held"] else (0.0, 1.0), (1, 0)
            tables = policy._tables
            assert tables is not None
            stays = tables.scores(asset.astype(np.float64), np.array([True, False]))[0, 0] > 0
            assert stays == (state["greedy"] == "buy" or (state["greedy"] == "hold" and state["held"]))

    def test_an_artifact_without_a_table_is_refused(self, policy: NumpyPolicy):
        card = replace(policy.card, architecture="shared-encoder-64")
        arrays = {name: np.ones(shape) for name, shape in array_shapes(seeds=1, inputs=card.inputs).items()}
        with pytest.raises(PolicyError, match="in an artifact of the architecture q-table, was shared-encoder-64"):
            q_table(NumpyPolicy(arrays, card))
