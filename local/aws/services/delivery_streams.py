"""The emulator's delivery streams buffer, transform, compress and name objects as Firehose does, and keep what they have acknowledged.

Each patch is a function with its reason; `local.aws.emulator_patches` lists and applies them. A record that was acknowledged is in a spool
below the state's folder before the answer leaves: after a stop or a kill it is delivered, an object that was being written perhaps twice.
A stream has one buffer rather than one per partition of its prefix; only destinations in S3 are delivered to.
"""

# ruff: noqa: SLF001, ARG001, ARG005  (patches reach into ministack and keep its signatures)
# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import asyncio
import gzip
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ministack.app as app
from ministack.core import persistence
from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import firehose, s3

from local.aws import emulator_control as control
from local.aws.patching import replace
from local.aws.services.spool import Spool, Stream, spool_of
from trading_env.errors import PapertapeError

Record = dict[str, Any]

MEGABYTE = 1_000_000
logger = logging.getLogger("papertape.delivery_streams")


class DeliveryError(PapertapeError, RuntimeError):
    """What a delivery stream has acknowledged was not written; it stays in its spool and is tried again."""


@dataclass
class _Buffer:
    """What one delivery stream has acknowledged and not delivered. `taken`: being delivered."""

    spool: Spool
    waiting: list[tuple[str, bytes]] = field(default_factory=list)
    fresh: list[Record] = field(default_factory=list)
    size: int = 0
    since: float = 0.0
    taken: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, identity: str, data: bytes, *, at: float) -> None:
        self.since = self.since if self.waiting else at
        self.waiting.append((identity, data))
        self.size += len(data)


@dataclass
class _DeliveryStreams:
    """`delivering` is held by who delivers; `lock` while a buffer changes."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    delivering: threading.Lock = field(default_factory=threading.Lock)
    buffers: dict[Stream, _Buffer] = field(default_factory=dict)
    driver: threading.Thread | None = None

    def buffer(self, stream: Stream) -> _Buffer:
        """The stream's buffer, with what an earlier process has left in its spool."""
        if stream not in self.buffers:
            buffer = self.buffers[stream] = _Buffer(spool=spool_of("firehose", stream, below=Path(persistence.STATE_DIR)))
            for line in buffer.spool.read():
                buffer.add(line["id"], bytes.fromhex(line["data"]), at=line["at"])
        return self.buffers[stream]


deliveries = _DeliveryStreams()


def delivery_streams_buffer() -> None:
    """Each record becomes an object of its own, at once and not compressed; and each is kept in memory and state for ever."""

    def spooling(original: Any) -> Any:
        def put(data: Record) -> Any:
            answer = original(data)
            with deliveries.lock:
                for stream, found in firehose._streams.all_items():
                    for destination in found["destinations"]:
                        destination["records"].clear()
                    buffer = deliveries.buffers.get(stream)
                    if buffer is not None and buffer.fresh:
                        buffer.spool.add(buffer.fresh)
                        buffer.fresh = []
            return answer

        return put

    for action in ("PutRecord", "PutRecordBatch"):
        firehose._HANDLERS[action] = spooling(firehose._HANDLERS[action])
    replace(firehose, "_deliver_records_to_s3", lambda original: _buffered)
    replace(app, "_load_persisted_state", _then_driving)


def _buffered(stream: Record, destination: Record, records: Sequence[tuple[str, bytes]]) -> None:
    """In the place of a delivery: called for each record, under the service's own lock."""
    _start_deliveries()
    with deliveries.lock:
        buffer = deliveries.buffer((get_account_id(), get_region(), stream["name"]))
        for identity, data in records:
            now = time.time()
            buffer.add(identity, data, at=now)
            buffer.fresh.append({"id": identity, "at": now, "data": data.hex()})


def _then_driving(original: Any) -> Any:
    def load() -> None:
        original()
        for stream, _ in firehose._streams.all_items():
            deliveries.buffer(stream)
        if deliveries.buffers:
            _start_deliveries()

    return load


def _start_deliveries() -> None:
    if deliveries.driver is None or not deliveries.driver.is_alive():
        deliveries.driver = threading.Thread(target=_drive_deliveries, name="delivery-streams", daemon=True)
        deliveries.driver.start()


def _drive_deliveries() -> None:
    while True:
        time.sleep(1.0)
        try:
            deliver_streams(all_of_it=False)
        except Exception:
            logger.exception("a delivery stream")


def deliver_streams(*, all_of_it: bool) -> int:
    """Write what is due, or all that waits, and return how many objects were written."""
    with deliveries.delivering:
        return sum(_deliver_stream(stream, all_of_it=all_of_it) for stream in list(deliveries.buffers))


def _deliver_stream(name: Stream, *, all_of_it: bool) -> int:
    stream, buffer = firehose._streams.get_scoped(*name), deliveries.buffers[name]
    if stream is None:
        return 0
    (destination,) = stream["destinations"]
    hints = destination["config"].get("BufferingHints", {})
    size, interval = int(hints.get("SizeInMBs", 5)) * MEGABYTE, float(hints.get("IntervalInSeconds", 300))
    with deliveries.lock:
        due = all_of_it or buffer.size >= size or time.time() - buffer.since >= interval
        if not buffer.taken and (not buffer.waiting or not due):
            return 0
        if not buffer.taken:
            buffer.spool.take()
            buffer.taken, buffer.waiting, buffer.size = buffer.waiting, [], 0
    with request_scope(name[0], name[1]), control.triggered_by("stream"):
        written = _write_objects(stream, destination, buffer.taken)
    with deliveries.lock:
        buffer.taken = []
        buffer.spool.done()
    return written


def _write_objects(stream: Record, destination: Record, records: Sequence[tuple[str, bytes]]) -> int:
    configuration = destination["config"]
    groups: dict[str, list[bytes]] = {}
    now = time.gmtime()
    for chunk in _chunks(records):
        keys: dict[str, Mapping[str, str]] = {}
        for identity, data in firehose._apply_lambda_processors(stream, destination, chunk, partition_sink=keys):
            try:
                prefix = firehose._evaluate_prefix(configuration.get("Prefix", ""), now, None, keys.get(identity))
            except firehose._DeliveryError:
                firehose._deliver_to_s3(stream, destination, data, keys.get(identity))  # which writes it below the prefix of errors
                continue
            groups.setdefault(prefix, []).append(data)
    bucket = firehose._s3_bucket_from_arn(configuration["BucketARN"])
    compressed = configuration.get("CompressionFormat") == "GZIP"
    for prefix, lines in groups.items():
        stamp = firehose._java_time("yyyy-MM-dd-HH-mm-ss", now)
        name = f"{stream['name']}-{stream.get('version', 1)}-{stamp}-{uuid.uuid4()}"
        extension = configuration.get("FileExtension") or (".gz" if compressed else "")
        body = b"".join(lines)
        _put(bucket, f"{prefix}{name}{extension}", gzip.compress(body, mtime=0) if compressed else body)
    return len(groups)


def _chunks(records: Sequence[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """As much as one invocation of a transformation gets."""
    chunk: list[tuple[str, bytes]] = []
    size = 0
    for record in records:
        if chunk and size + len(record[1]) > MEGABYTE:
            yield chunk
            chunk, size = [], 0
        chunk.append(record)
        size += len(record[1])
    if chunk:
        yield chunk


def _put(bucket: str, key: str, body: bytes) -> None:
    headers = {"content-type": "application/octet-stream", "content-length": str(len(body)), "host": "s3.localhost"}
    status, _, answer = asyncio.run(s3.handle_request("PUT", f"/{bucket}/{key}", headers, body, {}, internal=True))
    if status != 200:
        raise DeliveryError(f"s3://{bucket}/{key} was not written: {status} {answer!r}")
