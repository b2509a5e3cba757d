"""Runs in the processed bucket: `store.RunStore` on S3, the one module of the worker that knows boto3.

Promise: S3 writes an object whole or not at all. A worker holds a run by a lease in the folder, which it renews with each sign of life;
one that is silent for `LOST_AFTER_SECONDS` has lost it, and finds out before it writes another event. Failure: as `store`'s, and botocore's
`ClientError` for what S3 refuses.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
from botocore.exceptions import ClientError

from papertape.runs.store import RunHeldError, RunStoreError, read_request
from schema.exchange_time import iso, parse_utc
from schema.lake_layout import RUN_TRIALS, RUNS, run_events_key, run_key, upload_key
from schema.loopback import refuse_foreign_endpoints
from schema.runs.events import LOST_AFTER_SECONDS, AnyRunEvent
from schema.runs.request import RUN_ID, RunRequest
from schema.runs.status import events_of, later, line_of, objects_after

ABSENT = ("NoSuchKey", "404", "NotFound")
OVERTAKEN = ("PreconditionFailed", "ConditionalRequestConflict")
LAST_OF_ALL = ("training.json", "run.json")  # what says that the files beside it are whole


def s3_store(bucket: str) -> S3RunStore:
    refuse_foreign_endpoints(os.environ)
    return S3RunStore(boto3.client("s3"), bucket)


class S3RunStore:
    """`s3` is a boto3 client; `clock` says what time it is, aware, for the lease."""

    pace = 3.0

    def __init__(self, s3: Any, bucket: str, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.s3, self.bucket, self._clock = s3, bucket, clock
        self._me, self._leases = uuid4().hex, dict[str, str]()
        self._kept: dict[str, tuple[int, int]] = {}
        self._renewing = threading.Lock()

    @property
    def trials(self) -> str:
        return f"s3://{self.bucket}/{RUN_TRIALS}"

    def runs(self) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=RUNS, Delimiter="/")
        found = (entry["Prefix"].removeprefix(RUNS).rstrip("/") for page in pages for entry in page.get("CommonPrefixes", ()))
        return sorted((name for name in found if RUN_ID.fullmatch(name)), reverse=True)

    def request(self, run_id: str) -> RunRequest:
        key = run_key(run_id, "request.json")
        body = self._read(key)
        if body is None:
            raise RunStoreError(f"s3://{self.bucket}/{key}: there is no run {run_id}")
        return read_request(body, source=f"s3://{self.bucket}/{key}")

    def events(self, run_id: str, *, after: int = -1) -> list[AnyRunEvent]:
        keys = objects_after(self._keys(run_key(run_id, "events/")), after)
        return later((event for key in keys for event in events_of(self._read(key) or b"", source=key)), after)

    def put_events(self, run_id: str, events: Sequence[AnyRunEvent]) -> None:
        self.still_held(run_id)
        self._write(run_events_key(run_id, events[0].sequence), b"".join(map(line_of, events)))

    def stop_asked(self, run_id: str) -> bool:
        return self._read(run_key(run_id, "stop")) is not None

    def stop_honoured(self, run_id: str) -> None:
        self.s3.delete_object(Bucket=self.bucket, Key=run_key(run_id, "stop"))

    def put(self, run_id: str, name: str, file: Path) -> None:
        self.s3.upload_file(str(file), self.bucket, run_key(run_id, name))

    def get(self, run_id: str, name: str, to: Path) -> bool:
        return self._fetch(self.bucket, run_key(run_id, name), to)

    def upload(self, name: str, *, scratch: Path) -> Path:
        if not self._fetch(self.bucket, upload_key(name), scratch / name):
            raise RunStoreError(f"{name}: there is no upload of that name")
        return scratch / name

    def package(self, uri: str, *, scratch: Path) -> Path:
        parts, to = urlsplit(uri), scratch / "model.tar.gz"
        if parts.scheme != "s3" or not self._fetch(parts.netloc, parts.path.lstrip("/"), to):
            raise RunStoreError(f"package:{uri}: there is no model.tar.gz at that URI")
        return to

    @contextmanager
    def workspace(self, run_id: str) -> Iterator[Path]:
        prefix = run_key(run_id, "checkpoint/")
        with tempfile.TemporaryDirectory(prefix=f"run-{run_id}-") as scratch:
            folder = Path(scratch)
            for key in self._keys(prefix):
                self._fetch(self.bucket, key, folder / key.removeprefix(prefix))
            self._kept = {str(path): _version(path) for path in folder.rglob("*") if path.is_file()}
            yield folder

    def keep(self, run_id: str, workspace: Path) -> None:
        """What says that others are whole goes last; what is gone here is removed there."""
        self.still_held(run_id)
        files = sorted((path for path in workspace.rglob("*") if path.is_file()), key=lambda path: (path.name in LAST_OF_ALL, str(path)))
        for path in files:
            version = _version(path)
            if self._kept.get(str(path)) != version:
                self.s3.upload_file(str(path), self.bucket, run_key(run_id, f"checkpoint/{path.relative_to(workspace).as_posix()}"))
                self._kept[str(path)] = version
        there = {run_key(run_id, f"checkpoint/{path.relative_to(workspace).as_posix()}") for path in files}
        for key in set(self._keys(run_key(run_id, "checkpoint/"))) - there:
            self.s3.delete_object(Bucket=self.bucket, Key=key)

    @contextmanager
    def hold(self, run_id: str) -> Iterator[None]:
        key = run_key(run_id, "lease.json")
        found, etag = self._lease(key)
        if found is not None and parse_utc(found["until"]) > self._clock():
            raise RunHeldError(f"run {run_id} is done by another worker now, at least until {found['until']}")
        self._take(run_id, etag)
        try:
            yield
        finally:
            if self._lease(key)[1] == self._leases.pop(run_id, None):
                self.s3.delete_object(Bucket=self.bucket, Key=key)

    def still_held(self, run_id: str) -> None:
        with self._renewing:
            if run_id in self._leases:
                self._take(run_id, self._leases[run_id])

    def make_room(self, run_id: str) -> None:
        """A bucket is never full."""

    def _take(self, run_id: str, etag: str | None) -> None:
        body = json.dumps({"holder": self._me, "until": iso(self._clock() + timedelta(seconds=LOST_AFTER_SECONDS))})
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            written = self.s3.put_object(Bucket=self.bucket, Key=run_key(run_id, "lease.json"), Body=body.encode(), **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] in (*OVERTAKEN, *ABSENT):
                raise RunHeldError(f"run {run_id} was taken over by another worker") from error
            raise
        self._leases[run_id] = written["ETag"]

    def _lease(self, key: str) -> tuple[dict[str, str] | None, str | None]:
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ABSENT:
                return None, None
            raise
        return json.loads(answer["Body"].read()), answer["ETag"]

    def _keys(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def _read(self, key: str) -> bytes | None:
        try:
            body: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in ABSENT:
                return None
            raise
        return body

    def _write(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType="application/x-ndjson")

    def _fetch(self, bucket: str, key: str, to: Path) -> bool:
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.s3.download_file(bucket, key, str(to))
        except ClientError as error:
            if error.response["Error"]["Code"] in ABSENT:
                return False
            raise
        return True


def _version(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
