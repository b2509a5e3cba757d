"""What a run says of itself, as its worker writes it: events in order, and a sign of life while it has nothing else to say.

Promise: an event that was told is in the folder after at most `pace` seconds, or when the block ends; a state is there when `tell`
returns. Events go on where the run's last worker left them. Failure: what the store raises, from the thread that tells, at the latest at
the next word.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from papertape.runs.store import RunStore
from schema.exchange_time import iso
from schema.runs.events import ALIVE_EVERY_SECONDS, Alive, AnyRunEvent, RunEvent, StateChanged

#: Events of one object; a full one is never written again.
SEGMENT = 256


class RunRecorder:
    """`clock`: the time now, aware."""

    def __init__(self, store: RunStore, run_id: str, *, clock: Callable[[], datetime], alive_every: float = ALIVE_EVERY_SECONDS) -> None:
        self._store, self._run_id, self._clock, self._alive_every = store, run_id, clock, alive_every
        before = store.events(run_id)
        self._next = before[-1].sequence + 1 if before else 0
        self._segment: list[AnyRunEvent] = []
        self._told = clock()
        self._dirty = False
        self._failure: Exception | None = None
        self._guard, self._writing, self._over = threading.Lock(), threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="run-recorder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        if kind is None:
            self.check()
            self._write()

    def tell(self, event: type[RunEvent], **fields: Any) -> None:
        """Add an event of this kind; a state is written before this returns."""
        self.check()
        with self._guard:
            self._add(event, fields)
            full = len(self._segment) >= SEGMENT
        if full or event is StateChanged:
            self._write()

    def check(self) -> None:
        """Raise what kept the events of before from being written."""
        if self._failure is not None:
            raise self._failure

    def forgive(self) -> None:
        """Room was made: try again."""
        self._failure = None

    def _add(self, event: type[RunEvent], fields: dict[str, Any]) -> None:
        at = self._clock()
        made: Any = event(sequence=self._next, at=iso(at), **fields)
        self._segment.append(made)
        self._next, self._told, self._dirty = self._next + 1, at, True

    def _write(self) -> None:
        with self._writing:
            with self._guard:
                if not self._dirty:
                    return
                events, self._dirty = list(self._segment), False
            try:
                self._store.put_events(self._run_id, events)
            except BaseException:
                self._dirty = True
                raise
            with self._guard:
                if len(events) >= SEGMENT:
                    del self._segment[: len(events)]

    def _keep_writing(self) -> None:
        while not self._over.wait(self._store.pace):
            if self._failure is not None:
                continue
            try:
                with self._guard:
                    if (self._clock() - self._told).total_seconds() >= self._alive_every:
                        self._add(Alive, {})
                self._write()
            except Exception as error:  # noqa: BLE001 -- whoever tells next raises it
                self._failure = error
