"""The folder of a run as the worker needs it, and its implementation on a disk; `s3_store` is the other one.

Promise: a file of the folder is whole or not there, whenever the machine stops; one worker at a time holds a run, and a dead one holds
nothing; what a run needs to go on where it was lies in its `checkpoint/`. Two different runs never meet.
Failure: `RunStoreError`, one line; `RunHeldError` when another worker has the run; `OSError` for what the disk refuses, ENOSPC among it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from schema.lake_layout import RUN_TRIALS, RUNS, run_events_key, run_key, upload_key
from schema.runs.events import AnyRunEvent
from schema.runs.request import RUN_ID, RunRequest
from schema.runs.status import events_of, later, line_of, objects_after
from schema.sections import refusals
from trading_env.errors import PapertapeError

#: Kept free below a run's folder, so that a full disk leaves room to say so.
RESERVE, RESERVED_BYTES = "reserve", 256 * 1024


class RunStoreError(PapertapeError, RuntimeError):
    """A run's folder lacks what a worker needs, or holds what it cannot read; the message names it."""


class RunHeldError(PapertapeError, RuntimeError):
    """Another worker does this run now."""


class RunStore(Protocol):
    """Where runs are. `trials`: the log of trials, as `--trials` of evaluate.py takes it."""

    #: Seconds between two writes of events, and between two looks whether a stop was asked for.
    pace: float

    @property
    def trials(self) -> str: ...

    def runs(self) -> list[str]:
        """Ids, the newest first."""

    def request(self, run_id: str) -> RunRequest: ...

    def events(self, run_id: str, *, after: int = -1) -> list[AnyRunEvent]:
        """Those later than sequence number `after`, in order, as far as they are whole."""

    def put_events(self, run_id: str, events: Sequence[AnyRunEvent]) -> None:
        """Write the object that begins with the first of these, whole, over the shorter one that was there."""

    def stop_asked(self, run_id: str) -> bool: ...

    def stop_honoured(self, run_id: str) -> None:
        """The next start is one that was not asked to stop."""

    def put(self, run_id: str, name: str, file: Path) -> None: ...

    def get(self, run_id: str, name: str, to: Path) -> bool:
        """False when there is no such file."""

    def upload(self, name: str, *, scratch: Path) -> Path:
        """The upload as a file of its own name."""

    def package(self, uri: str, *, scratch: Path) -> Path:
        """A model.tar.gz by its path or URI."""

    def workspace(self, run_id: str) -> AbstractContextManager[Path]:
        """A folder on this machine that holds what was kept of the run's `checkpoint/`."""

    def keep(self, run_id: str, workspace: Path) -> None:
        """What the workspace holds outlives this machine from here on."""

    def hold(self, run_id: str) -> AbstractContextManager[None]:
        """The run is this worker's within the block; raises RunHeldError when it is another's."""

    def still_held(self, run_id: str) -> None:
        """A sign of life of who holds it; raises RunHeldError when it was taken for dead."""

    def make_room(self, run_id: str) -> None:
        """Free what was reserved for the words of a run that the disk is too full for."""


class LocalRunStore:
    """Runs below a folder of this machine, laid out as the processed bucket is."""

    pace = 0.5

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    @property
    def trials(self) -> str:
        return str(self.root / RUN_TRIALS)

    def runs(self) -> list[str]:
        folder = self.root / RUNS
        found = (path.name for path in folder.iterdir()) if folder.is_dir() else iter(())
        return sorted((name for name in found if RUN_ID.fullmatch(name)), reverse=True)

    def request(self, run_id: str) -> RunRequest:
        path = self._file(run_id, "request.json")
        try:
            return read_request(path.read_bytes(), source=str(path))
        except FileNotFoundError as error:
            raise RunStoreError(f"{path}: there is no run {run_id}") from error

    def events(self, run_id: str, *, after: int = -1) -> list[AnyRunEvent]:
        folder = self._file(run_id, "events")
        keys = [path.as_posix() for path in folder.glob("*.jsonl")] if folder.is_dir() else []
        found = (event for key in objects_after(keys, after) for event in events_of(Path(key).read_bytes(), source=key))
        return later(found, after)

    def put_events(self, run_id: str, events: Sequence[AnyRunEvent]) -> None:
        write_whole(self.root / run_events_key(run_id, events[0].sequence), b"".join(map(line_of, events)))

    def stop_asked(self, run_id: str) -> bool:
        return self._file(run_id, "stop").exists()

    def stop_honoured(self, run_id: str) -> None:
        self._file(run_id, "stop").unlink(missing_ok=True)

    def put(self, run_id: str, name: str, file: Path) -> None:
        target = self._file(run_id, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.new")
        try:
            shutil.copyfile(file, scratch)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)

    def get(self, run_id: str, name: str, to: Path) -> bool:
        source = self._file(run_id, name)
        if not source.is_file():
            return False
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, to)
        return True

    def upload(self, name: str, *, scratch: Path) -> Path:  # noqa: ARG002 -- it lies here already
        path = self.root / upload_key(name)
        if not path.is_file():
            raise RunStoreError(f"{name}: there is no upload of that name")
        return path

    def package(self, uri: str, *, scratch: Path) -> Path:  # noqa: ARG002
        path = Path(uri.removeprefix("file://"))
        if not path.is_file():
            raise RunStoreError(f"package:{uri}: there is no model.tar.gz of that path on this machine")
        return path

    @contextmanager
    def workspace(self, run_id: str) -> Iterator[Path]:
        folder = self._file(run_id, "checkpoint")
        folder.mkdir(parents=True, exist_ok=True)
        yield folder

    def keep(self, run_id: str, workspace: Path) -> None:
        """It lies where it is kept."""

    @contextmanager
    def hold(self, run_id: str) -> Iterator[None]:
        path = self._file(run_id, "lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        # The system lets go of it when the process ends, however it ends
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunHeldError(f"run {run_id} is done by another worker now") from error
            reserve = self._file(run_id, RESERVE)
            write_whole(reserve, os.urandom(RESERVED_BYTES))
            try:
                yield
            finally:
                reserve.unlink(missing_ok=True)

    def still_held(self, run_id: str) -> None:
        """The lock is held as long as the process lives."""

    def make_room(self, run_id: str) -> None:
        self._file(run_id, RESERVE).unlink(missing_ok=True)

    def _file(self, run_id: str, name: str) -> Path:
        if not RUN_ID.fullmatch(run_id):
            raise RunStoreError(f"a run's id must be like 20261122t093000-ab12, was {run_id!r}")
        return self.root / run_key(run_id, name)


def read_request(body: bytes, *, source: str) -> RunRequest:
    """Raises RunStoreError with one line that says what is wrong."""
    try:
        return RunRequest.model_validate_json(body)
    except ValidationError as error:
        raise RunStoreError(refusals.sentence(error, source=source)) from error


def write_whole(path: Path, body: bytes) -> None:
    """Over what was there, whole or not at all; on the disk before this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".new")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
