"""The shell's files into their bucket, as CloudFormation asks for it, and the answer that it waits for."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import boto3
import pytest

from lambdas.publish_web.handler import handler

SHELL, ARCHIVES = "shell", "archives"
CONFIG = '{"auth":"cognito","domain":"sign-in.example.com","client":"abc"}'


class Waiting(HTTPServer):
    """CloudFormation's end of the address."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.answers: list[dict[str, Any]] = []
        self.types: list[str | None] = []
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/answer?signature=1"


class _Answers(BaseHTTPRequestHandler):
    server: Waiting

    def do_PUT(self) -> None:
        self.server.answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.types.append(self.headers["Content-Type"])
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def waiting(aws: None) -> Iterator[Waiting]:
    for name in (SHELL, ARCHIVES):
        boto3.client("s3").create_bucket(Bucket=name)
    server = Waiting()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def ask(waiting: Waiting, request: str = "Create", *, files: dict[str, str] | None = None, key: str = "web.zip") -> dict[str, Any]:
    if files is not None:
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        boto3.client("s3").put_object(Bucket=ARCHIVES, Key="web.zip", Body=raw.getvalue())
    properties = {"Bucket": SHELL, "ArchiveBucket": ARCHIVES, "ArchiveKey": key, "Config": CONFIG}
    event = {"RequestType": request, "ResponseURL": waiting.url, "StackId": "arn:stack", "RequestId": "1", "LogicalResourceId": "Published"}
    handler({**event, "ResourceProperties": properties}, None)
    return waiting.answers[-1]


def kept() -> dict[str, str]:
    s3 = boto3.client("s3")
    names = [one["Key"] for one in s3.list_objects_v2(Bucket=SHELL).get("Contents", ())]
    return {name: s3.get_object(Bucket=SHELL, Key=name)["Body"].read().decode() for name in names}


FIRST = {"index.html": "<!doctype html>", "assets/app.js": "1", "assets/old.js": "gone tomorrow"}


def test_what_the_archive_holds_and_where_to_sign_in_is_in_the_bucket(waiting: Waiting) -> None:
    answer = ask(waiting, files=FIRST)
    assert (answer["Status"], answer["PhysicalResourceId"], answer["RequestId"]) == ("SUCCESS", SHELL, "1")
    assert kept() == {**FIRST, "config.json": CONFIG}
    assert waiting.types == [""], "the address is signed for a body without a type"
    index = boto3.client("s3").head_object(Bucket=SHELL, Key="index.html")
    assert (index["ContentType"], index["CacheControl"]) == ("text/html; charset=utf-8", "no-cache")


def test_an_update_leaves_the_new_files_alone_and_a_deletion_none(waiting: Waiting) -> None:
    ask(waiting, files=FIRST)
    second = {"index.html": "<!doctype html><p>", "assets/app.js": "2"}
    assert ask(waiting, "Update", files=second)["Status"] == "SUCCESS"
    assert kept() == {**second, "config.json": CONFIG}
    assert ask(waiting, "Delete")["Status"] == "SUCCESS"
    assert kept() == {}


def test_a_deletion_needs_no_archive(waiting: Waiting) -> None:
    assert ask(waiting, "Delete", key="gone.zip")["Status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("files", "key", "reason"),
    [(None, "gone.zip", "NoSuchKey"), ({"index.html": "", "assets/photo.bmp": ""}, "web.zip", "KeyError: 'bmp'")],
)
def test_what_fails_is_answered_with_its_reason(waiting: Waiting, files: dict[str, str] | None, key: str, reason: str) -> None:
    answer = ask(waiting, files=files, key=key)
    assert answer["Status"] == "FAILED"
    assert reason in answer["Reason"]


def test_an_answer_that_cannot_be_sent_is_the_functions_error(waiting: Waiting) -> None:
    waiting.status = 403
    with pytest.raises(OSError, match="403"):
        ask(waiting, files=FIRST)
