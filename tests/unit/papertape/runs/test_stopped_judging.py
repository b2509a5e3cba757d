"""A stop that is asked for while a run is judged acts at the next book, and the next start goes on there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learning.judged_books import JudgingStopped
from papertape.research import evaluate
from papertape.research.training_run import TrainingError, TrainingRun
from tests import run_trainings

JUDGES = """
import argparse, json, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ("--settings", "--trials", "--command"):
    parser.add_argument(name)
for name in ("--root", "--checkpoint", "--stop-file"):
    parser.add_argument(name, type=Path)
parser.add_argument("--seeds", nargs="*")
asked = parser.parse_args()
if asked.command == "broken":
    sys.exit("evaluate.py: the log is broken")
asked.checkpoint.mkdir(exist_ok=True)
for book in range(1 if asked.command == "short" else 200):
    if asked.stop_file.exists():
        sys.exit(75)
    time.sleep(0.05)
    (asked.checkpoint / str(book)).touch()
for name in ("evaluation/evaluation.json", "model/model.tar.gz"):
    (asked.root / "output" / name).parent.mkdir(parents=True)
    (asked.root / "output" / name).write_text(json.dumps({"books": len(list(asked.checkpoint.iterdir()))}))
"""


@pytest.fixture
def run(tmp_path: Path) -> TrainingRun:
    made = run_trainings.prepared(tmp_path)
    (made.code / "evaluate.py").write_text(JUDGES)
    return made


def judge(run: TrainingRun, *, command: str) -> dict[str, object]:
    return evaluate.judge(run, seeds=(), trials="t", command=command, stopping=lambda: False)


def test_it_stops_between_two_books_and_goes_on_with_those_that_are_kept(run: TrainingRun) -> None:
    with pytest.raises(JudgingStopped):
        evaluate.judge(run, seeds=(), trials="t", command="long", stopping=(run.folder / "judging" / "0").exists)
    kept = len(list((run.folder / "judging").iterdir()))
    assert 0 < kept < 200, "it did not wait for the end"
    assert not (run.folder / "evaluation.json").exists()
    assert judge(run, command="short") == {"books": kept}
    assert json.loads((run.folder / "evaluation.json").read_text()) == {"books": kept}
    assert not (run.folder / "judging").exists(), "what is judged needs no checkpoint"


def test_a_judgement_that_failed_is_no_stopped_one(run: TrainingRun) -> None:
    with pytest.raises(TrainingError, match=r"evaluate.py: the log is broken"):
        judge(run, command="broken")
