"""`papertape train` and `evaluate` on a user's own CSV, with budgets of a test: the real scripts in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import papertape
from papertape import command_line
from papertape.market_data import bundled

pytestmark = pytest.mark.rehearse

NAMES = ["AAPL", "IBM", "SPY"]
SMALL = ("--folds", "2", "--seeds", "2", "--timesteps", "1000")


def call(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(command_line.app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four years of three names, as another vendor would write them."""
    daily = bundled.daily_bars()
    own = daily[daily["symbol"].isin(NAMES) & daily["session"].between("2015-01-01", "2018-12-31")]
    written = own.rename(columns={"symbol": "Ticker", "session": "Date", "open": "Open", "high": "High", "low": "Low", "close": "Close"})
    path = tmp_path_factory.mktemp("own") / "mine.csv"
    written.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def evaluated(bars: Path) -> Result:
    folder = bars.parent
    return call("evaluate", "--bars", bars, *SMALL, "--out", folder / "run", "--trials", folder / "trials", "--tensorboard")


def test_evaluate_judges_ones_own_bars_and_makes_the_page(bars: Path, evaluated: Result) -> None:
    assert evaluated.exit_code == 0, evaluated.output
    folder = bars.parent / "run"
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["data"]["symbols"] == NAMES
    assert [row["name"] for row in evaluation["rows"] if row["kind"] == "agent seed"] != []
    assert "hold SPY" in [row["name"] for row in evaluation["rows"]]
    assert evaluation["gate"]["passed"] is False
    assert "3,018 daily bars of 3 names, 2015-01-02 to 2018-12-31" in evaluated.stdout
    assert "dates from the bars: training from 2016-01-0" in evaluated.stdout
    assert evaluation["answer"] in " ".join(evaluated.stdout.split())
    assert "refused  evidence: 2 folds" in evaluated.stdout
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert evaluation["answer"].partition(": ")[0] in page
    assert len(list((bars.parent / "trials").glob("*.json"))) == 1
    assert {path.parent.name for path in (folder / "tensorboard" / "seed-1").rglob("events.*")} == {"fold-0", "fold-1", "fold-2"}


@pytest.fixture(scope="module")
def three_years(bars: Path) -> Path:
    """753 sessions, no more than many vendors give away."""
    daily = pd.read_csv(bars)
    days = sorted(daily["Date"].unique())[-753:]
    path = bars.parent / "short.csv"
    daily[daily["Date"].isin(days)].to_csv(path, index=False)
    return path


def test_three_years_of_own_bars_are_evaluated_and_cannot_pass(three_years: Path, tmp_path: Path) -> None:
    small = ("--seeds", "1", "--timesteps", "1000")
    result = call("evaluate", "--quick", "--bars", three_years, *small, "--out", tmp_path / "run", "--trials", tmp_path / "trials")
    assert result.exit_code == 0, result.output
    assert "short bars: a holdout of 81 sessions instead of 252; this can never pass the gate" in result.stdout
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert (len(evaluation["windows"]["folds"]), evaluation["gate"]["passed"]) == (4, False)


def test_three_years_of_own_bars_are_trained_on(three_years: Path, tmp_path: Path) -> None:
    result = call("train", "--bars", three_years, "--timesteps", "1000", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "short bars: a holdout of 81 sessions instead of 252 and 7 folds instead of 8" in result.stdout
    assert "try it: papertape backtest" in result.stdout


def test_bars_that_are_too_short_to_train_on_are_refused_with_what_to_bring(three_years: Path, tmp_path: Path) -> None:
    daily = pd.read_csv(three_years)
    daily[daily["Date"] < "2017-12-01"].to_csv(tmp_path / "two.csv", index=False)
    for command in (("evaluate", "--quick"), ("train",)):
        result = call(*command, "--bars", tmp_path / "two.csv", "--out", tmp_path / "run")
        assert result.exit_code == 1
        assert "sessions are too few to train and judge on: bring 552 or more" in result.output


def test_a_repeat_trains_nothing_and_counts_no_trial(bars: Path, evaluated: Result) -> None:
    folder = bars.parent
    first = json.loads((folder / "run" / "evaluation.json").read_text(encoding="utf-8"))
    (folder / "run" / "seeds" / "1" / "fold-0" / "training.json").unlink()
    again = call("evaluate", "--bars", bars, *SMALL, "--out", folder / "run", "--trials", folder / "trials")
    assert again.exit_code == 0, again.output
    assert "5 of 6 trainings kept from before" in again.stdout
    second = json.loads((folder / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert second["model_hash"] == first["model_hash"]
    assert (first["log"]["new"], second["log"]["new"], second["log"]["trials"]) == (True, False, 1)
    assert second["rows"] == first["rows"]


def test_backtest_of_the_runs_folder_is_the_evaluation_over_the_judged_sessions(bars: Path, evaluated: Result) -> None:
    folder = bars.parent / "run"
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    windows = evaluation["windows"]
    found = papertape.backtest(papertape.study(bars), folder, start=windows["evaluation_start"], end=windows["evaluation_end"])
    agent = next(row for row in evaluation["rows"] if row["kind"] == "agent")["at"]
    for cost, skill in found.skill.items():
        expected = agent[str(cost)]
        assert skill.excess_bp == pytest.approx(expected["excess_bp_per_year"], rel=1e-5)
        assert skill.information_ratio == pytest.approx(expected["information_ratio"], rel=1e-5)
    assert found.policy.equity[-1] == pytest.approx(agent["10"]["final_equity"], rel=1e-5)
    assert not found.in_sample.any()
    assert [f"seeds/{{0,1}}/fold-{number}, " in line for number, line in enumerate(found.notes[-2:])] == [True, True]


def test_train_to_a_day_and_trade_after_it(bars: Path, tmp_path: Path) -> None:
    run = ("--bars", bars, "--timesteps", "1000", "--seeds", "2", "--out", tmp_path / "run")
    trained = call("train", "--until", "2017-12-31", *run)
    assert trained.exit_code == 0, trained.output
    assert "training 2016-01-04 to 2017-12-29, nothing from 2018-01-01 on is read" in trained.stdout
    trying = trained.stdout.partition("try it: papertape ")[2].split()
    assert trying[-4:] == ["--policy", str(tmp_path / "run"), "--from", "2018-01-02"]
    after = call(*trying)
    assert after.exit_code == 0, after.output
    assert "2018-01-02 to 2018-12-31" in after.stdout
    assert "in sample" not in after.stdout
    assert "seeds/{0,1}/fold-0, trained on 2016-01-04 to 2017-12-29" in after.stdout
    before = call(*trying[:-1], "2017-12-27")
    assert "in sample: this model was trained on 2016-01-04 to 2017-12-29; its results there, 3 of 254 sessions" in before.stdout
    assert "--from 2018-01-02 leaves them out" in before.stdout
    kept = call("train", "--until", "2017-12-31", *run)
    assert "2 of 2 trainings kept from before" in kept.stdout


def test_the_evaluated_model_trades_the_bundled_universe(bars: Path, evaluated: Result) -> None:
    result = call("backtest", "--policy", bars.parent / "run", "--from", "2018-06-01", "--to", "2019-03-01")
    assert result.exit_code == 0, result.output
    assert "in sample: this model was trained on 2016-01-0" not in result.stdout
    assert "2018-06-01 to 2019-03-01" in result.stdout
    inside = call("backtest", "--policy", bars.parent / "run", "--from", "2016-06-01", "--to", "2016-08-01")
    assert "in sample: this model was trained on 2016-01-0" in inside.stdout


def test_ctrl_c_stops_every_training(bars: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "papertape", "train", "--bars", str(bars), "--timesteps", "10000000", "--out", str(tmp_path)]
    with subprocess.Popen(command, cwd=command_line.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        log = tmp_path / "logs" / "train-0-8.log"
        deadline = time.monotonic() + 60
        while not log.exists():
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        _, told = run.communicate(timeout=30)
    assert run.returncode == 130
    assert told == "papertape: interrupted; what was started has been stopped\n"
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in running
