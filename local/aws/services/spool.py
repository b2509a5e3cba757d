"""What a stream has acknowledged and not yet handed on, on the disk: one file per stream, a JSON line per record.

Promises: what `add` has returned from survives the end of the process, and of the machine where `flushed`; `take` hands out everything
since the last time, and what was taken stays on the disk until `done`, so that it comes again after a crash, whole, in order and perhaps
twice, never not at all. A last line that was cut off was never acknowledged, and is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]
Stream = tuple[str, str, str]  # account, region, name


class Spool:
    """The file `path`, and beside it what was taken from it; not safe for two threads."""

    def __init__(self, path: Path, *, flushed: bool) -> None:
        self._path, self._taken, self._flushed = path, path.with_suffix(".taken"), flushed
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, lines: Iterable[Line]) -> None:
        with self._path.open("ab") as file:
            file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
            file.flush()
            if self._flushed:
                os.fsync(file.fileno())

    def read(self) -> list[dict[str, Any]]:
        """Everything that is not done, as it was added."""
        return [line for path in (self._taken, self._path) for line in _lines(path)]

    def take(self) -> None:
        """What has been added becomes what is taken; what was taken before and not done stays with it."""
        if not self._path.exists():
            return
        if not self._taken.exists():
            self._path.replace(self._taken)
            return
        with self._taken.open("ab") as taken:
            taken.write(self._path.read_bytes())
            taken.flush()
            os.fsync(taken.fileno())
        self._path.unlink()

    def done(self) -> None:
        """Forget what was taken."""
        self._taken.unlink(missing_ok=True)

    def rewrite(self, lines: Iterable[Line]) -> None:
        """Hold these lines and no others."""
        partial = self._path.with_suffix(".part")
        with partial.open("wb") as file:
            file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
        self.done()


def spool_of(service: str, stream: Stream, *, below: Path) -> Spool:
    """A stream's spool; on the disk as soon as it is written to where the emulator trades by the real clock (PAPERTAPE_DURABLE=1)."""
    return Spool(below / "streams" / service / f"{'-'.join(stream)}.jsonl", flushed=os.environ.get("PAPERTAPE_DURABLE") == "1")


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
