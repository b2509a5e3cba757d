"""Training processes as their parent sees them: what was finished, what they say, and how they fail."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from papertape.research.training_run import Shown, TrainingError, TrainingRun, follow, start, stop
from schema.settings import load
from tests.small_disk import small_disk

ROOT = Path(__file__).resolve().parents[4]
RECORD = {"configuration_of_one_seed": "configuration", "manifest_sha256": "manifest", "seed": 3, "fold": 1}


@pytest.fixture
def run(tmp_path: Path) -> TrainingRun:
    settings = load(ROOT / "data" / "settings.toml")
    return TrainingRun(tmp_path, tmp_path / "code", settings, (), manifest_sha256="manifest", configuration_of_one_seed="configuration")


@pytest.mark.parametrize(
    ("record", "finished"),
    [
        (RECORD, True),
        ({**RECORD, "configuration_of_one_seed": "other"}, False),
        ({**RECORD, "manifest_sha256": "other"}, False),
        ({**RECORD, "seed": 4}, False),
        ({**RECORD, "fold": 0}, False),
    ],
)
def test_a_training_is_finished_when_its_record_is_of_this_configuration_and_these_bars(
    run: TrainingRun, record: dict[str, Any], finished: bool
) -> None:
    path = run.seed(3) / "fold-1" / "training.json"
    assert not run.finished(3, 1)
    path.parent.mkdir(parents=True)
    path.write_text('{"seed": 3', encoding="utf-8")
    assert not run.finished(3, 1)
    path.write_text(json.dumps(record), encoding="utf-8")
    assert run.finished(3, 1) is finished


def script(folder: Path, text: str) -> list[str]:
    path = folder / "script.py"
    path.write_text(text, encoding="utf-8")
    return [str(path)]


def test_a_child_is_followed_line_by_line_in_its_environment(tmp_path: Path) -> None:
    text = 'import os\nprint(\'{"seed": 1}\')\nprint("told", os.environ["WHAT"], os.environ["OMP_NUM_THREADS"])\n'
    lines: list[dict[str, Any]] = []
    log = tmp_path / "logs" / "child.log"
    child = start(script(tmp_path, text), environment={"WHAT": "this"}, log=log)
    try:
        assert follow(child, log=log, on_line=lines.append) == ["told this 1"]
    finally:
        stop(child)
    assert lines == [{"seed": 1}]


def test_a_child_that_fails_is_quoted(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    child = start(script(tmp_path, 'import sys\nprint("noise", file=sys.stderr)\nsys.exit("train.py: no bars")\n'), environment={}, log=log)
    try:
        with pytest.raises(TrainingError) as caught:
            follow(child, log=log, on_line=lambda _: None)
    finally:
        stop(child)
    assert str(caught.value) == f"train.py: no bars (its log is {log})"


def test_the_last_word_of_a_child_is_heard_where_its_log_cannot_be_written(tmp_path: Path) -> None:
    """It said "ended with status 1" of a full disk when the log was what filled it."""
    with small_disk(tmp_path, size=200_000) as disk:
        log = disk.seen / "child.log"
        asked = script(tmp_path.parent, 'import sys\nprint("noise " * 2000, file=sys.stderr)\nsys.exit("train.py: no room")\n')
        child = start(asked, environment={}, log=log)
        disk.fill()
        try:
            with pytest.raises(TrainingError, match=r"^train.py: no room \("):
                follow(child, log=log, on_line=lambda _: None)
        finally:
            stop(child)


def test_a_log_that_cannot_be_written_is_told_of_a_child_that_ends_well(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    child = start(script(tmp_path, 'import sys\nprint("a word", file=sys.stderr)\n'), environment={}, log=log)
    log.unlink()
    log.mkdir()
    try:
        with pytest.raises(OSError, match=r"child\.log"):
            follow(child, log=log, on_line=lambda _: None)
    finally:
        stop(child)


def test_a_child_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    text = (
        "import subprocess, sys, time\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('{\"pid\": %d}' % grandchild.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    child = start(script(tmp_path, text), environment={}, log=tmp_path / "child.log")
    assert child.stdout is not None
    pid = json.loads(child.stdout.readline())["pid"]
    stop(child)
    assert child.returncode != 0
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and (Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] != "Z"):
        assert time.monotonic() < deadline, f"{pid} still runs"
        time.sleep(0.01)


def test_the_live_line_says_what_the_rollout_measured() -> None:
    progress = Progress(console=Console(file=io.StringIO()))
    bar = progress.add_task("seed 0", total=1.0, start=False)
    shown = Shown(progress, bar, folds=2)
    line = {"seed": 0, "fold": 7, "folds": 9, "timesteps": 500, "of": 1000, "rollout_reward": 0.1234, "kl": None, "log_std": -0.7}
    shown.line({**line, "steps_per_second": 12345})
    task = progress.tasks[0]
    assert task.fields["note"] == "fold 7 (1/2) reward +0.123 log_std -0.700 12,345 steps/s"
    assert task.completed == 0.25
    shown.line({**line, "fold": 8, "timesteps": 1000, "kl": 0.01234, "steps_per_second": 9})
    assert task.fields["note"].startswith("fold 8 (2/2) reward +0.123 kl +0.012")
    assert task.completed == 0.75


def test_a_seed_whose_folds_two_processes_shared_is_said_to_be_trained_once() -> None:
    output = io.StringIO()
    progress = Progress(console=Console(file=output))
    shown = Shown(progress, progress.add_task("seed 0", total=1.0, start=False), folds=2)
    line = {"timesteps": 1000, "of": 1000, "rollout_reward": 0.1, "kl": None, "log_std": -0.7, "steps_per_second": 9}
    shown.line({**line, "fold": 0})
    shown.ended(0)
    assert output.getvalue() == ""
    shown.line({**line, "fold": 1})
    shown.ended(0)
    shown.ended(0)
    assert output.getvalue() == "seed 0: 2 folds trained\n"
