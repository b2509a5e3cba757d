"""The emulator's state on disk: whole generations, and a journal of what the ledger's table was told since.

A save writes every service into a new folder, `state/<number>/`, flushes it to the disk, and then names it in `state/CURRENT` by one
rename: whenever the process or the machine ends, the newest whole generation is read back, never half of one. A durable emulator
(PAPERTAPE_DURABLE=1: it trades by the real clock) also flushes each write to DynamoDB to the generation's journal before it answers it,
as AWS does: an order that was put into the ledger before it was sent is there after a power cut. S3's objects are files from the start.
A service that cannot be read or written fails the save, and the generation before stays.
"""

# ruff: noqa: SLF001, ARG005  (patches reach into ministack and keep its signatures)
# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ministack.app as app
from ministack.core import persistence
from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import cloudwatch_logs, dynamodb, s3

from local.aws.patching import replace
from trading_env.errors import PapertapeError

CURRENT, JOURNAL = "CURRENT", "dynamodb.journal"
DURABLE = "PAPERTAPE_DURABLE"
#: A hundred megabytes of code that change with a deployment only: carried on from the last generation unless all is to be saved.
SETTLED = frozenset({"lambda"})
WRITES = ("CreateTable", "DeleteTable", "Update", "PutItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems")
#: A year of minutes would be a gigabyte of log.
KEPT_EVENTS = 5000
#: A function at work may change a store while it is copied.
COPIES = 5

Readers = Mapping[str, Callable[[], Any]]


class StateError(PapertapeError, RuntimeError):
    """The state was not saved; the one saved before stays."""


class Generations:
    """Saved states below `folder`, of which one is current."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._digests: dict[str, str] = {}
        self._journal: BinaryIO | None = None

    @property
    def current(self) -> Path | None:
        try:
            return self.folder / (self.folder / CURRENT).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def save(self, readers: Readers, *, whole: bool) -> None:
        """Make a new generation current; without `whole` what is SETTLED is carried on. Raises StateError."""
        before = self.current
        number = 1 + max((int(path.name) for path in self.folder.iterdir() if path.name.isdigit()), default=0)
        after = self.folder / f"{number:09d}"
        after.mkdir(parents=True)
        try:
            for service, read in readers.items():
                file = f"{service}.json"
                if service in SETTLED and not whole and before is not None and (before / file).exists():
                    os.link(before / file, after / file)
                else:
                    self._write(service, _copied(read), before=before, after=after)
            _flush_folder(after)
            self._point_to(after)
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            shutil.rmtree(after, ignore_errors=True)
            raise StateError(f"the local cloud's state was not saved ({error}); the one before stays") from error
        for other in self.folder.iterdir():
            if other.name.isdigit() and other != after:
                shutil.rmtree(other, ignore_errors=True)

    def _write(self, service: str, state: Any, *, before: Path | None, after: Path) -> None:
        file = f"{service}.json"
        if state is None:  # a module that did not load has nothing to say; what it said before is kept
            if before is not None and (before / file).exists():
                os.link(before / file, after / file)
            return
        document = {"__ministack_format__": persistence._state_format_version(service), "payload": state}
        content = json.dumps(document, default=persistence._json_default).encode()
        digest = hashlib.sha256(content).hexdigest()
        if self._digests.get(service) == digest and before is not None and (before / file).exists():
            os.link(before / file, after / file)
            return
        _write_flushed(after / file, content)
        self._digests[service] = digest

    def _point_to(self, generation: Path) -> None:
        self.close()
        partial = self.folder / f"{CURRENT}.part"
        _write_flushed(partial, f"{generation.name}\n".encode())
        partial.replace(self.folder / CURRENT)
        _flush_folder(self.folder)

    def load(self, service: str) -> Any:
        """What `service` was when the current generation was made; None if it is not in it. A file that cannot be read is an error."""
        generation = self.current
        if generation is None or not (generation / f"{service}.json").exists():
            return None
        document = json.loads((generation / f"{service}.json").read_text(encoding="utf-8"), object_hook=persistence._json_object_hook)
        return document["payload"]

    def record(self, line: Mapping[str, Any]) -> None:
        """Add one line to the current generation's journal, on the disk when this returns."""
        if self._journal is None:
            generation = self.current or self.folder
            self._journal = (generation / JOURNAL).open("ab")
        self._journal.write(json.dumps(line).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def recorded(self) -> list[dict[str, Any]]:
        """The current journal; a last line that was cut off was never answered, and is dropped."""
        try:
            text = ((self.current or self.folder) / JOURNAL).read_bytes()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def _copied(read: Callable[[], Any]) -> Any:
    for attempt in range(COPIES):
        try:
            return read()
        except RuntimeError:  # "dictionary changed size during iteration"
            if attempt + 1 == COPIES:
                raise
            time.sleep(0.02)
    raise AssertionError


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


generations = Generations(Path(persistence.STATE_DIR))


def save(*, whole: bool) -> None:
    """Save every service now; called in the event loop, so that no request is answered meanwhile. Raises StateError."""
    _trim_logs()
    generations.save(app._build_persistence_save_dict(), whole=whole)


def _trim_logs() -> None:
    with cloudwatch_logs._log_events_lock:
        for group in cloudwatch_logs._log_groups._data.values():
            for stream in group["streams"].values():
                if len(stream["events"]) > KEPT_EVENTS:
                    stream["events"] = stream["events"][-KEPT_EVENTS:]


# Patches


def state_is_saved_whole() -> None:
    """Each service is saved by itself, without a flush, and a failure is a log line: a crash leaves a mixture."""

    def loading(original: Any) -> Any:
        return lambda service: generations.load(service) if generations.current is not None else original(service)

    replace(app, "save_all", lambda original: lambda readers: save(whole=True))
    replace(app, "load_state", loading)


def table_writes_are_journaled() -> None:
    """State is saved at a clean stop only; the ledger must not lose what it has answered."""
    if os.environ.get(DURABLE) != "1":
        return

    def journaling(original: Any) -> Any:
        async def handle(method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]) -> Any:
            answer = await original(method, path, headers, body, query)
            action = headers.get("x-amz-target", "").rsplit(".", 1)[-1]
            if answer[0] == 200 and action.startswith(WRITES):
                generations.record(
                    {"account": get_account_id(), "region": get_region(), "action": action, "body": json.loads(body or b"{}")}
                )
            return answer

        return handle

    def replaying(original: Any) -> Any:
        def load() -> None:
            original()
            for line in generations.recorded():
                with request_scope(line["account"], line["region"]):
                    _finish(answering, line)

        return load

    answering = dynamodb.handle_request
    replace(dynamodb, "handle_request", journaling)
    replace(app, "_load_persisted_state", replaying)
    replace(s3, "_atomic_write", lambda original: _write_object)


def _finish(handle: Any, line: Mapping[str, Any]) -> None:
    """Carry a journaled write out again: the handler waits for nothing."""
    request = handle("POST", "/", {"x-amz-target": f"DynamoDB.{line['action']}"}, json.dumps(line["body"]).encode(), {})
    try:
        request.send(None)
    except StopIteration as answer:
        if answer.value[0] == 200:
            return
        raise StateError(f"the journal's {line['action']} was refused: {answer.value[2]!r}") from None
    raise StateError("DynamoDB waited for something; the journal cannot be read back")


def _write_object(path: str, data: Any, *, text: bool = False) -> None:
    """As ministack writes an object, but on the disk when it returns."""
    partial = Path(f"{path}.tmp")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data.encode() if text else data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
