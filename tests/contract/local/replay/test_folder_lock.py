"""One run per folder, whoever else wants to run there, and whatever ended the one before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from rich.console import Console

from local.aws.emulator import ROOT
from local.replay import demo
from local.replay.folder_lock import FolderInUseError, locked
from papertape.operate.client import RUNNING, announced
from schema.settings import load

HOLDS = """
import subprocess, sys, time
from pathlib import Path
from local.replay.folder_lock import locked
with locked(Path(sys.argv[1])) as descriptor:
    child = subprocess.Popen(["sleep", sys.argv[2]], pass_fds=(descriptor,))
    print(child.pid, flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(folder: Path, *, child_lives: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that runs in `folder`, and the id of its child, which lives so many seconds."""
    command = [sys.executable, "-c", HOLDS, str(folder), child_lives]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[4], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        yield process, child
    finally:
        process.kill()
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it holds the pipe open
        process.communicate()


def test_the_second_in_a_folder_is_refused_in_one_line_that_names_the_first(tmp_path: Path) -> None:
    with holder(tmp_path / "run", child_lives="60") as (process, _), pytest.raises(FolderInUseError) as refused, locked(tmp_path / "run"):
        pass
    assert str(refused.value) == f"{tmp_path / 'run'} is in use by process {process.pid}: work with that one, or stop it first"


def test_the_folder_of_a_killed_run_is_free_when_its_children_have_ended(tmp_path: Path) -> None:
    with holder(tmp_path / "run", child_lives="1") as (process, child):
        process.kill()
        process.wait()
        os.kill(child, 0)  # still saving, say
        started = time.monotonic()
        with locked(tmp_path / "run"):
            assert 0.2 < time.monotonic() - started < 15
    assert (tmp_path / "run.lock").read_text(encoding="utf-8") == f"{os.getpid()}\n"


def test_the_demo_leaves_a_folder_alone_in_which_somebody_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "traded.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(demo, "FOLDER", folder)
    with holder(folder, child_lives="60"), pytest.raises(FolderInUseError):
        demo.run(load(ROOT / "settings.toml"), console=Console())
    assert (folder / "traded.json").exists()


def test_the_announcement_of_another_run_is_left_alone(tmp_path: Path) -> None:
    theirs = '{"api": "a", "cloud": "http://127.0.0.1:1", "region": "us-east-1", "pid": 1, "name": "local"}'
    with announced(tmp_path, api_url="https://b", cloud_url="http://127.0.0.1:2", settings=load(ROOT / "settings.toml")):
        (tmp_path / RUNNING).write_text(theirs, encoding="utf-8")
    assert (tmp_path / RUNNING).read_text(encoding="utf-8") == theirs
    with announced(tmp_path, api_url="https://b", cloud_url="http://127.0.0.1:2", settings=load(ROOT / "settings.toml")):
        pass
    assert not (tmp_path / RUNNING).exists()
