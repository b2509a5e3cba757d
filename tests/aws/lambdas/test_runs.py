"""The folder of runs against S3 in process: what is asked for once, read as far as it is whole, and listed newest first."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import boto3
import pytest

from lambdas.common.lake.lake import LakeError
from lambdas.common.lake.runs import RunFolder
from schema.exchange_time import iso
from schema.lake_layout import run_events_key, run_key, upload_key
from schema.runs.events import Alive, StateChanged
from schema.runs.request import RunRequest, new_run_id
from schema.runs.status import line_of

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
RUN = new_run_id(NOW, token="abc")


@pytest.fixture
def folder(buckets: SimpleNamespace) -> RunFolder:
    return RunFolder(s3=boto3.client("s3"), bucket=buckets.processed)


def request(run_id: str = RUN, *, title: str = "") -> RunRequest:
    document = {"id": run_id, "kind": "train", "title": title, "by": "ann", "requested_at": iso(NOW), "bars": {"source": "bundled"}}
    return RunRequest.model_validate(document)


def put(folder: RunFolder, key: str, body: bytes) -> None:
    folder.s3.put_object(Bucket=folder.bucket, Key=key, Body=body)


def test_a_request_is_written_once(folder: RunFolder) -> None:
    assert folder.request(RUN) is None
    assert folder.put_request(request(title="first"))
    assert not folder.put_request(request(title="second"))
    found = folder.request(RUN)
    assert found is not None
    assert found.title == "first"
    put(folder, run_key(RUN, "request.json"), b"{}")
    with pytest.raises(LakeError, match="is no request of a run"):
        folder.request(RUN)


def test_runs_are_listed_newest_first_page_by_page(folder: RunFolder) -> None:
    ids = [new_run_id(NOW + timedelta(hours=hour), token="x1") for hour in range(4)]
    for one in ids:
        folder.put_request(request(one))
    put(folder, "runs/trials/log.jsonl", b"")
    assert folder.runs() == ids[::-1]
    assert folder.runs(limit=2) == [ids[3], ids[2]]
    assert folder.runs(limit=2, before=ids[2]) == [ids[1], ids[0]]


def test_events_are_read_as_far_as_they_are_whole_and_old_objects_once(folder: RunFolder) -> None:
    running = StateChanged(sequence=0, at=iso(NOW), state="running")
    alive = [Alive(sequence=number, at=iso(NOW)) for number in range(1, 5)]
    put(folder, run_events_key(RUN, 0), line_of(running) + line_of(alive[0]))
    put(folder, run_events_key(RUN, 2), line_of(alive[1]) + line_of(alive[2]) + line_of(alive[3])[:-5])
    calls: Counter[str] = Counter()
    folder.s3.meta.events.register("before-call.s3.*", lambda model, **_: calls.update([model.name]))
    assert [event.sequence for event in folder.events(RUN)] == [0, 1, 2, 3]
    assert [event.sequence for event in folder.events(RUN, after=2)] == [3]
    assert folder.events(RUN, after=3) == []
    assert folder.status(RUN, now=NOW).sequence == 3
    assert calls["GetObject"] == 5, "the first object was read once"


def test_a_stop_is_asked_for_and_seen(folder: RunFolder) -> None:
    assert folder.status(RUN, now=NOW).stopping is False
    folder.ask_to_stop(RUN, by="ann")
    assert folder.stop_asked(RUN)
    assert folder.status(RUN, now=NOW).stopping is True


def test_results_have_links_and_uploads_a_size(folder: RunFolder) -> None:
    put(folder, run_key(RUN, "results/backtest.json"), b"{}")
    assert folder.result(RUN, "backtest.json") == b"{}"
    assert folder.result(RUN, "page.html") is None
    assert f"runs/{RUN}/results/backtest.json" in folder.result_link(RUN, "backtest.json")
    assert folder.upload_bytes("my-prices-1.csv") is None
    put(folder, upload_key("my-prices-1.csv"), b"12345")
    assert folder.upload_bytes("my-prices-1.csv") == 5
