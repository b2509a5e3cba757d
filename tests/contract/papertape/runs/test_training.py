"""A run's training: what is told of it, and that stopped, killed or failed it goes on to what an unbroken one gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from papertape.research.training_run import TrainingError
from papertape.runs.store import LocalRunStore
from schema.runs.events import Progressed
from schema.runs.status import state_of
from tests import run_trainings
from tests.run_trainings import ROLLOUTS, RUN

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    assert run_trainings.train(folder)
    return folder


def until(happened: object, *, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def started(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-m", "tests.run_trainings", str(folder)], cwd=ROOT, env=environment)
    until(lambda: len(list((folder / "run" / "resume").glob("seed-*/fold-*.json"))) > 1)
    return child


def test_every_rollout_and_every_fold_is_told(unbroken: Path) -> None:
    events = LocalRunStore(unbroken).events(RUN)
    assert Counter(event.kind for event in events) == {"progress": 4 * ROLLOUTS, "fold": 4}
    last = [event for event in events if isinstance(event, Progressed)][-1]
    assert (last.phase, last.timesteps, last.of, last.excess, last.steps_per_second) == ("direct", 800, 800, 0.1, 1000)
    assert last.reward is not None
    status = state_of(events, now=datetime.now(UTC))
    assert {(fold.seed, fold.fold) for fold in status.trained} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    left = [event.seconds_left for event in events if isinstance(event, Progressed)]
    assert left[-1] == 0
    assert (left[0] or 0) > (left[len(left) // 2] or 0) > 0


def test_of_short_rollouts_one_a_second_is_told_and_always_the_last(tmp_path: Path) -> None:
    assert run_trainings.train(tmp_path, told_every=1000.0)
    told = [event for event in LocalRunStore(tmp_path).events(RUN) if isinstance(event, Progressed)]
    assert Counter(event.timesteps for event in told) == {100: 4, 800: 4}


@pytest.mark.parametrize("resumable", [True, False], ids=["between rollouts", "fold by fold"])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path, unbroken: Path, resumable: bool) -> None:
    (tmp_path / "asked").touch()
    assert not run_trainings.train(tmp_path, resumable=resumable)
    assert len(run_trainings.weights(tmp_path)) < 4
    (tmp_path / "asked").unlink()
    assert run_trainings.train(tmp_path, resumable=resumable)
    assert run_trainings.weights(tmp_path) == run_trainings.weights(unbroken)


def test_a_killed_worker_takes_its_processes_along_and_the_next_goes_on(tmp_path: Path, unbroken: Path) -> None:
    child = started(tmp_path)
    child.send_signal(signal.SIGKILL)
    child.wait()
    resumed = tmp_path / "run" / "resume"
    time.sleep(0.3)
    kept = {path: path.read_text() for path in resumed.glob("seed-*/*.json")}
    time.sleep(0.2)
    assert {path: path.read_text() for path in resumed.glob("seed-*/*.json")} == kept, "nobody trains any more"
    assert run_trainings.train(tmp_path)
    assert run_trainings.weights(tmp_path) == run_trainings.weights(unbroken)
    told = [event for event in LocalRunStore(tmp_path).events(RUN) if isinstance(event, Progressed)]
    assert len(told) <= 4 * ROLLOUTS + 2, "at most the rollouts under way were repeated"


def test_two_runs_at_once_do_not_meet(tmp_path: Path, unbroken: Path) -> None:
    (tmp_path / "other").mkdir()
    child = started(tmp_path / "other")
    assert run_trainings.train(tmp_path)
    assert child.wait(timeout=120) == 0
    assert run_trainings.weights(tmp_path) == run_trainings.weights(tmp_path / "other") == run_trainings.weights(unbroken)


def test_a_process_that_fails_ends_the_training_with_its_last_line(tmp_path: Path) -> None:
    run = run_trainings.prepared(tmp_path)
    (run.channel / "broken").touch()
    with pytest.raises(TrainingError, match=r"^train.py: the bars are broken$"):
        run_trainings.train(tmp_path)
