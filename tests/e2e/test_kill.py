"""SIGKILL in the middle of a batch: after a restart the final books are those of a run that nobody killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.replay.local_deployment import synthesize
from schema.sections.realtime import RunnerSettings
from schema.settings import Settings
from tests.e2e.conftest import EVE, App
from tests.e2e.driven import ORDERS, decides, trade

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")

ROOT = Path(__file__).parents[2]
MARK = "PAPERTAPE_TEST_MARK"
TIMEOUT = 600.0
#: Of the second session's eight: some went before it, some would come after.
DEADLY = ORDERS + 4

Books = dict[str, Any]


@pytest.fixture(scope="module")
def undisturbed(app: App) -> Books:
    app.begin(f"{EVE}T22:00:00Z")
    decides(app)
    return trade(app, on_post=lambda _: None)


def test_the_function_is_killed_between_two_orders(app: App, undisturbed: Books, market: Callable[[str], App]) -> None:
    market(f"{EVE}T22:00:00Z")
    decides(app)
    killed: list[int] = []

    def kill(posted: int) -> None:
        if posted == DEADLY:
            killed.extend(pid for pid, function in functions_of(app.deployment.cloud.process.pid) if "execute" in function.lower())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    books = trade(app, on_post=kill)
    assert len(killed) == 1
    assert len(books["orders"]) == 2 * ORDERS
    assert books == undisturbed


@pytest.mark.rehearse
def test_the_driver_is_killed_and_everything_with_it(undisturbed: Books, small: Settings, tmp_path: Path) -> None:
    """Exchange, emulator, functions and the runner: the books are those of an undisturbed run without one.

    Without a runner, in a session of many slots: tests/e2e/test_minute_bars.py."""
    settings = small.model_copy(update={"runner": RunnerSettings(enabled=True)})
    synthesize(tmp_path / "cdk.out", settings=settings)
    with driver(tmp_path / "run", tmp_path / "cdk.out", settings, dies_at=DEADLY) as first:
        first.communicate(timeout=TIMEOUT)
    assert first.returncode == -signal.SIGKILL
    with driver(tmp_path / "run", tmp_path / "cdk.out", settings, dies_at=0) as second:
        output, error = second.communicate(timeout=TIMEOUT)
    assert second.returncode == 0, error[-3000:]
    assert json.loads(output.splitlines()[-1]) == undisturbed


def functions_of(session: int) -> Iterator[tuple[int, str]]:
    """Process and function of every function that runs in the emulator's process session."""
    for pid, environment in processes():
        try:
            if os.getsid(pid) == session and (name := environment.get("AWS_LAMBDA_FUNCTION_NAME")):
                yield pid, name
        except ProcessLookupError:
            continue


def processes() -> Iterator[tuple[int, dict[str, str]]]:
    for entry in Path("/proc").iterdir():
        try:
            lines = (entry / "environ").read_bytes().decode(errors="replace").split("\0") if entry.name.isdigit() else []
        except OSError:
            continue  # it ended meanwhile
        if lines:
            yield int(entry.name), dict(line.split("=", 1) for line in lines if "=" in line)


class driver:  # noqa: N801 -- used as a function
    """A driver's process; at the end of the block everything that it started has ended, by itself unless that takes too long."""

    def __init__(self, folder: Path, cdk_out: Path, settings: Settings, *, dies_at: int) -> None:
        self._mark = uuid.uuid4().hex
        self._command = [sys.executable, "-m", "tests.e2e.driven", str(folder), str(cdk_out), settings.model_dump_json(), str(dies_at)]

    def __enter__(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, env={**os.environ, MARK: self._mark}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        deadline = time.monotonic() + TIMEOUT / 4
        while (left := [pid for pid, environment in processes() if environment.get(MARK) == self._mark]) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self._process.communicate()
        assert not left, f"{len(left)} processes outlived the driver"
