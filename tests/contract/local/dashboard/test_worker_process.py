"""The real worker behind the server: a file from its first byte to what was found in it, over a real S3 endpoint of this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from lambdas.common.lake.runs import RunFolder
from local.dashboard.processes import RunProcesses, child_environment
from schema.exchange_time import iso
from schema.lake_layout import upload_key
from schema.runs.request import RunRequest, new_run_id

BUCKET = "processed"
ROWS = "".join(f"2020-01-{day:02},AAA,10,11,9,10.5,1000\n" for day in (2, 3, 6, 7, 8))


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    yield variables
    server.stop()


def test_a_look_at_an_upload_goes_from_queued_to_finished(cloud: dict[str, str], tmp_path: Path) -> None:
    s3: Any = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    at = datetime.now(UTC)
    run, name = new_run_id(at, token="test"), f"{new_run_id(at, token='test')}.csv"
    s3.put_object(Bucket=BUCKET, Key=upload_key(name), Body=("Date,Ticker,Open,High,Low,Close,Volume\n" + ROWS).encode())
    runs = RunFolder(s3=s3, bucket=BUCKET)
    bars = {"source": "upload", "name": name, "adjusted": True}
    request = {"id": run, "kind": "inspect", "by": "anna", "requested_at": iso(at), "bars": bars}
    runs.put_request(RunRequest.model_validate(request))
    settings = Path(__file__).resolve().parents[4] / "data" / "settings.toml"
    server = RunProcesses(runs, environment=child_environment(cloud), settings=settings, folder=tmp_path, service=())
    server.start()
    limit = time.monotonic() + 120
    try:
        while (status := runs.status(run, now=datetime.now(UTC))).state in ("queued", "running"):
            assert time.monotonic() < limit
            time.sleep(0.1)
        while server.look():  # until its process is gone
            assert time.monotonic() < limit
            time.sleep(0.1)
    finally:
        server.close()
    assert (status.state, status.message) == ("finished", "")
    assert status.inspected is not None
    assert (status.inspected.problem, status.inspected.rows, status.inspected.symbols) == (None, 5, ("AAA",))
    assert status.inspected.columns["Date"] == "session"
