"""What the stream of quotes uses in a month, by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

StreamKind = Literal["none", "firehose", "kinesis"]

HOURS = 730.0
SECONDS = 2.0  # of one run of its function
#: Quotes and bars of 30 names; Firehose bills 5 KB for each at least.
RECORDS, RECORD_GB = 2_750_000, 5 / 1024**2
OBJECTS = 8000  # in both folders, one or two per slot of a session
RUNS = 9000  # of the function: one per minute of a session, and some

ASSUMPTION = f"the stream brings {RECORDS:,} quotes and bars in {OBJECTS:,} objects, and a run of its function takes {SECONDS:g} s"


def kind_in(types: Mapping[str, Any]) -> StreamKind:
    """The kind that templates with resources of these types have."""
    return "firehose" if types.get("AWS::KinesisFirehose::DeliveryStream") else "kinesis" if types.get("AWS::Kinesis::Stream") else "none"


def used_by(kind: StreamKind, *, gb: float) -> dict[str, float]:
    """How much of each thing in `PRICES` it uses; `gb`: its function's memory."""
    if kind == "none":
        return {}
    used = {"lambda request": RUNS, "lambda time": RUNS * gb * SECONDS, "s3 write": OBJECTS, "s3 read": OBJECTS}
    if kind == "kinesis":
        return {**used, "kinesis shard": HOURS, "kinesis put": RECORDS}
    return {**used, "firehose": RECORDS * RECORD_GB, "firehose placed": RECORDS * RECORD_GB, "firehose object": OBJECTS}
