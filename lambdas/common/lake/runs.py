"""The folder of runs in the processed bucket, as whoever shows or asks for runs sees it; the worker behind it is `papertape.runs`.

Promise: a request is written once, and never over another; events are read as far as they are whole, and an object that another follows
is read once per process, for it changes no more. Ids of `new_run_id` sort by time, so the newest runs are found without reading any.
Failure: `RunEventsError` or `LakeError` for an object that is not what it must be; botocore's `ClientError`. What is not there is None.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError
from pydantic import ValidationError

from lambdas.common.lake.lake import LakeError, put_over, read_object
from schema.lake_layout import RUNS, run_key, upload_key
from schema.runs.events import AnyRunEvent
from schema.runs.request import RUN_ID, RunRequest
from schema.runs.status import RunStatus, events_of, later, objects_after, state_of

LINK_SECONDS = 300


@dataclass
class RunFolder:
    """`s3` is a boto3 client, `bucket` the processed one."""

    s3: Any
    bucket: str
    _whole: dict[str, tuple[AnyRunEvent, ...]] = field(default_factory=dict, repr=False)

    def runs(self, *, limit: int = 50, before: str = "") -> list[str]:
        """Ids, the newest first; `before`: those older than that one, for the next page."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=RUNS, Delimiter="/")
        prefixes = (entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ()))
        ids = (prefix.removeprefix(RUNS).rstrip("/") for prefix in prefixes)
        return sorted((one for one in ids if RUN_ID.fullmatch(one) and (not before or one < before)), reverse=True)[:limit]

    def request(self, run_id: str) -> RunRequest | None:
        key = run_key(run_id, "request.json")
        body = read_object(self.s3, bucket=self.bucket, key=key)
        try:
            return None if body is None else RunRequest.model_validate_json(body)
        except ValidationError as error:
            raise LakeError(f"s3://{self.bucket}/{key}: is no request of a run ({error.errors()[0]['msg']})") from error

    def put_request(self, request: RunRequest) -> bool:
        """False when there is one of this id already, which stays as it is."""
        body = request.model_dump_json().encode()
        return put_over(self.s3, bucket=self.bucket, key=run_key(request.id, "request.json"), body=body, etag=None) is not None

    def ask_to_stop(self, run_id: str, *, by: str) -> None:
        """The worker stops where it can be resumed; asking again changes nothing."""
        self.s3.put_object(Bucket=self.bucket, Key=run_key(run_id, "stop"), Body=by.encode(), ContentType="text/plain; charset=utf-8")

    def ask_to_resume(self, run_id: str, *, after: int, by: str) -> None:
        """The run is to go on after its event of sequence number `after`; once it has said more, this asks for nothing any longer."""
        if self.stop_asked(run_id):
            self.s3.delete_object(Bucket=self.bucket, Key=run_key(run_id, "stop"))
        body = json.dumps({"after": after, "by": by}).encode()
        self.s3.put_object(Bucket=self.bucket, Key=run_key(run_id, "resume"), Body=body, ContentType="application/json")

    def resumed_after(self, run_id: str) -> int | None:
        """The sequence number that it was last asked to go on after, None if it never was."""
        body = read_object(self.s3, bucket=self.bucket, key=run_key(run_id, "resume"))
        return None if body is None else int(json.loads(body)["after"])

    def stop_asked(self, run_id: str) -> bool:
        return bool(self._keys(run_key(run_id, "stop")))

    def events(self, run_id: str, *, after: int = -1) -> list[AnyRunEvent]:
        """Those later than sequence number `after`, in order."""
        keys = self._keys(run_key(run_id, "events/"))
        wanted = objects_after(keys, after)
        return later((event for key in wanted for event in self._events_of(key, whole=key != wanted[-1])), after)

    def newest(self, run_id: str) -> list[AnyRunEvent]:
        """The events of the newest object, in order."""
        keys = sorted(self._keys(run_key(run_id, "events/")))
        return list(self._events_of(keys[-1], whole=False)) if keys else []

    def status(self, run_id: str, *, now: datetime) -> RunStatus:
        return state_of(self.events(run_id), now=now, stop_asked=self.stop_asked(run_id))

    def result_names(self, run_id: str) -> set[str]:
        prefix = run_key(run_id, "results/")
        return {key.removeprefix(prefix) for key in self._keys(prefix)}

    def result(self, run_id: str, name: str) -> bytes | None:
        return read_object(self.s3, bucket=self.bucket, key=run_key(run_id, f"results/{name}"))

    def result_link(self, run_id: str, name: str, *, seconds: int = LINK_SECONDS) -> str:
        """A link that downloads the file for so long."""
        where = {"Bucket": self.bucket, "Key": run_key(run_id, f"results/{name}")}
        saved = {"ResponseContentDisposition": f'attachment; filename="{run_id}-{name}"'}
        link: str = self.s3.generate_presigned_url("get_object", Params=where | saved, ExpiresIn=seconds)
        return link

    def upload_bytes(self, name: str) -> int | None:
        """The size of an upload, None where there is none."""
        try:
            return int(self.s3.head_object(Bucket=self.bucket, Key=upload_key(name))["ContentLength"])
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
                return None
            raise

    def _keys(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def _events_of(self, key: str, *, whole: bool) -> tuple[AnyRunEvent, ...]:
        if key in self._whole:
            return self._whole[key]
        body = read_object(self.s3, bucket=self.bucket, key=key)
        events = () if body is None else events_of(body, source=f"s3://{self.bucket}/{key}")
        if whole:
            self._whole[key] = events
        return events
