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
    assert evaluation["answer"] in evaluated.stdout
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


def test_the_evaluated_model_trades_the_bundled_universe(bars: Path, evaluated: Result) -> None:
    result = call("backtest", "--policy", bars.parent / "run", "--start", "2018-06-01", "--end", "2019-03-01")
    assert result.exit_code == 0, result.output
    assert "in sample: this model was trained on 2016-01-0" not in result.stdout
    assert "2018-06-01 to 2019-03-01" in result.stdout
    inside = call("backtest", "--policy", bars.parent / "run", "--start", "2017-06-01", "--end", "2017-08-01")
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
