"""A run of the training room in processes of its own: asked to stop it stops, and it goes on to the model of an unbroken one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from papertape.runs.store import LocalRunStore, write_whole
from schema.runs.events import Progressed, StateChanged

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "universe": {"symbols": ["SPY", "AAPL", "IBM"]},
    "risk": {"max_weight": 1.0},
    "training": {
        "start": "2015-01-02", "test_start": "2019-01-02", "folds": 1, "holdout_sessions": 63, "seeds": [0], "timesteps": 20_000,
        "environments": 8, "episode_sessions": 21, "algorithm": "ppo",
    },
}  # fmt: skip


def started(folder: Path, run_id: str) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "papertape.runs", "--run", run_id, "--folder", str(folder), "--workers", "1"]
    return subprocess.Popen(arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def states(folder: Path, run_id: str) -> list[str]:
    return [event.state for event in LocalRunStore(folder).events(run_id) if isinstance(event, StateChanged)]


def models(folder: Path, run_id: str) -> dict[str, Any]:
    """The trained weights by file; what a judgement adds (when, which trial) stands beside them."""
    with tarfile.open(folder / "runs" / run_id / "results" / "model.tar.gz") as archive:
        return {name: archive.extractfile(name).read() for name in ("policy.npz", "policy.json")}  # type: ignore[union-attr]


@pytest.mark.rehearse
def test_a_run_that_was_stopped_ends_with_the_model_of_an_unbroken_one(tmp_path: Path) -> None:
    runs = ("unbroken-0001", "stopped-00001")
    for run_id in runs:
        request = {"id": run_id, "kind": "train", "by": "ann", "requested_at": "2026-11-22T12:00:00Z", "bars": {"source": "bundled"}}
        write_whole(tmp_path / "runs" / run_id / "request.json", json.dumps({**request, "settings": SETTINGS}).encode())
    worker = started(tmp_path, "stopped-00001")
    while not any(isinstance(event, Progressed) for event in LocalRunStore(tmp_path).events("stopped-00001")):
        time.sleep(0.05)
        assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert states(tmp_path, "stopped-00001") == ["running", "stopped"]
    assert [started(tmp_path, run_id).wait() for run_id in runs] == [0, 0]
    assert [states(tmp_path, run_id)[-1] for run_id in runs] == ["finished", "finished"]
    assert models(tmp_path, "unbroken-0001") == models(tmp_path, "stopped-00001")
