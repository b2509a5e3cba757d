"""Runs in the bucket: a lease that a dead worker loses, a checkpoint that goes from machine to machine, and nothing of two at once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest

from lambdas.common.lake.runs import RunFolder
from papertape.runs.recorder import RunRecorder
from papertape.runs.s3_store import S3RunStore
from papertape.runs.store import RunHeldError, RunStoreError
from papertape.runs.studies import Studies
from papertape.runs.worker import Worker as RunWorker
from schema.exchange_time import iso
from schema.lake_layout import run_key, upload_key
from schema.runs.events import Alive, StateChanged
from schema.runs.request import RunRequest

RUN = "20261122t120000-ab"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Worker:
    """One machine's store, with a clock that the test moves."""

    now = NOW

    def __init__(self, bucket: str) -> None:
        self.store = S3RunStore(boto3.client("s3"), bucket, clock=lambda: Worker.now)
        self.store.pace = 30.0


@pytest.fixture
def bucket(buckets: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(Worker, "now", NOW)
    return str(buckets.processed)


def put(bucket: str, key: str, body: bytes) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)


def test_requests_uploads_and_packages_are_read(bucket: str, tmp_path: Path) -> None:
    store = Worker(bucket).store
    with pytest.raises(RunStoreError, match=f"there is no run {RUN}"):
        store.request(RUN)
    put(bucket, run_key(RUN, "request.json"), b'{"kind":"dance"}')
    with pytest.raises(RunStoreError, match=r"s3://.*/request.json: .*kind = 'dance' is not allowed"):
        store.request(RUN)
    assert store.runs() == [RUN]
    put(bucket, upload_key("my-prices-1.csv"), b"x")
    assert store.upload("my-prices-1.csv", scratch=tmp_path).read_bytes() == b"x"
    with pytest.raises(RunStoreError, match="there is no upload"):
        store.upload("my-prices-2.csv", scratch=tmp_path)
    put(bucket, "models/a/model.tar.gz", b"m")
    assert store.package(f"s3://{bucket}/models/a/model.tar.gz", scratch=tmp_path).read_bytes() == b"m"
    for wrong in (f"s3://{bucket}/models/b/model.tar.gz", "file:///etc/passwd", "/etc/passwd"):
        with pytest.raises(RunStoreError, match=r"there is no model.tar.gz at that URI"):
            store.package(wrong, scratch=tmp_path)
    assert store.trials == f"s3://{bucket}/runs/trials/"


def test_a_silent_worker_loses_the_run_and_finds_out_before_it_writes(bucket: str) -> None:
    first, second = Worker(bucket).store, Worker(bucket).store
    with first.hold(RUN):
        told = RunRecorder(first, RUN, clock=lambda: Worker.now)
        told.tell(StateChanged, state="running")
        with pytest.raises(RunHeldError, match="at least until 2026-11-22T12:01:00Z"), second.hold(RUN):
            pass
        Worker.now = NOW + timedelta(seconds=50)
        first.still_held(RUN)
        Worker.now = NOW + timedelta(seconds=105)
        with pytest.raises(RunHeldError, match="at least until"), second.hold(RUN):
            pass
        Worker.now = NOW + timedelta(seconds=111)
        with second.hold(RUN):
            RunRecorder(second, RUN, clock=lambda: Worker.now).tell(StateChanged, state="running")
            with pytest.raises(RunHeldError, match="was taken over"):
                told.tell(StateChanged, state="finished")
    assert [(event.sequence, event.kind) for event in second.events(RUN)] == [(0, "state"), (1, "state")]
    with second.hold(RUN):
        pass


def test_a_run_that_was_let_go_is_free_at_once(bucket: str) -> None:
    with Worker(bucket).store.hold(RUN):
        pass
    with Worker(bucket).store.hold(RUN):
        pass


def test_a_checkpoint_goes_on_on_another_machine_and_only_what_changed_is_sent(bucket: str) -> None:
    first, second = Worker(bucket).store, Worker(bucket).store
    with first.hold(RUN), first.workspace(RUN) as folder:
        (folder / "seeds").mkdir()
        (folder / "seeds" / "training.json").write_text("done")
        (folder / "seeds" / "policy.npz").write_text("weights")
        (folder / "old").write_text("gone later")
        first.keep(RUN, folder)
    sent: list[str] = []
    second.s3.meta.events.register("before-call.s3.PutObject", lambda params, **_: sent.append(params["url_path"]))
    with second.hold(RUN), second.workspace(RUN) as folder:
        assert (folder / "seeds" / "policy.npz").read_text() == "weights"
        (folder / "new").write_text("1")
        (folder / "old").unlink()
        second.keep(RUN, folder)
        assert [url.rpartition("/")[2] for url in sent if "checkpoint" in url] == ["new"]
    with Worker(bucket).store.workspace(RUN) as folder:
        assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["new", "policy.npz", "training.json"]


def test_results_and_a_stop_are_objects_of_the_run(bucket: str, tmp_path: Path) -> None:
    store = Worker(bucket).store
    (tmp_path / "a.json").write_text("{}")
    store.put(RUN, "results/a.json", tmp_path / "a.json")
    assert store.get(RUN, "results/a.json", tmp_path / "b.json")
    assert not store.get(RUN, "results/c.json", tmp_path / "c.json")
    assert not store.stop_asked(RUN)
    put(bucket, run_key(RUN, "stop"), b"ann")
    assert store.stop_asked(RUN)
    store.stop_honoured(RUN)
    assert not store.stop_asked(RUN)


def test_events_of_one_object_grow_and_are_read_whole(bucket: str) -> None:
    store = Worker(bucket).store
    with store.hold(RUN), RunRecorder(store, RUN, clock=lambda: Worker.now) as told:
        told.tell(StateChanged, state="running")
        told.tell(Alive)
        told.tell(StateChanged, state="stopped")
        assert [event.sequence for event in Worker(bucket).store.events(RUN)] == [0, 1, 2]


def test_what_is_asked_for_through_the_folder_is_done_and_read_there(bucket: str, tmp_path: Path) -> None:
    folder = RunFolder(s3=boto3.client("s3"), bucket=bucket)
    asked = {"policy": "equal-weight", "start": "2020-01-02", "end": "2020-03-31"}
    document = {"id": RUN, "kind": "backtest", "by": "ann", "requested_at": iso(NOW), "bars": {"source": "bundled"}, "backtest": asked}
    assert folder.put_request(RunRequest.model_validate(document))
    assert folder.status(RUN, now=NOW).state == "queued"
    worker = RunWorker(Worker(bucket).store, Studies(settings=None, scratch=tmp_path), scratch=tmp_path, clock=lambda: Worker.now)
    assert worker.do(RUN) == "finished"
    found = folder.status(RUN, now=NOW)
    assert (found.state, [result.name for result in found.results]) == ("finished", ["backtest.json", "candles.json"])
    body = folder.result(RUN, "backtest.json")
    assert body is not None
    assert json.loads(body)["sessions"][-1] == "2020-03-31"
    put(bucket, run_key(RUN, "stop"), b"ann")
    assert worker.do(RUN) == "finished", "what is done stays done"
