"""Runs as processes of this machine: what lies queued in the folder of runs is started here, as the pipeline does it on AWS.

Promise: a run has one process, whoever looks: its process holds the kernel's lock on the run's file for as long as it lives, whether or
not this server does. A training outlives the server; what people wait for, backtests and looks at uploads, goes to one warm process. A
process that ended without a word has its end told for it: killed is stopped, and can go on; anything else is failed, with its last line.
Failure: what the cloud refuses is logged and tried again at the next look; a run whose folder cannot be read is logged and passed over.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.common.lake.lake import LakeError
from lambdas.common.lake.runs import RunFolder
from local.aws.emulator import ROOT
from schema.exchange_time import iso
from schema.lake_layout import run_events_key, run_key
from schema.runs.events import StateChanged
from schema.runs.request import RunRequest
from schema.runs.status import RunEventsError, RunStatus, line_of, state_of

log = logging.getLogger(__name__)
PROGRAM = (sys.executable, "-m", "papertape.runs")
SERVICE = (sys.executable, "-m", "papertape.runs.service")
TRAININGS = 2  # at once; the others wait
LOOK_EVERY = 5.0  # seconds, while something runs or waits
LOOK_AT = 200  # of the newest runs
HELD = 3  # the worker's status when another does the run
HELD_AGAIN = 10.0  # seconds until it is tried again
RUNS_PATH = "/app/api/runs"
#: What trades on this machine goes first.
NICE = ("nice", "-n", "10")


@dataclass
class RunProcess:
    """`after`: the sequence number of the run's last event when it was started."""

    process: subprocess.Popen[bytes]
    log: Path
    after: int


class WarmService:
    """The one process for what people wait for; `program` reads a run's id per line and answers with a JSON line per run."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], output: Path) -> None:
        with output.open("ab") as errors:
            self._process = subprocess.Popen(
                list(command), cwd=ROOT, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        if self._process.stdin is None or self._process.stdout is None:
            raise OSError("the process for backtests has no pipes")
        self._input = self._process.stdin
        self._waiting: set[str] = set()
        self._guard = threading.Lock()
        self._listener = threading.Thread(target=self._listen, args=(self._process.stdout,), name="warm-service", daemon=True)
        self._listener.start()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def has(self, run_id: str) -> bool:
        with self._guard:
            return run_id in self._waiting

    def do(self, run_id: str) -> None:
        """Raises OSError when the process has ended."""
        with self._guard:
            self._waiting.add(run_id)
        self._input.write(run_id + "\n")
        self._input.flush()

    def close(self) -> None:
        """It ends with its input, after the run that it is at."""
        with suppress(OSError):
            self._input.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(timeout=5)

    def _listen(self, answers: IO[str]) -> None:
        with answers:
            for line in answers:
                answer = json.loads(line)
                if "run" in answer:
                    with self._guard:
                        self._waiting.discard(answer["run"])
        with self._guard:
            self._waiting.clear()


class RunProcesses:
    """`runs`: the folder of runs; `environment` of the processes; `settings`: the file that requests differ from; `folder`: for locks and
    logs."""

    def __init__(
        self,
        runs: RunFolder,
        *,
        environment: Mapping[str, str],
        settings: Path,
        folder: Path,
        most: int = TRAININGS,
        program: Sequence[str] = PROGRAM,
        service: Sequence[str] = SERVICE,
    ) -> None:
        self._runs, self._environment, self._most = runs, dict(environment), most
        self._program, self._service_command = tuple(program), tuple(service)
        self._store = ("--bucket", runs.bucket, "--settings", str(settings.resolve()))
        self._folder = folder.resolve()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._children: dict[str, RunProcess] = {}
        self._requests: dict[str, RunRequest] = {}
        self._over: set[str] = set()  # runs that have ended, until somebody writes to them
        self._not_before: dict[str, float] = {}
        self._service: WarmService | None = None
        self._guard, self._wake, self._closing = threading.Lock(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="run-processes", daemon=True)

    def start(self) -> None:
        """Look at once, and then whenever there is a reason to."""
        self._service = self._warm()
        self._wake.set()
        self._thread.start()

    def close(self) -> None:
        """Trainings go on; they are found again by whoever serves next."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        if self._service is not None:
            self._service.close()

    async def after_write(self, path: str) -> None:
        """The hook of the server: something may be queued now."""
        _, found, rest = path.partition(RUNS_PATH)
        if found:
            self._over.discard(rest.strip("/").partition("/")[0])
            self._wake.set()

    def look(self) -> bool:
        """One look: tell of what has ended, start what is due. Whether something runs or waits."""
        with self._guard:
            for run_id in [name for name, child in self._children.items() if child.process.poll() is not None]:
                self._told(run_id, self._children[run_id])
                del self._children[run_id]
            due = self._due()
            for request, status in due:
                self._begin(request, status)
            return bool(self._children or due)

    def _keep_looking(self) -> None:
        busy = True
        while not self._closing.is_set():
            self._wake.wait(timeout=1.0 if self._children else LOOK_EVERY if busy else 60.0)
            self._wake.clear()
            if self._closing.is_set():
                return
            try:
                busy = self.look()
            except (BotoCoreError, ClientError, LakeError, RunEventsError, OSError) as error:
                log.warning("runs cannot be looked at now: %s: %s", type(error).__name__, error)
                busy = True

    def _due(self) -> list[tuple[RunRequest, RunStatus]]:
        """What is queued, the oldest first."""
        found = []
        for run_id in reversed(self._runs.runs(limit=LOOK_AT)):
            if run_id in self._over or run_id in self._children:
                continue
            try:
                request = self._requests.get(run_id) or self._runs.request(run_id)
                events = self._runs.newest(run_id)
            except (LakeError, RunEventsError) as error:
                log.warning("run %s is passed over: %s", run_id, error)
                self._over.add(run_id)
                continue
            if request is None:
                continue
            self._requests[run_id] = request
            said = [event for event in events if isinstance(event, StateChanged)]
            ended = bool(said) and said[-1].state not in ("queued", "running")
            status = state_of(events, now=datetime.now(UTC))
            lost = status.state == "lost" or (not said and bool(events))
            if not events or ((ended or lost) and self._runs.resumed_after(run_id) == events[-1].sequence):
                found.append((request, status))
            elif ended:
                self._over.add(run_id)
        return found

    def _begin(self, request: RunRequest, status: RunStatus) -> None:
        if time.monotonic() < self._not_before.get(request.id, 0.0):
            return
        if request.kind != "train" and self._asked_service(request.id):
            return
        trainings = [name for name in self._children if self._requests[name].kind == "train"]
        if request.kind == "train" and len(trainings) >= self._most:
            return
        with (self._folder / f"{request.id}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._not_before[request.id] = time.monotonic() + HELD_AGAIN
                return  # a process that an earlier server has started
            self._children[request.id] = self._started(request, lock, after=status.sequence)

    def _started(self, request: RunRequest, lock: IO[str], *, after: int) -> RunProcess:
        command = [*self._program, "--run", request.id, *self._store]
        if request.kind == "train":
            command = [*NICE, *command, "--workers", str(max(1, (os.cpu_count() or 1) // self._most))]
        output = self._folder / f"{request.id}.log"
        with output.open("ab") as written:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                pass_fds=(lock.fileno(),),  # the lock is the process's from here on
                start_new_session=True,  # neither Ctrl-C nor the end of this server reaches it
            )
        return RunProcess(process, output, after)

    def _asked_service(self, run_id: str) -> bool:
        """Whether the warm process has it, or will have it soon."""
        if self._service is None:
            return False
        if not self._service.alive:  # this run gets a process of its own, the next one a new warm one
            self._service.close()
            self._service = self._warm()
            return False
        if self._service.has(run_id):
            return True
        try:
            self._service.do(run_id)
        except OSError as error:
            log.warning("the process for backtests has ended (%s): run %s gets one of its own", error, run_id)
            return False
        self._not_before[run_id] = time.monotonic() + HELD_AGAIN
        return True

    def _warm(self) -> WarmService | None:
        if not self._service_command:
            return None
        command = [*self._service_command, *self._store]
        return WarmService(command, environment=self._environment, output=self._folder / "service.log")

    def _told(self, run_id: str, child: RunProcess) -> None:
        """What a process ended without saying is said for it: nobody else knows."""
        status = child.process.returncode
        if status == HELD:
            self._not_before[run_id] = time.monotonic() + HELD_AGAIN
            return
        events = self._runs.newest(run_id)
        last = events[-1] if events else None
        if isinstance(last, StateChanged) and last.sequence > child.after and last.state not in ("queued", "running"):
            return
        sequence = 0 if last is None else last.sequence + 1
        at = iso(datetime.now(UTC))
        if status < 0:
            message = f"its process was ended by signal {-status}; it can go on where it was"
            said = StateChanged(sequence=sequence, at=at, state="stopped", message=message)
        else:
            said = StateChanged(sequence=sequence, at=at, state="failed", message=f"{last_line(child.log)} (status {status})")
        s3, bucket = self._runs.s3, self._runs.bucket
        s3.put_object(Bucket=bucket, Key=run_events_key(run_id, sequence), Body=line_of(said), ContentType="application/x-ndjson")
        s3.delete_object(Bucket=bucket, Key=run_key(run_id, "lease.json"))  # a dead process holds nothing


def last_line(file: Path) -> str:
    """What a process said last, one line of at most 300 characters."""
    with file.open("rb") as written:
        written.seek(max(0, file.stat().st_size - 4096))
        lines = [line.strip() for line in written.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "its process ended without a word"


def child_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's variables with the cloud of `variables` and no other."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | dict(variables)
