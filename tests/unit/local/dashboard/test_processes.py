"""Queued runs become processes of this machine: one each, so many at a time, and an end that nobody told of is told.

The processes are real; the folder of runs is moto's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from lambdas.common.lake.runs import RunFolder
from local.dashboard.processes import RunProcesses
from schema.exchange_time import iso
from schema.lake_layout import run_events_key, run_key
from schema.runs.events import Alive, StateChanged
from schema.runs.request import RunRequest
from schema.runs.status import line_of

BUCKET = "processed"
#: Leaves a file named after its run and its process, and stays until a file `go` is there; then it does what `go` says.
CHILD = """
import os, sys, time, pathlib
folder = pathlib.Path(sys.argv[1]); run = sys.argv[sys.argv.index("--run") + 1]
(folder / f"{run}.{os.getpid()}.began").touch()
go = folder / f"{run}.go"
while not go.exists():
    time.sleep(0.02)
print("the last line", file=sys.stderr)
sys.exit(int(go.read_text() or 0))
"""
#: The warm service: answers each line at once.
ECHO = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
for line in sys.stdin:
    (folder / f"{line.strip()}.warm").touch()
    print(json.dumps({"run": line.strip(), "state": "finished"}), flush=True)
"""


class Room:
    """A folder of runs, and servers over it."""

    def __init__(self, folder: Path) -> None:
        self.s3 = boto3.client("s3", region_name="us-east-1")
        self.s3.create_bucket(Bucket=BUCKET)
        self.runs = RunFolder(s3=self.s3, bucket=BUCKET)
        self.folder = folder
        self.servers: list[RunProcesses] = []

    def server(self, *, most: int = 2, service: bool = False) -> RunProcesses:
        made = RunProcesses(
            self.runs,
            environment=dict(os.environ),
            settings=self.folder / "settings.json",
            folder=self.folder / "runs",
            most=most,
            program=(sys.executable, "-c", CHILD, str(self.folder)),
            service=(sys.executable, "-c", ECHO, str(self.folder)) if service else (),
        )
        self.servers.append(made)
        return made

    def queue(self, number: int, *, kind: str = "train") -> str:
        backtest = {"policy": "equal-weight", "start": "2020-01-02", "end": "2020-02-03"} if kind == "backtest" else None
        document = {"id": f"20200102t15000{number}-test", "kind": kind, "by": "anna", "requested_at": "2020-01-02T15:00:00Z"}
        request = RunRequest.model_validate({**document, "bars": {"source": "bundled"}, "backtest": backtest})
        assert self.runs.put_request(request)
        return request.id

    def say(self, run: str, sequence: int, state: Any = "running") -> None:
        event = StateChanged(sequence=sequence, at=iso(datetime.now(UTC)), state=state)
        self.s3.put_object(Bucket=BUCKET, Key=run_events_key(run, sequence), Body=line_of(event))

    def alive(self, run: str, sequence: int, *, at: str) -> None:
        event = Alive(sequence=sequence, at=at)
        self.s3.put_object(Bucket=BUCKET, Key=run_events_key(run, sequence), Body=line_of(event))

    def began(self, run: str) -> list[int]:
        return [int(file.name.split(".")[1]) for file in self.folder.glob(f"{run}.*.began")]

    def go(self, run: str, status: int = 0) -> None:
        (self.folder / f"{run}.go").write_text(str(status))

    def state(self, run: str) -> tuple[str, str]:
        status = self.runs.status(run, now=datetime.now(UTC))
        return status.state, status.message

    def spoil(self, run: str, name: str) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=run_key(run, name), Body=b'{"half')


def until(holds: Callable[[], object], *, seconds: float = 15.0) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        made = Room(tmp_path)
        yield made
        for run in made.runs.runs():  # whatever still waits ends
            made.go(run)
        for server in made.servers:
            until(lambda server=server: (server.look(), not server._children)[1])  # type: ignore[misc]


def test_queued_runs_are_started_the_oldest_first_and_so_many_at_a_time(room: Room) -> None:
    first, second, third = (room.queue(number) for number in range(3))
    server = room.server(most=2)
    assert server.look()
    until(lambda: room.began(first) and room.began(second))
    server.look()
    assert room.began(third) == []
    room.say(first, 0)
    room.say(first, 1, "finished")
    room.go(first)
    until(lambda: (server.look(), room.began(third))[1])
    server.look()
    assert [len(room.began(run)) for run in (first, second, third)] == [1, 1, 1]
    assert room.state(first) == ("finished", "")


def test_a_run_has_one_process_though_the_server_was_restarted(room: Room) -> None:
    run = room.queue(0)
    before, after = room.server(), room.server()
    before.look()
    until(lambda: room.began(run))
    after.look()  # nothing was said yet: the run still looks queued
    after.look()
    before.close()
    after.look()
    assert len(room.began(run)) == 1
    os.kill(room.began(run)[0], 0)  # it lives on


def test_a_killed_process_leaves_a_run_that_can_go_on(room: Room) -> None:
    run = room.queue(0)
    server = room.server()
    server.look()
    until(lambda: room.began(run))
    room.say(run, 0)
    os.kill(room.began(run)[0], signal.SIGKILL)
    until(lambda: (server.look(), room.state(run)[0])[1] == "stopped")
    assert room.state(run) == ("stopped", "its process was ended by signal 9; it can go on where it was")
    server.look()
    assert len(room.began(run)) == 1  # not by itself
    room.runs.ask_to_resume(run, after=1, by="anna")
    asyncio.run(server.after_write(f"/v1/app/api/runs/{run}/resume"))
    server.look()
    until(lambda: len(room.began(run)) == 2)


def test_a_process_that_ends_without_a_word_has_failed_with_its_last_line(room: Room) -> None:
    run = room.queue(0)
    server = room.server()
    server.look()
    until(lambda: room.began(run))
    room.go(run, 1)
    until(lambda: (server.look(), room.state(run)[0])[1] == "failed")
    assert room.state(run) == ("failed", "the last line (status 1)")
    server.look()
    assert len(room.began(run)) == 1


def test_what_another_worker_does_is_left_to_it(room: Room) -> None:
    run = room.queue(0)
    server = room.server()
    server.look()
    until(lambda: room.began(run))
    room.go(run, 3)
    time.sleep(0.2)
    until(lambda: (server.look(), True)[1])
    assert room.state(run) == ("queued", "")
    assert len(room.began(run)) == 1


def test_a_lost_run_goes_on_when_it_is_asked_to(room: Room) -> None:
    run = room.queue(0)
    room.say(run, 0)
    room.alive(run, 1, at="2020-01-02T15:00:00Z")
    server = room.server()
    server.look()
    assert room.began(run) == []
    assert room.state(run)[0] == "lost"
    room.runs.ask_to_resume(run, after=1, by="anna")
    server.look()
    until(lambda: len(room.began(run)) == 1)


def test_backtests_go_to_the_warm_process_though_trainings_wait(room: Room) -> None:
    trainings = [room.queue(number) for number in range(2)]
    backtest = room.queue(5, kind="backtest")
    server = room.server(most=1, service=True)
    server.start()
    try:
        until(lambda: (room.folder / f"{backtest}.warm").exists())
        until(lambda: room.began(trainings[0]))
    finally:
        for run in trainings:
            room.go(run)
        server.close()
    assert room.began(backtest) == []


def test_a_run_that_cannot_be_read_keeps_no_other_from_its_turn(room: Room) -> None:
    broken, torn, sound = (room.queue(number) for number in (1, 2, 3))
    room.spoil(broken, "request.json")
    room.say(torn, 0)
    room.s3.put_object(Bucket=BUCKET, Key=run_events_key(torn, 0), Body=b'{"kind": "none"}\n')
    server = room.server()
    assert server.look()
    until(lambda: room.began(sound))
    assert (room.began(broken), room.began(torn)) == ([], [])
    room.go(sound)
