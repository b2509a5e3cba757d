"""What came by the stream, read: each record is one of `schema.realtime.records`, or is set aside with its reason.

Promises: a record's line is what was sent, field for field, on one line; the object that it goes to follows from what it says, never from
when it came; the same batch gives the same objects, byte for byte. Nothing is dropped: a batch's objects hold every record once. Over
several deliveries a line may lie in more than one object: readers take equal lines once. Raises nothing of its own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from lambdas.common.lake.lake import Row
from schema.exchange_time import iso
from schema.lake_layout import stream_key, stream_partition, stream_quarantine_key
from schema.realtime.records import StreamedBar, StreamedQuote

#: A record has about 250 bytes.
LONGEST = 4096
#: What is told of a record that nobody can read.
SHOWN = 200
YEARS = range(2000, 2100)

_RECORD: TypeAdapter[StreamedQuote | StreamedBar] = TypeAdapter(Annotated[StreamedQuote | StreamedBar, Field(discriminator="kind")])


@dataclass(frozen=True, kw_only=True)
class Received:
    """One record as it came. `identity` names it within its stream and sorts as it came; the stream gave it at `arrived` (UTC)."""

    identity: str
    data: bytes
    arrived: datetime


@dataclass(frozen=True, kw_only=True)
class Accepted:
    row: Row
    partition: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """`row`: a line of the quarantine, with the bytes that came in base64."""

    row: Row
    reason: str


@dataclass(frozen=True, kw_only=True)
class NewObject:
    """An object of the raw bucket; `reasons` why its records were set aside, empty for one that readers read."""

    key: str
    rows: Sequence[Row]
    reasons: Sequence[str] = ()


def read(received: Received) -> Accepted | SetAside:
    if len(received.data) > LONGEST:
        return _rejected(received, f"a record has at most {LONGEST} bytes, was {len(received.data)}")
    try:
        record = _RECORD.validate_json(received.data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        return _rejected(received, f"{field}: {first['msg']}" if field else str(first["msg"]))
    if record.ts.year not in YEARS:
        return _rejected(received, f"ts: must be from {YEARS[0]} to {YEARS[-1]}, was {record.ts.year}")
    return Accepted(row=json.loads(received.data), partition=stream_partition(record.kind, record.ts))


def _rejected(received: Received, reason: str) -> SetAside:
    data = base64.b64encode(received.data).decode()
    return SetAside(
        row={"identity": received.identity, "arrived": iso(received.arrived), "reason": reason, "data_base64": data},
        reason=f"{reason}: {received.data[:SHOWN].decode(errors='backslashreplace')}",
    )


def objects(records: Iterable[Received], *, source: str) -> dict[str, NewObject]:
    """The objects of a batch, each by the identity of its first record; `source` (a shard, say) makes their keys unique among batches.

    An object is named after its first and last record, so it is never written over with less: a batch that is delivered again in other
    parts repeats lines in another object, and takes none away.
    """
    groups: dict[tuple[tuple[str, str], ...], _Group] = {}
    for received in records:
        verdict = read(received)
        place = tuple(verdict.partition.items()) if isinstance(verdict, Accepted) else ()
        groups.setdefault(place, _Group(first=received)).add(received, verdict)
    return {group.first.identity: group.done(dict(place), source=source) for place, group in groups.items()}


@dataclass
class _Group:
    """The records of a batch that go to one object; those without a place to the quarantine."""

    first: Received
    last: str = ""
    rows: list[Row] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def add(self, received: Received, verdict: Accepted | SetAside) -> None:
        self.last = received.identity
        self.rows.append(verdict.row)
        if isinstance(verdict, SetAside):
            self.reasons.append(verdict.reason)

    def done(self, place: Mapping[str, str], *, source: str) -> NewObject:
        name = f"{source}-{self.first.identity}-{self.last}"
        key = stream_key(place, name) if place else stream_quarantine_key(self.first.arrived, name)
        return NewObject(key=key, rows=self.rows, reasons=self.reasons)
