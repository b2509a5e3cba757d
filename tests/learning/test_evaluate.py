"""The judging job from archives to evaluation.json: what it reads, what it refuses to read, and that a repeat is no second trial."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learning import configuration, dataset, document, evaluation, judged_books
from schema import evaluation_document
from tests import small_run
from trading_env.simulation.policy import load_policy, stack_policies

CHOSEN = small_run.settings()
FOLDS = configuration.folds_of(small_run.DAYS, CHOSEN)
AGENT = CHOSEN.training.algorithm_name


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.train_all(tmp_path_factory.mktemp("judged"), chosen=CHOSEN)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("log") / "trials")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first judgement keeps its books."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def found(root: Path, trials: str, kept: Path) -> dict[str, Any]:
    return small_run.evaluate(root, trials=trials, chosen=CHOSEN, arguments=["--command", "make it so", "--checkpoint", str(kept)])


def test_the_document_is_what_the_pages_read(found: dict[str, Any]):
    seen = evaluation_document.read(found)
    assert seen.command == "make it so"
    assert seen.answer.startswith(f"{AGENT} ")
    assert seen.answer.endswith("refused by: " + ", ".join(check.name for check in seen.gate.refusals) + ".")
    assert [row.name for row in seen.rows if row.kind != "baseline"] == [AGENT, f"{AGENT} seed 0", f"{AGENT} seed 1"]
    assert {row.name for row in seen.baselines} >= {"cash", "equal weight daily", "hold AAA", "ridge", "trees"}
    assert all(set(row.at) == ({"10", "20"} if row.kind == "agent seed" else {"0", "10", "20"}) for row in seen.rows)
    assert [fold.holdout for fold in seen.windows.folds] == [False, False, True]
    assert (seen.quick, seen.headline.seeds, seen.training.folds) == (True, 2, 2)
    assert list(seen.curves.growth)[:3] == ["agent", "equal weight", "AAA"]
    assert "evidence" in {check.name for check in seen.gate.refusals}
    assert found["gate"]["excess_bp_per_year"] == seen.agent.at["10"].excess_bp_per_year


def test_what_is_against_equal_weight_at_kappa_stands_beside_what_is_against_it_daily(found: dict[str, Any], trials: str):
    seen, slow = evaluation_document.read(found), next(row for row in found["rows"] if row["name"] == "equal weight at kappa")
    for cost in ("0", "10", "20"):
        agent, even = found["rows"][0]["at"][cost], slow["at"][cost]
        ahead = agent["excess_bp_per_year"] - even["excess_bp_per_year"]
        assert agent["excess_at_kappa_bp_per_year"] == pytest.approx(ahead, rel=1e-5, abs=1e-3)  # written to six digits
        assert seen.headline.excess_at_kappa_bp_per_year[cost] == agent["excess_at_kappa_bp_per_year"]
        assert seen.headline.information_ratio_at_kappa[cost] == agent["information_ratio_at_kappa"]
        assert (even["excess_at_kappa_bp_per_year"], even["information_ratio_at_kappa"]) == (0, None)
    line = json.loads((Path(trials) / "000001.json").read_text(encoding="utf-8"))
    logged = sum(line["excess_at_kappa"]) / len(line["excess_at_kappa"]) * 252e4
    assert logged == pytest.approx(seen.headline.excess_at_kappa_bp_per_year["10"], rel=1e-4)
    assert found["trials"][0]["excess_at_kappa_bp_per_year"] == pytest.approx(logged, rel=1e-4)
    ratio = seen.headline.information_ratio_at_kappa["10"]
    assert f"and against equal weight at kappa {logged:+.1f} bp, {ratio:+.2f}; over 70 sessions" in seen.answer
    assert f"at kappa {logged:+.1f} bp {ratio:+.2f}" in found["metadata"]["gate"]
    assert found["gate"]["information_ratio_at_kappa"] == ratio
    assert {"reality_check_p", "reality_check_p_at_kappa", "dsr_excess", "dsr_excess_at_kappa", "pbo"} <= set(found["statistics"])


def test_nothing_of_the_holdout_is_shown_or_logged(found: dict[str, Any], trials: str):
    assert found["curves"]["sessions"] == [str(day) for day in small_run.DAYS[540:610]]
    assert found["windows"]["evaluation_end"] == str(small_run.DAYS[609])
    (line,) = [path.read_text(encoding="utf-8") for path in Path(trials).iterdir()]
    assert json.loads(line)["sessions"][-1] == str(small_run.DAYS[609])
    assert found["log"] == {"head": json.loads(line)["hash"], "trials": 1, "openings": 0, "new": True}


def test_the_curves_are_the_logged_excess_and_the_rows_own_end(found: dict[str, Any], trials: str):
    excess = json.loads((Path(trials) / "000001.json").read_text(encoding="utf-8"))["excess"]
    np.testing.assert_allclose(found["curves"]["excess"], np.cumsum(excess), atol=1e-5)
    assert found["rows"][0]["at"]["10"]["final_equity"] == pytest.approx(found["curves"]["growth"]["agent"][-1], rel=1e-5)
    assert found["rows"][1]["at"]["10"]["final_equity"] == CHOSEN.portfolio.initial_cash  # cash
    assert sum(excess) / len(excess) * 252e4 == pytest.approx(found["headline"]["excess_bp_per_year"]["10"], rel=1e-4)


def test_the_model_is_the_ensemble_of_the_holdouts_fold(root: Path, found: dict[str, Any], tmp_path: Path):
    with tarfile.open(root / "output" / "model" / "model.tar.gz", mode="r:gz") as tar:
        tar.extractall(tmp_path, filter="data")
    served = load_policy(tmp_path)
    trained = stack_policies([load_policy(root / f"trained-{seed}" / "fold-2") for seed in (0, 1)])
    assert served.card == trained.card
    assert all(np.array_equal(served.arrays[name], values) for name, values in trained.arrays.items())
    assert {"code/inference.py", "code/requirements.txt", "code/trading_env/simulation/policy.py"} <= {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")
    }
    assert found["windows"]["train_end"] == str(FOLDS[2].train_end) == served.card.train_end


def test_a_repeat_gives_the_same_bytes_and_no_second_trial(root: Path, found: dict[str, Any], trials: str):
    archive = (root / "output" / "model" / "model.tar.gz").read_bytes()
    again = small_run.evaluate(root, trials=trials, chosen=CHOSEN, arguments=["--command", "make it so"])
    assert again.pop("log") == {**found["log"], "new": False}
    assert json.dumps(again) == json.dumps({name: value for name, value in found.items() if name != "log"})
    assert (root / "output" / "model" / "model.tar.gz").read_bytes() == archive
    assert len(list(Path(trials).iterdir())) == 1


def test_metadata_fits_a_model_package(found: dict[str, Any]):
    for value in found["metadata"].values():
        assert isinstance(value, str)
        assert 0 < len(value) <= 256
        assert all(character.isalnum() or character in " _.:/=+-@" for character in value)
    assert found["metadata"]["trial"] == found["trial"]
    assert found["metadata"]["gate"].startswith("refused: excess ")


def record_of(chosen: Any, **changes: Any) -> dict[str, Any]:
    """The part of a training.json by which a model is known."""
    return {
        "timesteps_asked": 1000,
        "seed": 1,
        "fold": 2,
        "configuration_of_one_seed": configuration.Configuration.of(chosen).of_one_seed,
        **changes,
    }


class TestTrial:
    def test_the_seeds_and_timesteps_of_the_models_make_it_whatever_the_settings_say(self):
        later = small_run.settings(training={"timesteps": 5000, "seeds": [0, 1, 2]})
        assert evaluation.as_trained(later, seeds=(0, 1), records=[record_of(CHOSEN)]) == CHOSEN

    def test_other_seeds_are_another_configuration_and_a_later_live_start_another_trial_of_the_same(self):
        own, alone = configuration.Configuration.of(CHOSEN), configuration.Configuration.of(small_run.settings(training={"seeds": [1]}))
        later = configuration.Configuration.of(small_run.settings(training={"live_start": "2019-01-02"}))
        assert len({own.trial, alone.trial, later.trial}) == 3
        assert own.identity == later.identity != alone.identity
        assert own.of_one_seed == alone.of_one_seed != later.of_one_seed
        assert configuration.Configuration.of(small_run.settings(model={"approval": "manual"})) == own

    @pytest.mark.parametrize(
        ("chosen", "changes", "words"),
        [
            (CHOSEN, {"timesteps_asked": 2000}, "trained for the same timesteps, were 1000, 2000"),
            (CHOSEN, {"configuration_of_one_seed": "x"}, "model-1, fold-2: was trained under other settings or code"),
            (small_run.settings(costs={"slippage_bps": 5.0}), {}, "model-1, fold-2: was trained under other settings or code"),
            (
                small_run.settings(reward={"kind": "log_growth"}, training={"algorithm": "ppo"}),
                {},
                "model-1, fold-2: was trained under other settings or code",
            ),
        ],
    )
    def test_models_of_other_settings_or_code_are_refused(self, chosen, changes, words):
        with pytest.raises(dataset.DatasetError, match=words):
            evaluation.as_trained(chosen, seeds=(0, 1), records=[record_of(CHOSEN), record_of(CHOSEN, **changes)])


def _no_fold(model: Path) -> None:
    shutil.rmtree(model / "fold-1")


def _folds_exchanged(model: Path) -> None:
    (model / "fold-0").rename(model / "kept")
    (model / "fold-1").rename(model / "fold-0")
    (model / "kept").rename(model / "fold-1")


def _other_seed(model: Path) -> None:
    card = json.loads((model / "fold-0" / "policy.json").read_text(encoding="utf-8"))
    (model / "fold-0" / "policy.json").write_text(json.dumps({**card, "seeds": [7]}), encoding="utf-8")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_no_fold, "model-1, fold-1: is not there; every fold must be trained"),
        (_folds_exchanged, f"model-1, fold-0: must be trained until {FOLDS[0].train_end}, was {FOLDS[1].train_end}"),
        (_other_seed, r"model-1, fold-0: must hold seed 1, was \(7,\)"),
    ],
)
def test_an_archive_that_is_not_the_seeds_is_refused(root: Path, tmp_path: Path, edit, words):
    model = tmp_path / "edited"
    shutil.copytree(root / "trained-1", model)
    edit(model)
    small_run.pack(model, tmp_path / "model-1")
    with pytest.raises(dataset.DatasetError, match=words):
        evaluation.read_seed(tmp_path / "model-1" / "model.tar.gz", seed=1, folds=FOLDS)


def test_a_refused_model_leaves_neither_output_nor_trial(root: Path, tmp_path: Path):
    (tmp_path / "input").symlink_to(root / "input")
    other = small_run.settings(costs={"slippage_bps": 5.0})
    with pytest.raises(dataset.DatasetError, match="model-0, fold-0: was trained under other settings"):
        small_run.evaluate(tmp_path, trials=str(tmp_path / "log"), chosen=other)
    assert [path.name for path in tmp_path.iterdir()] == ["input"]


@pytest.mark.parametrize(
    ("bp", "passed", "verb"),
    [(-1.0, False, "does not beat"), (-1.0, True, "does not beat"), (1.0, False, "is not shown to beat"), (1.0, True, "beats")],
)
def test_the_answer_claims_no_more_than_the_gate(bp: float, passed: bool, verb: str):
    assert document.claim("PPO", bp, passed=passed) == f"PPO {verb} equal weight"


def test_a_judgement_that_was_stopped_between_two_books_goes_on_to_the_same_bytes(
    root: Path, found: dict[str, Any], kept: Path, tmp_path: Path
) -> None:
    part, stop, log = tmp_path / "part", tmp_path / "stop", str(tmp_path / "trials")
    arguments = ["--command", "make it so", "--checkpoint", str(part), "--stop-file", str(stop)]
    archive = (root / "output" / "model" / "model.tar.gz").read_bytes()
    (whole,) = kept.iterdir()
    books = sorted(whole.glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
    assert len(books) == 3 + 3 + 2 * 2, "the agent's and the baselines' at each cost, each seed's at two"
    (part / whole.name).mkdir(parents=True)
    for book in books[1:-1]:  # the agent's first and the baselines' last are left to trade
        shutil.copy(book, part / whole.name)
    stop.touch()
    shutil.rmtree(root / "output")
    with pytest.raises(judged_books.JudgingStopped):
        small_run.evaluate(root, trials=log, chosen=CHOSEN, arguments=arguments)
    assert not (root / "output").exists()
    assert not list(tmp_path.glob("trials/*")), "nothing is logged before all books are there"
    stop.unlink()
    assert small_run.evaluate(root, trials=log, chosen=CHOSEN, arguments=arguments) == found
    assert (root / "output" / "model" / "model.tar.gz").read_bytes() == archive


def test_books_of_another_judgement_are_not_read(tmp_path: Path) -> None:
    made: list[str] = []

    def trade(word: str) -> list[Any]:
        made.append(word)
        return []

    keeper, other = (judged_books.BookKeeper(tmp_path, about=[word]) for word in ("these models", "other models"))
    keeper.books("agent at 10", lambda: trade("ours"))
    other.books("agent at 10", lambda: trade("theirs"))
    assert made == ["ours", "theirs"]
