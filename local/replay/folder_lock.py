"""One run per folder: a lock that the run's processes hold while any of them lives.

The lock is the kernel's (`flock` on `<folder>.lock`, beside the folder, so that emptying the folder does not break it) and goes with its
last holder, whatever ended it: there is no stale lock. The emulator inherits it, so a folder whose driver was killed is free when its
state is saved. The file names the process that runs there. A folder in use is a `FolderInUseError` of one line.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.aws.emulator import ROOT
from trading_env.errors import PapertapeError

PAUSE = 0.1
#: What a cloud whose driver was killed may take to save its state, on a busy machine.
ENDING_SECONDS = 60.0


class FolderInUseError(PapertapeError, RuntimeError):
    """Another process runs in the folder; the message names both."""


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold `folder` for this process; yields the lock's descriptor, for children that hold it too. Raises FolderInUseError."""
    path = folder.with_name(f"{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(descriptor, folder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def refuse_in_use(folder: Path) -> None:
    """Raise FolderInUseError if a process runs in `folder`, before anything in it is touched."""
    with locked(folder):
        pass


def _take(descriptor: int, folder: Path) -> None:
    """Take the lock; wait for the children of a dead process, who are about to end, and for nobody else."""
    deadline = time.monotonic() + ENDING_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 32, 0).decode().strip()
            if _alive(pid) or time.monotonic() > deadline:
                shown = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
                raise FolderInUseError(f"{shown} is in use by process {pid or 'unknown'}: work with that one, or stop it first") from None
        else:
            return
        time.sleep(PAUSE)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
