"""A run's folder on a disk, and what its worker writes there: whole files, one worker at a time, events that go on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from papertape.runs.recorder import SEGMENT, RunRecorder
from papertape.runs.store import RESERVE, LocalRunStore, RunHeldError, RunStoreError, write_whole
from schema.exchange_time import iso
from schema.lake_layout import run_events_key
from schema.runs.events import Alive, ResultMade, StateChanged

RUN = "20261122t120000-ab"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[4]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> LocalRunStore:
    found = LocalRunStore(tmp_path)
    found.pace = 0.02
    return found


def test_a_request_is_read_or_refused_in_one_line(store: LocalRunStore) -> None:
    with pytest.raises(RunStoreError, match=f"there is no run {RUN}"):
        store.request(RUN)
    with pytest.raises(RunStoreError, match=r"a run's id must be like .*, was '../../etc'"):
        store.request("../../etc")
    write_whole(store.root / "runs" / RUN / "request.json", b'{"id": "%s"}' % RUN.encode())
    with pytest.raises(RunStoreError, match=r"request.json: kind is missing; .*by is missing"):
        store.request(RUN)
    assert store.runs() == [RUN]


def test_events_go_on_where_the_last_worker_left_them(store: LocalRunStore) -> None:
    with RunRecorder(store, RUN, clock=Clock()) as recorder:
        recorder.tell(StateChanged, state="running")
        recorder.tell(ResultMade, name="page.html", bytes=1)
    with RunRecorder(store, RUN, clock=Clock()) as recorder:
        recorder.tell(StateChanged, state="running")
    assert [event.sequence for event in store.events(RUN)] == [0, 1, 2]
    assert [event.sequence for event in store.events(RUN, after=1)] == [2]
    assert sorted(path.name for path in (store.root / "runs" / RUN / "events").iterdir()) == ["00000000.jsonl", "00000002.jsonl"]


def test_an_object_of_events_is_closed_when_it_is_full(store: LocalRunStore) -> None:
    with RunRecorder(store, RUN, clock=Clock()) as recorder:
        for _ in range(SEGMENT + 1):
            recorder.tell(Alive)
    assert [event.sequence for event in store.events(RUN)] == list(range(SEGMENT + 1))
    assert len(store.events(RUN, after=SEGMENT - 1)) == 1


def test_a_quiet_run_gives_signs_of_life(store: LocalRunStore) -> None:
    clock = Clock()
    with RunRecorder(store, RUN, clock=clock) as recorder:
        recorder.tell(StateChanged, state="running")
        clock.now += timedelta(seconds=5)
        deadline = time.monotonic() + 5
        while len(store.events(RUN)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [event.kind for event in store.events(RUN)] == ["state", "alive"]
    assert store.events(RUN)[1].at == iso(clock.now)


def _check_until(recorder: RunRecorder, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        recorder.check()
        time.sleep(0.01)


def test_a_full_disk_is_told_to_who_tells_next_and_nothing_is_half_written(store: LocalRunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    full = False

    def fsync(_: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with RunRecorder(store, RUN, clock=Clock()) as recorder:
        recorder.tell(StateChanged, state="running")
        full = True
        recorder.tell(Alive)
        with pytest.raises(OSError, match="No space left"):
            _check_until(recorder, seconds=5)
        assert [event.kind for event in store.events(RUN)] == ["state"]
        full = False
        recorder.forgive()
        recorder.tell(StateChanged, state="failed", message="the disk is full")
    assert [event.kind for event in store.events(RUN)] == ["state", "alive", "state"]
    assert not list((store.root / "runs" / RUN / "events").glob(".*"))


def test_a_result_that_was_cut_off_is_not_there(store: LocalRunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "page.html"
    file.write_text("whole")

    def cut_off(source: Path, target: Path) -> None:
        target.write_text("wh")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", cut_off)
    with pytest.raises(OSError, match="No space left"):
        store.put(RUN, "results/page.html", file)
    assert not list((store.root / "runs" / RUN / "results").iterdir())


def test_one_worker_at_a_time_and_the_disk_keeps_room_for_its_last_words(store: LocalRunStore) -> None:
    with store.hold(RUN):
        assert (store.root / "runs" / RUN / RESERVE).stat().st_size == 256 * 1024
        with pytest.raises(RunHeldError, match="is done by another worker now"), LocalRunStore(store.root).hold(RUN):
            pass
        with LocalRunStore(store.root).hold("20261122t120001-cd"):
            pass
        store.make_room(RUN)
        assert not (store.root / "runs" / RUN / RESERVE).exists()
    with store.hold(RUN):
        pass


def test_a_dead_worker_holds_nothing(store: LocalRunStore) -> None:
    script = (
        f"import time; from pathlib import Path; from papertape.runs.store import LocalRunStore\n"
        f"with LocalRunStore(Path({str(store.root)!r})).hold({RUN!r}): print('held', flush=True); time.sleep(60)"
    )
    holder: subprocess.Popen[Any] = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunHeldError), store.hold(RUN):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with store.hold(RUN):
        pass


def test_a_stop_is_asked_for_once(store: LocalRunStore) -> None:
    assert not store.stop_asked(RUN)
    write_whole(store.root / "runs" / RUN / "stop", b"ann")
    assert store.stop_asked(RUN)
    store.stop_honoured(RUN)
    store.stop_honoured(RUN)
    assert not store.stop_asked(RUN)


def test_files_come_and_go(store: LocalRunStore, tmp_path: Path) -> None:
    with store.workspace(RUN) as folder:
        (folder / "a").write_text("1")
        store.keep(RUN, folder)
    assert store.get(RUN, "checkpoint/a", tmp_path / "x" / "a")
    assert not store.get(RUN, "checkpoint/b", tmp_path / "b")
    with pytest.raises(RunStoreError, match=r"nothing-here.csv: there is no upload of that name"):
        store.upload("nothing-here.csv", scratch=tmp_path)
    with pytest.raises(RunStoreError, match=r"there is no model.tar.gz of that path"):
        store.package("file:///nothing/model.tar.gz", scratch=tmp_path)
    assert run_events_key(RUN, 0).startswith("runs/")
