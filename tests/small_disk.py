"""A disk of a few hundred kilobytes that is really full: a file system of its own, in a mount namespace that needs no rights."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SmallDisk:
    """`folder`: where processes of `inside` find it; `seen`: where this process does, as long as nobody resolves the path."""

    folder: Path
    holder: int

    @property
    def seen(self) -> Path:
        return Path(f"/proc/{self.holder}/root{self.folder}")

    def inside(self, *command: str) -> list[str]:
        """The command line that runs `command` where the disk is mounted."""
        return ["nsenter", "--target", str(self.holder), "--user", "--mount", "--preserve-credentials", f"--wd={Path.cwd()}", *command]

    def fill(self) -> Path:
        """Take what is left; removing the file makes room again."""
        filler = self.seen / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        return filler


@contextmanager
def small_disk(folder: Path, *, size: int) -> Iterator[SmallDisk]:
    """`size` in bytes, mounted over `folder`; skips the test where the system lets nobody mount."""
    mount = f"mount -t tmpfs -o size={size} tmpfs {folder} && echo mounted && exec cat"
    with subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() != "mounted\n":
                pytest.skip("this system lets nobody mount a file system in a namespace of their own")
            yield SmallDisk(folder, holder.pid)
        finally:
            holder.stdin.close()
            holder.wait()
