"""PUT /uploads/<name> on this machine: whole or not at all, part by part, by who may."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import requests
import uvicorn
from moto import mock_aws

from lambdas.common.lake.runs import RunFolder
from local.dashboard import uploads
from local.dashboard.gateway import Tokens, create_app
from local.dashboard.uploads import PART_BYTES, upload_route
from local.listening import listening
from schema.lake_layout import upload_key

BUCKET, NAME = "processed", "20200102t150000-abcdef.csv"
TRADER, READER = {"Authorization": "Bearer trader"}, {"Authorization": "Bearer reader"}


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket=BUCKET)
        yield s3


class Browser:
    """Sends to the server's own address."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def put(self, path: str, *, headers: dict[str, str], content: Any) -> requests.Response:
        request = requests.Request("PUT", self.url, headers=headers, data=content).prepare()
        request.url = self.url + path  # as it was typed
        with requests.Session() as session:
            return session.send(request, timeout=30)


@pytest.fixture
def browser(lake: Any) -> Iterator[Browser]:
    tokens = Tokens({"trader": ("read", "trade"), "reader": ("read",)})
    upload = upload_route(RunFolder(s3=lake, bucket=BUCKET), claims=tokens.claims)
    with listening(0) as listener:
        port = listener.getsockname()[1]
        app = create_app(handler=lambda event, context: {"statusCode": 200}, tokens=tokens, port=port, upload=upload)  # noqa: ARG005
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield Browser(port)
        server.should_exit = True
        thread.join()


def stored(lake: Any) -> list[str]:
    return [one["Key"] for one in lake.list_objects_v2(Bucket=BUCKET).get("Contents", ())]


def begun(lake: Any) -> list[Any]:
    found: list[Any] = lake.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    return found


def test_a_file_of_several_parts_arrives_whole(lake: Any, browser: Browser) -> None:
    pieces = 2 * PART_BYTES // 65536 + 3
    answer = browser.put(f"/uploads/{NAME}", headers=TRADER, content=(bytes([place % 251]) * 65536 for place in range(pieces)))
    assert (answer.status_code, answer.json()) == (200, {"name": NAME, "bytes": pieces * 65536})
    stored_file = lake.get_object(Bucket=BUCKET, Key=upload_key(NAME))
    body = stored_file["Body"].read()
    assert (len(body), body[65536], body[-1]) == (pieces * 65536, 1, (pieces - 1) % 251)
    assert int(stored_file["ETag"].strip('"').rpartition("-")[2]) > 1  # parts
    assert begun(lake) == []


def test_who_and_where_is_checked_before_a_byte_is_kept(lake: Any, browser: Browser) -> None:
    for headers, name, status in (
        ({}, NAME, 401),
        ({"Authorization": "Bearer guessed"}, NAME, 401),
        (READER, NAME, 403),
        (TRADER, "..%2Frequest.csv", 404),
        (TRADER, "evil.sh", 404),
        ({**TRADER, "Origin": "http://elsewhere.example"}, NAME, 421),
        ({**TRADER, "Host": "rebound.example"}, NAME, 421),
    ):
        assert browser.put(f"/uploads/{name}", headers=headers, content=b"Date\n").status_code == status
    assert stored(lake) == []


def test_too_much_is_refused_before_and_while_it_comes(lake: Any, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_BYTES", 100_000)
    said = browser.put(f"/uploads/{NAME}", headers=TRADER, content=b"x" * 100_001)
    unsaid = browser.put(f"/uploads/{NAME}", headers=TRADER, content=(b"x" * 50_000 for _ in range(3)))
    assert (said.status_code, unsaid.status_code) == (413, 413)
    assert (stored(lake), begun(lake)) == ([], [])


def test_a_file_is_not_written_over(lake: Any, browser: Browser) -> None:
    assert browser.put(f"/uploads/{NAME}", headers=TRADER, content=b"first").status_code == 200
    assert browser.put(f"/uploads/{NAME}", headers=TRADER, content=b"second").status_code == 409
    assert lake.get_object(Bucket=BUCKET, Key=upload_key(NAME))["Body"].read() == b"first"


@pytest.mark.parametrize("refused", ["UploadPart", "CompleteMultipartUpload"])
def test_a_lake_that_takes_no_more_is_said_with_the_remedy_and_nothing_is_kept(lake: Any, browser: Browser, refused: str) -> None:
    said = {"Error": {"Code": "InternalError", "Message": "No space left on device"}, "ResponseMetadata": {"HTTPStatusCode": 500}}
    answer_of_s3 = SimpleNamespace(status_code=500)
    lake.meta.events.register(f"before-call.s3.{refused}", lambda **_: (answer_of_s3, said))
    answer = browser.put(f"/uploads/{NAME}", headers=TRADER, content=b"Date\n")
    assert answer.status_code == 507
    assert answer.json()["message"].startswith("the file could not be stored, nothing of it was kept: ")
    assert answer.json()["message"].endswith("make room on the disk and send it again")
    assert (stored(lake), begun(lake)) == ([], [])
