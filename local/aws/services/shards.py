"""The emulator's shards deliver as Lambda's event source mappings do, and keep what they have acknowledged.

Each patch is a function with its reason; `local.aws.emulator_patches` lists and applies them. A record that was acknowledged is in a spool
below the state's folder before the answer leaves, and so is what was delivered: after a stop or a kill the rest is delivered, a batch that
was at a function perhaps again. Streams and mappings are state like any other: a kill before the first save loses those. A mapping's
shards are read one after another, on the wall clock; the spool is pruned to the retention at a start.
"""

# ruff: noqa: SLF001, ARG005  (patches reach into ministack and keep its signatures)
# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ministack.app as app
from ministack.core import persistence
from ministack.core.arn import parse_arn
from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import eventbridge, kinesis, lambda_svc

from local.aws import emulator_control as control
from local.aws import emulator_metrics as metrics
from local.aws.patching import replace
from local.aws.services.shard_delivery import Condition, MappingRules, deliver
from local.aws.services.spool import Spool, Stream, spool_of
from trading_env.errors import PapertapeError

Record = dict[str, Any]

TICK = 0.1
#: Longer than a function may take, and its retries.
DELIVERED_WITHIN = 300.0
logger = logging.getLogger("papertape.shards")


class ShardError(PapertapeError, RuntimeError):
    """What a shard has acknowledged was not handed on; it stays there and is tried again."""


@dataclass
class _Shards:
    """Where each mapping is in each shard, and who delivers; `lock` is held while records are put, read or saved."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    drivers: dict[str, threading.Thread] = field(default_factory=dict)
    spools: dict[Stream, Spool] = field(default_factory=dict)
    flushing: threading.Event = field(default_factory=threading.Event)
    _done: dict[str, dict[str, str]] | None = None

    @property
    def file(self) -> Path:
        return Path(persistence.STATE_DIR) / "streams" / "positions.json"

    @property
    def done(self) -> dict[str, dict[str, str]]:
        """Mapping -> shard -> the last sequence number that needs nothing more."""
        if self._done is None:
            self._done = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        return self._done

    def advance(self, mapping: str, shard: str, sequence: str) -> None:
        with self.lock:
            self.done.setdefault(mapping, {})[shard] = sequence
            self.file.parent.mkdir(parents=True, exist_ok=True)
            partial = self.file.with_suffix(".part")
            partial.write_text(json.dumps(self.done), encoding="utf-8")
            partial.replace(self.file)

    def spool(self, stream: Stream) -> Spool:
        return self.spools.setdefault(stream, spool_of("kinesis", stream, below=Path(persistence.STATE_DIR)))


shards = _Shards()


def shards_deliver_as_lambda_does() -> None:
    """The poller ignores window, reported failures, bisecting, retries, age and destination: a reported failure is lost."""
    replace(lambda_svc, "_poll_kinesis", lambda original: _start_drivers)


def shard_records_are_spooled() -> None:
    """What a shard acknowledged is in memory alone, every save of the state copies it, and every call sifts all of it for what is old."""

    def spooling(original: Any) -> Any:
        def put(data: Record) -> Any:
            with shards.lock:
                answer = original(data)
                if answer[0] == 200:
                    _spool_put(data, json.loads(answer[2]))
                return answer

        return put

    def with_records(original: Any) -> Any:
        def load() -> None:
            original()
            _restore_records()

        return load

    replace(kinesis, "_expire_records", _sifting)
    replace(kinesis, "_put_record", spooling)
    replace(kinesis, "_put_records", spooling)
    replace(kinesis, "get_state", _without_records)
    replace(app, "_load_persisted_state", with_records)


def _sifting(original: Any) -> Any:
    def expire(stream: Record) -> None:
        oldest = time.time() - stream["RetentionPeriodHours"] * 3600
        if any(shard["records"] and shard["records"][0]["ApproximateArrivalTimestamp"] < oldest for shard in stream["shards"].values()):
            original(stream)

    return expire


def _without_records(original: Any) -> Any:
    def state() -> Record:
        with shards.lock:
            held = [(shard, shard["records"]) for stream in kinesis._streams.all_values() for shard in stream["shards"].values()]
            for shard, _ in held:
                shard["records"] = []
            try:
                return original()
            finally:
                for shard, records in held:
                    shard["records"] = records

    return state


def _spool_put(data: Record, answer: Record) -> None:
    name, stream = kinesis._resolve_stream(data)
    results = answer.get("Records", [answer])
    first: dict[str, str] = {}
    for result in results:
        first.setdefault(result["ShardId"], result["SequenceNumber"])
    lines = [
        {"shard": shard, **record}
        for shard, sequence in first.items()
        for record in _since(stream["shards"][shard]["records"], sequence, including=True)
    ]
    shards.spool((get_account_id(), get_region(), name)).add(lines)


def _since(records: Sequence[Record], sequence: str, *, including: bool = False) -> list[Record]:
    """Those after `sequence`, found from the end."""
    place = len(records)
    while place and (records[place - 1]["SequenceNumber"] > sequence or (including and records[place - 1]["SequenceNumber"] == sequence)):
        place -= 1
    return list(records[place:])


def _restore_records() -> None:
    for stream, found in kinesis._streams.all_items():
        lines = shards.spool(stream).read()
        kept = time.time() - found["RetentionPeriodHours"] * 3600
        lines = [line for line in lines if line["ApproximateArrivalTimestamp"] >= kept]
        for line in lines:
            record = {key: value for key, value in line.items() if key != "shard"}
            found["shards"][line["shard"]]["records"].append(record)
        if lines:
            shards.spool(stream).rewrite(lines)


def _start_drivers() -> bool:
    """One thread per mapping, so that a batch that fails holds up its own shard and nothing else."""
    for account, region, mapping in lambda_svc._iter_all_esms():
        identity = mapping["UUID"]
        running = shards.drivers.get(identity)
        if ":kinesis:" in mapping.get("EventSourceArn", "") and (running is None or not running.is_alive()):
            thread = threading.Thread(target=_drive, args=(account, region, identity), name=f"shards-{identity}", daemon=True)
            shards.drivers[identity] = thread
            thread.start()
    return False


def _drive(account: str, region: str, identity: str) -> None:
    with request_scope(account, region), control.triggered_by("stream"):
        while (mapping := lambda_svc._esms.get(identity)) is not None:
            try:
                busy = mapping.get("Enabled", True) and _deliver_due(mapping)
            except Exception:
                logger.exception("mapping %s", identity)
                busy = False
            if not busy:
                time.sleep(TICK)


def _deliver_due(mapping: Record) -> bool:
    rules, busy = MappingRules.of(mapping), False
    for shard, waiting in _waiting(mapping).items():
        batch = rules.batch(waiting, now=time.time(), flush=shards.flushing.is_set())
        if batch:
            _deliver_batch(mapping, shard, batch, rules=rules)
            busy = True
    return busy


def _waiting(mapping: Record) -> dict[str, list[Record]]:
    """Shard -> the records that are not done. A mapping that starts at LATEST begins at the records it finds."""
    spec = parse_arn(mapping["EventSourceArn"])
    stream = kinesis._streams.get_scoped(spec.account_id, spec.region, spec.resource.partition("/")[2])
    if stream is None or stream["StreamStatus"] != "ACTIVE":
        return {}
    with shards.lock:
        found = {}
        for shard, content in stream["shards"].items():
            records = content["records"]
            if shard not in shards.done.get(mapping["UUID"], {}) and mapping.get("StartingPosition") != "TRIM_HORIZON":
                shards.advance(mapping["UUID"], shard, records[-1]["SequenceNumber"] if records else "")
            found[shard] = _since(records, shards.done.get(mapping["UUID"], {}).get(shard, ""))
        return found


def _deliver_batch(mapping: Record, shard: str, batch: Sequence[Record], *, rules: MappingRules) -> None:
    function, _ = lambda_svc._get_func_record_for_qualifier(mapping["FunctionName"], mapping.get("Qualifier"))
    if function is None:
        raise ShardError(f"function {mapping['FunctionName']} of a mapping does not exist")

    def invoke(records: Sequence[Record]) -> Record | None:
        result = lambda_svc._execute_function(function, {"Records": [_event(one, shard, mapping) for one in records]})
        body = result.get("body")
        failed = result.get("error") or result.get("throttle")
        mapping["LastProcessingResult"] = "FAILED" if failed else f"OK - {len(records)} records"
        return None if failed else body if isinstance(body, dict) else {}

    deliver(
        batch,
        rules=rules,
        invoke=invoke,
        give_up=lambda records, condition, tried: _tell(mapping, function, shard, records, condition, tried),
        done=lambda sequence: shards.advance(mapping["UUID"], shard, sequence),
        now=time.time,
        pause=lambda failures: time.sleep(min(10.0, 0.1 * 2**failures)),
    )


def _event(record: Record, shard: str, mapping: Record) -> Record:
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": record["SequenceNumber"],
            "data": kinesis._ensure_base64(record["Data"]),
            "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"],
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard}:{record['SequenceNumber']}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": f"arn:aws:iam::{get_account_id()}:role/lambda-role",
        "awsRegion": get_region(),
        "eventSourceARN": mapping["EventSourceArn"],
    }


def _tell(mapping: Record, function: Record, shard: str, records: Sequence[Record], condition: Condition, tried: int) -> None:
    """Send the mapping's destination what AWS sends: where the records lie, not the records."""
    destination = ((mapping.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination")
    if not destination:
        return

    def moment(record: Record) -> str:
        return datetime.fromtimestamp(record["ApproximateArrivalTimestamp"], UTC).isoformat().replace("+00:00", "Z")

    letter = {
        "requestContext": {
            "requestId": str(uuid.uuid4()),
            "functionArn": function["config"]["FunctionArn"],
            "condition": condition,
            "approximateInvokeCount": tried,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "KinesisBatchInfo": {
            "shardId": shard,
            "startSequenceNumber": records[0]["SequenceNumber"],
            "endSequenceNumber": records[-1]["SequenceNumber"],
            "approximateArrivalOfFirstRecord": moment(records[0]),
            "approximateArrivalOfLastRecord": moment(records[-1]),
            "batchSize": len(records),
            "streamArn": mapping["EventSourceArn"],
        },
    }
    eventbridge._dispatch_to_sqs(parse_arn(destination), json.dumps(letter))
    metrics.measure_queue(destination)


def deliver_shards() -> None:
    """Hand on what every shard has acknowledged until now, windows or not. Raises ShardError when it takes too long."""
    _start_drivers()
    deadline = time.monotonic() + DELIVERED_WITHIN
    shards.flushing.set()
    try:
        while left := sum(_left()):
            if time.monotonic() > deadline:
                raise ShardError(f"{left} records of the shards were not delivered within {DELIVERED_WITHIN:g} s")
            time.sleep(TICK)
    finally:
        shards.flushing.clear()


def _left() -> Iterator[int]:
    for account, region, mapping in lambda_svc._iter_all_esms():
        if ":kinesis:" in mapping.get("EventSourceArn", "") and mapping.get("Enabled", True):
            with request_scope(account, region):
                yield from (len(waiting) for waiting in _waiting(mapping).values())
