"""Where it leaves for: the app's event bus, a delivery stream, or a shard.

Each call is made once, with short timeouts: the outbox before it repeats what failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import boto3
from botocore.config import Config

from lambdas.common.environment import VariablesError
from runner.publishing import Sink
from schema.realtime.events import SOURCE, MarketEvent
from schema.realtime.records import StreamedBar, StreamedQuote

CONFIG = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1})


@dataclass(frozen=True, slots=True)
class Line:
    """A record as it is stored: one JSON line; those of one symbol stay in order."""

    symbol: str
    data: bytes


def line_of(record: StreamedQuote | StreamedBar) -> Line:
    return Line(record.symbol, record.model_dump_json().encode() + b"\n")


@dataclass(frozen=True)
class EventBus:
    """EventBridge: ten events a call."""

    name: str
    client: Any
    most: int = 10
    parallel: int = 1

    def send(self, entries: Sequence[MarketEvent]) -> list[int]:
        bodies = [
            {
                "EventBusName": self.name,
                "Source": SOURCE,
                "DetailType": event.detail_type,
                "Detail": event.model_dump_json(),
                "Time": event.at,
            }
            for event in entries
        ]
        return _refused(self.client.put_events(Entries=bodies)["Entries"])


@dataclass(frozen=True)
class DeliveryStream:
    """Firehose: 500 records a call, and no order among them; each line has its time."""

    name: str
    client: Any
    most: int = 500
    parallel: int = 4

    def send(self, entries: Sequence[Line]) -> list[int]:
        records = [{"Data": line.data} for line in entries]
        return _refused(self.client.put_record_batch(DeliveryStreamName=self.name, Records=records)["RequestResponses"])


@dataclass(frozen=True)
class Shard:
    """Kinesis: 500 records a call, those of a symbol in order; a shard takes 1,000 a second."""

    name: str
    client: Any
    most: int = 500
    parallel: int = 1

    def send(self, entries: Sequence[Line]) -> list[int]:
        records = [{"Data": line.data, "PartitionKey": line.symbol} for line in entries]
        return _refused(self.client.put_records(StreamName=self.name, Records=records)["Records"])


def _refused(answers: Sequence[dict[str, Any]]) -> list[int]:
    return [position for position, answer in enumerate(answers) if answer.get("ErrorCode")]


def event_bus(name: str) -> EventBus:
    return EventBus(name, boto3.client("events", config=CONFIG))


def stream(kind: Literal["none", "firehose", "kinesis"], name: str) -> Sink[Line] | None:
    """The stream of the settings, None where there is none; raise `VariablesError` for one without a name."""
    if kind != "none" and not name:
        raise VariablesError(f"STREAM_NAME must be the name of the {kind} stream, was empty; the stack that owns it sets it")
    if kind == "firehose":
        return DeliveryStream(name, boto3.client("firehose", config=CONFIG))
    if kind == "kinesis":
        return Shard(name, boto3.client("kinesis", config=CONFIG))
    return None
