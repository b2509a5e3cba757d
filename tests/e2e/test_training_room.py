"""A run of the training room in processes of its own: asked to stop, or out of disk, it goes on to the model of an unbroken one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from papertape.runs.full_disk import REMEDY
from papertape.runs.store import LocalRunStore, write_whole
from schema.runs.events import Progressed, StateChanged
from tests.small_disk import SmallDisk, small_disk

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "universe": {"symbols": ["SPY", "AAPL", "IBM"]},
    "risk": {"max_weight": 1.0},
    "training": {
        "start": "2015-01-02", "test_start": "2019-01-02", "folds": 1, "holdout_sessions": 63, "seeds": [0], "timesteps": 20_000,
        "environments": 8, "episode_sessions": 21, "algorithm": "ppo",
    },
}  # fmt: skip


def started(folder: Path, run_id: str, *, disk: SmallDisk | None = None) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "papertape.runs", "--run", run_id, "--folder", str(folder), "--workers", "1"]
    return subprocess.Popen(arguments if disk is None else disk.inside(*arguments), cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def states(folder: Path, run_id: str) -> list[str]:
    return [event.state for event in LocalRunStore(folder).events(run_id) if isinstance(event, StateChanged)]


def models(folder: Path, run_id: str) -> dict[str, Any]:
    """The trained weights by file; what a judgement adds (when, which trial) stands beside them."""
    with tarfile.open(folder / "runs" / run_id / "results" / "model.tar.gz") as archive:
        return {name: archive.extractfile(name).read() for name in ("policy.npz", "policy.json")}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    ask(folder, "unbroken-0001")
    assert started(folder, "unbroken-0001").wait() == 0
    return folder


def ask(folder: Path, run_id: str) -> None:
    request = {"id": run_id, "kind": "train", "by": "ann", "requested_at": "2026-11-22T12:00:00Z", "bars": {"source": "bundled"}}
    write_whole(folder / "runs" / run_id / "request.json", json.dumps({**request, "settings": SETTINGS}).encode())


def until(happened: Callable[[], bool], worker: subprocess.Popen[bytes]) -> None:
    while not happened():
        time.sleep(0.05)
        assert worker.poll() is None


@pytest.mark.rehearse
def test_a_run_that_was_stopped_while_it_trained_and_while_it_was_judged_ends_with_the_model_of_an_unbroken_one(
    tmp_path: Path, unbroken: Path
) -> None:
    ask(tmp_path, "stopped-00001")
    judging = tmp_path / "runs" / "stopped-00001" / "checkpoint" / "judging"
    for happened in (
        lambda: any(isinstance(event, Progressed) for event in LocalRunStore(tmp_path).events("stopped-00001")),
        lambda: any(judging.glob("*/*.npz")),
    ):
        worker = started(tmp_path, "stopped-00001")
        until(happened, worker)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert states(tmp_path, "stopped-00001")[-2:] == ["running", "stopped"]
    assert started(tmp_path, "stopped-00001").wait() == 0
    assert states(tmp_path, "stopped-00001")[-1] == "finished"
    assert models(unbroken, "unbroken-0001") == models(tmp_path, "stopped-00001")


@pytest.mark.rehearse
def test_a_training_that_fills_the_disk_is_failed_and_with_room_ends_with_the_same_model(tmp_path: Path, unbroken: Path) -> None:
    with small_disk(tmp_path, size=40_000_000) as disk:
        ask(disk.seen, "on-a-full-disk")
        run, resumed = disk.seen / "runs" / "on-a-full-disk", disk.seen / "runs" / "on-a-full-disk" / "checkpoint" / "resume"
        worker = started(tmp_path, "on-a-full-disk", disk=disk)
        until(lambda: any(resumed.rglob("*.*")), worker)
        filler = disk.fill()
        assert worker.wait() == 1
        shutil.copytree(run, tmp_path.parent / "seen" / "runs" / run.name)
        said = LocalRunStore(tmp_path.parent / "seen").events(run.name)[-1]
        assert isinstance(said, StateChanged)
        assert (said.state, said.message) == ("failed", REMEDY)
        filler.unlink()
        assert started(tmp_path, "on-a-full-disk", disk=disk).wait() == 0
        shutil.copytree(run, tmp_path.parent / "after" / "runs" / run.name)
    assert models(unbroken, "unbroken-0001") == models(tmp_path.parent / "after", "on-a-full-disk")
