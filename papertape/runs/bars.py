"""The bars of a request: the bundled ones, or an upload that a process of its own has read, mapped and cleaned.

Promise: no byte of a stranger's file is parsed in this process; what is used afterwards is what the reader wrote. Failure:
`UploadError`, the reader's own line.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from papertape.runs.reader import CPU_SECONDS, DISK_FULL
from trading_env.errors import PapertapeError

ROOT = Path(__file__).resolve().parents[2]
#: One thread and plain malloc: arenas of several threads are address space that the limit would count.
LEAN = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    "PYTHONPATH": str(ROOT),
}
PASSED_ON = ("PATH", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONHASHSEED")  # and nothing that signs a call


class UploadError(PapertapeError, ValueError):
    """An upload cannot be used; the message says where and why."""


class UploadReader:
    """One reader process; made ahead, it has loaded its libraries when the file comes."""

    def __init__(self) -> None:
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | LEAN
        self._process = subprocess.Popen(
            [sys.executable, "-m", "papertape.runs.reader"],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def read(
        self,
        file: Path,
        *,
        columns: Mapping[str, str],
        adjusted: bool | None,
        out: Path | None,
        forms: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The reader's answer, see `reader.answer`; the process has ended. Raises UploadError when it broke, OSError when `out` is full."""
        job = {
            "file": str(file.resolve()),
            "columns": dict(columns),
            "forms": dict(forms or {}),
            "adjusted": adjusted,
            "out": None if out is None else str(out.resolve()),
        }
        try:
            said, _ = self._process.communicate(json.dumps(job) + "\n", timeout=2 * CPU_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise UploadError(f"{file.name}: takes more than {2 * CPU_SECONDS} seconds to read") from error
        finally:
            self.close()
        if self._process.returncode == DISK_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out))
        if self._process.returncode or not said:
            raise UploadError(f"{file.name}: cannot be read, it ended the process that read it (status {self._process.returncode})")
        answer: dict[str, Any] = json.loads(said)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def cleaned(
    file: Path,
    *,
    columns: Mapping[str, str],
    adjusted: bool,
    out: Path,
    forms: Mapping[str, str] | None = None,
    reader: UploadReader | None = None,
) -> dict[str, Any]:
    """Read an upload into `out`: `bars.parquet`, and `actions.parquet` if it has any; raises UploadError when it cannot be used."""
    answer = (reader or UploadReader()).read(file, columns=columns, forms=forms, adjusted=adjusted, out=out)
    if answer["problem"] is not None:
        raise UploadError(answer["problem"])
    return answer
