"""A disk that is really full under an upload: the state that is shown is true, and nothing half-written is read.

A training on one is in tests/e2e/test_training_room.py, because it takes longer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from papertape.runs.full_disk import REMEDY
from papertape.runs.store import LocalRunStore, write_whole
from schema.runs.status import RunStatus, state_of
from tests.small_disk import SmallDisk, small_disk

ROOT = Path(__file__).resolve().parents[4]
UPLOAD = "my-prices-1.csv"
RUN = "inspect-0001"
REQUEST = {
    "id": RUN, "by": "ann", "requested_at": "2026-11-22T12:00:00Z", "kind": "inspect",
    "bars": {"source": "upload", "name": UPLOAD, "adjusted": True},
}  # fmt: skip
ROWS = "".join(f"2020-01-{day:02},AAA,10,11,9,10.5,{1000 + day}\n" for day in (2, 3, 6, 7, 8))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", size=2_000_000) as one:
        yield one


def looked(folder: Path, disk: SmallDisk) -> RunStatus:
    """After one start of the worker, whose scratch is on the disk."""
    command = disk.inside(sys.executable, "-m", "papertape.runs", "--run", RUN, "--folder", str(folder))
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(disk.folder)}, check=False)
    return state_of(LocalRunStore(folder).events(RUN), now=datetime.now(UTC))


def test_an_upload_that_cannot_be_written_out_is_a_failed_look_and_is_read_whole_with_room(disk: SmallDisk, tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / UPLOAD).write_text("Date,Ticker,Open,High,Low,Close,Volume\n" + ROWS)
    write_whole(tmp_path / "runs" / RUN / "request.json", json.dumps(REQUEST).encode())
    filler = disk.fill()
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - 8192)  # for folders, and not for the bars
    found = looked(tmp_path, disk)
    assert (found.state, found.message, found.inspected) == ("failed", REMEDY, None)
    assert not list(disk.seen.rglob("*.parquet*")), "nothing half-written is left to be read"
    filler.unlink()
    found = looked(tmp_path, disk)
    assert found.inspected is not None
    assert (found.state, found.inspected.problem, found.inspected.rows) == ("finished", None, 5)
