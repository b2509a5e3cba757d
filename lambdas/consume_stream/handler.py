"""What the stream brings, into the lake: the consumer of a Kinesis shard, and the transformation of a delivery stream.

Event: a batch of a shard (`Records`), or of Firehose (`records`). A record that is none of ours is set aside below
`lake_layout.STREAM_QUARANTINE` with its reason, a dead letter says so, and the rest arrive: what cannot be read today cannot be read
tomorrow, so it is never tried again. Of a shard, an object that cannot be written fails from its first record on, and is delivered again
from there. Firehose writes what is handed back under the keys that go with it; where this fails, it keeps the batch as it came.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import boto3
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamRecord

from lambdas.common import environment
from lambdas.common.lake.lake import pack
from lambdas.common.telemetry import entry, logger
from lambdas.consume_stream.reading import Accepted, NewObject, Received, SetAside, objects, read

Event = dict[str, Any]
#: Of the reasons that a dead letter tells; the quarantine has all.
TOLD = 5


class ConsumeStreamVariables(environment.Variables):
    raw_bucket: str
    dead_letters_url: str


@entry
def handler(event: Event, context: Any) -> dict[str, Any]:
    return _transformed(event) if "records" in event else _consumed(event, context)


def _consumed(event: Event, context: Any) -> dict[str, Any]:
    """Write a shard's batch; the answer names the records that failed, of which Lambda takes the first and comes again from there."""
    begun: dict[str, NewObject] = {}
    for source in dict.fromkeys(_shard(record) for record in event["Records"]):
        begun |= objects([_of_shard(record) for record in event["Records"] if _shard(record) == source], source=source)
    store = _Store()

    def write_if_first(record: KinesisStreamRecord) -> None:
        started = begun.get(record.kinesis.sequence_number)
        if started is not None:
            store.put(started)

    processor = BatchProcessor(event_type=EventType.KinesisDataStreams)
    answer = process_partial_response(event=event, record_handler=write_if_first, processor=processor, context=context)
    if answer["batchItemFailures"]:
        logger.warning("not all was written", extra={"failures": len(answer["batchItemFailures"])})
    return dict(answer)


def _shard(record: Event) -> str:
    return str(record["eventID"]).partition(":")[0]


def _of_shard(record: Event) -> Received:
    sent = record["kinesis"]
    return Received(
        identity=sent["sequenceNumber"],
        data=base64.b64decode(sent["data"]),
        arrived=datetime.fromtimestamp(sent["approximateArrivalTimestamp"], UTC),
    )


def _transformed(event: Event) -> dict[str, Any]:
    """Hand each record back as a line, with the keys that its place follows from; what was set aside is "Dropped"."""
    came = [
        Received(
            identity=record["recordId"],
            data=base64.b64decode(record["data"]),
            arrived=datetime.fromtimestamp(record["approximateArrivalTimestamp"] / 1000, UTC),
        )
        for record in event["records"]
    ]
    judged = [(one, read(one)) for one in came]
    rejected = [one for one, verdict in judged if isinstance(verdict, SetAside)]
    if rejected:
        store = _Store()
        for quarantined in objects(rejected, source=event["invocationId"]).values():
            store.put(quarantined)
    return {"records": [_handed_back(one.identity, verdict) for one, verdict in judged]}


def _handed_back(identity: str, verdict: Accepted | SetAside) -> dict[str, Any]:
    match verdict:
        case SetAside():
            return {"recordId": identity, "result": "Dropped"}
        case Accepted(row=row, partition=partition):
            line = json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n"
            return {
                "recordId": identity,
                "result": "Ok",
                "data": base64.b64encode(line.encode()).decode(),
                "metadata": {"partitionKeys": dict(partition)},
            }


class _Store:
    """The raw bucket, and the queue that is told of what was set aside."""

    def __init__(self) -> None:
        variables = environment.read(ConsumeStreamVariables)
        self._bucket, self._queue = variables.raw_bucket, variables.dead_letters_url
        self._s3 = boto3.client("s3")

    def put(self, new: NewObject) -> None:
        self._s3.put_object(Bucket=self._bucket, Key=new.key, Body=pack(new.rows), ContentType="application/gzip")
        if new.reasons:
            self._tell(new.key, new.reasons)

    def _tell(self, key: str, reasons: Sequence[str]) -> None:
        logger.warning("set aside", extra={"key": key, "records": len(reasons), "reasons": list(reasons[:TOLD])})
        letter = {"function": "consume_stream", "set_aside": len(reasons), "reasons": list(reasons[:TOLD]), "object": key}
        boto3.client("sqs").send_message(QueueUrl=self._queue, MessageBody=json.dumps(letter))
