"""The training job: fold by fold, the same bytes each time, and blind to whatever follows a fold's training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from learning import configuration, dataset, forecast, training
from schema.settings import Algorithm, Settings
from tests import small_run
from trading_env.simulation.policy import load_policy, stack_policies

CHOSEN = small_run.settings()
OF_EVERY_LINE = {"seed", "fold", "folds", "phase", "timesteps", "of", "rollout_reward", "excess", "steps_per_second", "seconds_left"}
VIEW = {"shared-encoder-64": "w4", "q-table": "q_values"}  # the arrays that are zero where nothing was learned
OF_ITS_OWN = {
    "direct": set[str](),
    "q-learning": {"episode_reward", "value_loss", "epsilon", "visited"},
    "ppo": {"episode_reward", "kl", "log_std", "value_loss", "entropy", "explained_variance"},
}


@pytest.fixture(scope="module", params=[algorithm for algorithm in get_args(Algorithm) if algorithm != "direct"])
def chosen(request: pytest.FixtureRequest) -> Settings:
    """Each algorithm; "direct+ppo" begins by all that "direct" does."""
    return small_run.settings(training={"algorithm": request.param})


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.write_channel(tmp_path_factory.mktemp("channel"))


@pytest.fixture(scope="module")
def whole(channel: Path, chosen: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seed with all its folds."""
    folder = tmp_path_factory.mktemp("model")
    small_run.train(channel, folder, "--seed", "3", chosen=chosen)
    return folder


def artifact(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "policy.npz").read_bytes(), (folder / "policy.json").read_bytes()


def test_every_fold_is_trained_up_to_its_own_end_and_says_so(chosen: Settings, whole: Path):
    folds = configuration.folds_of(small_run.DAYS, chosen)
    assert sorted(path.name for path in whole.iterdir()) == ["fold-0", "fold-1", "fold-2"]
    for fold in folds:
        folder = whole / f"fold-{fold.number}"
        card, record = load_policy(folder).card, json.loads((folder / "training.json").read_text(encoding="utf-8"))
        assert (card.train_start, card.train_end, card.seeds) == (str(fold.train_start), str(fold.train_end), (3,))
        assert (record["seed"], record["fold"], record["timesteps_asked"]) == (3, fold.number, 1000)
        assert record["algorithm"] == chosen.training.algorithm_name
        assert record["timesteps"] >= record["curve"][-1]["timesteps"] > 0
        assert record["sessions"] == np.searchsorted(small_run.DAYS, fold.train_end) + 1
        assert load_policy(folder).arrays[VIEW[card.architecture]].any(), "a policy without a view would look the same whatever it had read"
    assert len({artifact(whole / f"fold-{number}")[0] for number in range(3)}) == 3


def test_a_fold_alone_is_the_same_bytes_and_prints_a_line_a_rollout(
    channel: Path, chosen: Settings, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    small_run.train(channel, tmp_path, "--seed", "3", "--fold", "2", "--fold", "0", chosen=chosen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold-0", "fold-2"]
    for name in ("fold-0", "fold-2"):
        assert artifact(tmp_path / name) == artifact(whole / name)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(line["seed"], line["folds"]) for line in lines} == {(3, 3)}
    of_a_fold = {
        "ppo": [248, 496, 744, 992],
        "direct+ppo": [1512, 248, 496, 744, 992],
        "q-learning": list(range(48, 961, 48)),
    }[chosen.training.algorithm]
    of = {"direct": 1512, "ppo": 992, "q-learning": 960}
    assert [(line["fold"], line["timesteps"]) for line in lines] == [(fold, taken) for fold in (0, 2) for taken in of_a_fold]
    for line in lines:
        assert set(line) == OF_EVERY_LINE | OF_ITS_OWN[line["phase"]]
        assert line["phase"] in chosen.training.algorithm
        assert line["of"] == of[line["phase"]]


def test_nothing_after_a_folds_training_reaches_its_model(channel: Path, chosen: Settings, whole: Path, tmp_path: Path):
    """Every later number is spoiled, and the standardisation with it if it looked."""
    read = dataset.read_channel(channel, symbols=chosen.universe.symbols, live_start=chosen.training.live_start)
    fold = configuration.folds_of(read.market.sessions, chosen)[1]
    after = read.market.sessions > fold.train_end
    spoiled = {}
    for name in ("open", "high", "low", "close", "volume", "features", "context"):
        values = getattr(read.market, name).copy()
        values[after] = values[after] * 3 + 1
        spoiled[name] = values
    spoiled_dataset = replace(read, market=replace(read.market, **spoiled))
    training.train_fold(training.Job(seed=3, settings=chosen), fold, dataset=spoiled_dataset, folder=tmp_path)
    assert artifact(tmp_path) == artifact(whole / "fold-1")


def test_everything_is_one_fold_up_to_live_start(channel: Path, tmp_path: Path):
    small_run.train(channel, tmp_path, "--seed", "3", "--everything", chosen=CHOSEN)
    assert [path.name for path in tmp_path.iterdir()] == ["fold-0"]
    card = load_policy(tmp_path / "fold-0").card
    assert (card.train_start, card.train_end) == (str(small_run.DAYS[0]), str(small_run.DAYS[-1]))


PLAIN, WITH_TREES = (small_run.settings(features={"forecast": name}, training={"algorithm": "ppo"}) for name in ("none", "trees"))


@pytest.fixture(scope="module")
def folder(channel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fold of the seed, trained on the forecast too."""
    model = tmp_path_factory.mktemp("model")
    small_run.train(channel, model, "--seed", "3", "--fold", "1", chosen=WITH_TREES)
    return model / "fold-1"


class TestForecast:
    def test_the_artifact_holds_the_trees_of_all_training_rows_and_a_network_that_reads_them(
        self, channel: Path, folder: Path, tmp_path: Path
    ):
        small_run.train(channel, tmp_path, "--seed", "3", "--fold", "1", chosen=PLAIN)
        policy, plain = load_policy(folder), load_policy(tmp_path / "fold-1")
        assert (policy.card.forecast, plain.card.forecast) == ("trees", "none")
        assert policy.card.features == plain.card.features
        assert policy.card.inputs == plain.card.inputs + 1
        market = small_run.market().rows(plain.card.train_start, plain.card.train_end)
        for name, values in forecast.fit(market).arrays.items():
            np.testing.assert_array_equal(policy.arrays[name], values)

    def test_the_network_was_trained_on_forecasts_out_of_fold(self, folder: Path):
        """Its standardisation is over what it saw: every input but one is a column of the market, and that one the cross-fitted scores."""
        policy = load_policy(folder)
        market = small_run.market().rows(policy.card.train_start, policy.card.train_end)
        scores = forecast.cross_fit(market, purge=WITH_TREES.training.purge_sessions)[market.tradable]
        column = len(policy.card.features)
        np.testing.assert_allclose(policy.arrays["mu"][column], scores.mean(), atol=1e-6)
        np.testing.assert_allclose(policy.arrays["sigma"][column], scores.std(), rtol=1e-6)

    def test_the_same_bytes_again_and_nothing_after_the_training_reaches_them(self, channel: Path, folder: Path, tmp_path: Path):
        read = dataset.read_channel(channel, symbols=CHOSEN.universe.symbols, live_start=CHOSEN.training.live_start)
        fold = configuration.folds_of(read.market.sessions, CHOSEN)[1]
        after, spoiled = read.market.sessions > fold.train_end, {}
        for name in ("open", "high", "low", "close", "volume", "features", "context"):
            spoiled[name] = getattr(read.market, name).copy()
            spoiled[name][after] = spoiled[name][after] * 3 + 1
        later = replace(read, market=replace(read.market, **spoiled))
        training.train_fold(training.Job(seed=3, settings=WITH_TREES), fold, dataset=later, folder=tmp_path)
        assert artifact(tmp_path) == artifact(folder)

    def test_seeds_share_the_trees_and_stack(self, channel: Path, folder: Path, tmp_path: Path):
        small_run.train(channel, tmp_path, "--seed", "4", "--fold", "1", chosen=WITH_TREES)
        both = stack_policies([load_policy(folder), load_policy(tmp_path / "fold-1")])
        assert both.card.seeds == (3, 4)

    def test_it_is_another_trial(self):
        plain, other = configuration.Configuration.of(PLAIN), configuration.Configuration.of(WITH_TREES)
        assert plain.settings["features"] == {"forecast": "none"}
        assert len({plain.trial, other.trial}) == len({plain.identity, other.identity}) == len({plain.of_one_seed, other.of_one_seed}) == 2


REWARDS = ({"reward": {"kind": "log_growth"}}, {"reward": {"turnover_penalty": 5.0}}, {"reward": {"drawdown_penalty": 5.0}})
EPISODES = {"training": {"names_per_episode": 2}}
BOOKS = ({"portfolio": {"kappa": 0.2}}, {"costs": {"slippage_bps": 200.0}})


@pytest.mark.parametrize(("algorithm", "changes"), [("ppo", (*REWARDS, EPISODES, *BOOKS)), ("direct", BOOKS), ("q-learning", BOOKS[1:])])
def test_what_is_paid_for_and_how_books_trade_come_from_the_settings(algorithm: Algorithm, changes: tuple[dict[str, object], ...]):
    """Direct reinforcement and Q-learning follow growth itself, whatever the reward; the latter's agents trade all of a name at once."""
    market = small_run.market().rows(small_run.DAYS[260], small_run.DAYS[-1])

    def arrays(**changed: dict[str, object]) -> bytes:
        chosen = small_run.settings(**{**changed, "training": {"algorithm": algorithm, **changed.get("training", {})}})
        fitted = training.TRAINERS[algorithm](market, settings=chosen, seed=0, timesteps=1000)
        return b"".join(part.tobytes() for _, part in sorted(fitted.arrays.items()))

    plain = arrays()
    assert plain == arrays()
    for changed in changes:
        assert arrays(**changed) != plain, changed


def test_a_line_of_ppo_says_what_the_rollout_earned_and_what_the_update_before_it_measured():
    """Where no episode ends, the default reward is 300 times the log growth over equal weight."""
    market = small_run.market().rows(small_run.DAYS[252], small_run.DAYS[-1])
    chosen = small_run.settings(training={"algorithm": "ppo", "episode_sessions": 200})
    curve = training.TRAINERS["ppo"](market, settings=chosen, seed=0, timesteps=1000).curve
    of_the_update = ("kl", "value_loss", "entropy", "explained_variance")
    assert [curve[0][name] for name in of_the_update] == [None] * 4
    for line in curve:
        assert line["rollout_reward"] == pytest.approx(300 * line["excess"], abs=1e-5)
    for line in curve[1:]:
        assert line["value_loss"] > 0
        assert line["explained_variance"] <= 1
        # Of a normal distribution over three names, at about the standard deviation of the next rollout
        assert line["entropy"] == pytest.approx(3 * (0.5 + 0.5 * np.log(2 * np.pi) + line["log_std"]), abs=0.05)
    assert all(line["seconds_left"] >= 0 for line in curve)
    assert curve[-1]["seconds_left"] == 0


@pytest.mark.parametrize("algorithm", ["ppo", "direct", "q-learning"])
def test_tensorboard_gets_its_file_and_changes_nothing(channel: Path, tmp_path: Path, algorithm: Algorithm):
    log, chosen = tmp_path / "log", small_run.settings(training={"algorithm": algorithm})
    plain = ("--seed", "3", "--fold", "0")
    small_run.train(channel, tmp_path / "plain", *plain, chosen=chosen)
    small_run.train(channel, tmp_path / "model", *plain, "--tensorboard", str(log), chosen=chosen)
    assert [path.name.split(".")[:3] for path in (log / "seed-3" / "fold-0").iterdir()] == [["events", "out", "tfevents"]]
    assert artifact(tmp_path / "model" / "fold-0") == artifact(tmp_path / "plain" / "fold-0")


@pytest.mark.parametrize(
    ("arguments", "changes", "words"),
    [
        (["--fold", "3"], {}, "--fold must lie in 0 to 2, the last being the holdout's, was 3"),
        (["--timesteps", "10"], {}, "timesteps"),
        ([], {"training": {"test_start": str(small_run.DAYS[200])}}, "200 lie before test_start"),
        ([], {"training": {"live_start": str(small_run.DAYS[600])}}, "end must be before live_start"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(channel: Path, tmp_path: Path, arguments, changes, words):
    with pytest.raises(ValueError, match=words):
        small_run.train(channel, tmp_path, "--seed", "0", *arguments, chosen=small_run.settings(**changes))
    assert list(tmp_path.iterdir()) == []
