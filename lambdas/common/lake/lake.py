"""Raw and processed objects in S3: where they lie, how they are written, how a reader knows that they are whole.

Promises: equal rows give equal bytes (gzip without a time stamp), so a retry overwrites an object by itself; an object is written whole
or not at all; a warm process reads an object again only when its ETag has changed; processed features exist only through their
manifest. A line that is not JSON, or a manifest that lacks a key, raises `LakeError` with bucket and key; what S3 refuses raises
botocore's `ClientError`. An absent object is never an empty one: it is missing from the answer.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any

import boto3
from botocore.exceptions import ClientError

from schema.exchange_time import parse_utc
from schema.lake_layout import (
    ACTIONS,
    BARS,
    CALENDAR,
    SLOT_MINUTES,
    actions_key,
    bars_key,
    calendar_key,
    features_manifest,
    first_sentiment_key,
    quotes_key,
    quotes_minute,
    quotes_prefix,
    sentiment_keys_between,
    sentiment_prefix,
)
from trading_env.errors import PapertapeError

Row = dict[str, Any]
#: How S3 refuses to write over another version than was meant: the object has changed, or is being written.
OVERTAKEN = ("PreconditionFailed", "ConditionalRequestConflict")


class LakeError(PapertapeError, RuntimeError):
    """An object of the lake cannot be trusted; the message names its bucket and key."""


def pack(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as gzipped JSON lines; the same rows always give the same bytes. A NaN is refused (`ValueError`)."""
    lines = "".join(json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n" for row in rows)
    return gzip.compress(lines.encode(), mtime=0)


def unpack(body: bytes) -> list[Row]:
    return [json.loads(line) for line in gzip.decompress(body).splitlines()]


@dataclass(frozen=True)
class StoredCalendar:
    """The exchange's sessions as the broker told them, oldest first, each with open and close in UTC."""

    sessions: tuple[date, ...]
    opens: tuple[datetime, ...]
    closes: tuple[datetime, ...]

    def before(self, day: date) -> tuple[date, ...]:
        """The sessions before `day`, oldest first."""
        return tuple(s for s in self.sessions if s < day)

    def is_session(self, day: date) -> bool:
        return day in self.sessions

    def hours(self, day: date) -> tuple[datetime, datetime] | None:
        """Open and close of `day`, None when it is no session."""
        return next(((o, c) for s, o, c in zip(self.sessions, self.opens, self.closes, strict=True) if s == day), None)


@dataclass
class Lake:
    """The three buckets. `s3` is a boto3 client; a bucket that a function may not touch is left empty."""

    s3: Any
    raw_bucket: str = ""
    processed_bucket: str = ""
    audit_bucket: str = ""
    workers: int = 8
    _seen: dict[str, tuple[str, list[Row]]] = field(default_factory=dict, repr=False)

    def raw_index(self, prefix: str) -> dict[str, str]:
        """Key -> ETag of every raw object under `prefix`."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.raw_bucket, Prefix=prefix)
        return {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", ())}

    def read(self, keys: Iterable[str], *, prefix: str) -> dict[str, list[Row]]:
        """The rows of those `keys` that exist: one listing of `prefix`, and one read for each object this process has not seen.

        The rows are shared with the cache: a caller that changes them must copy first.
        """
        index = self.raw_index(prefix)
        asked = list(dict.fromkeys(keys))
        wanted = [key for key in asked if key in index]
        for key in asked:
            if key not in index:
                self._seen.pop(key, None)
        stale = [key for key in wanted if self._seen.get(key, ("",))[0] != index[key]]
        self._each(self._fetch, stale)
        return {key: self._seen[key][1] for key in wanted}

    def scores(self, *, sources: Iterable[str], since: datetime, until: datetime) -> dict[str, list[Row]]:
        """The scored posts of every run of the sources from `since` to `until`, by key. A run without an object: the source was down."""
        if not self.processed_bucket:
            raise LakeError("scored posts lie in the processed bucket, and this function was given none")
        found: dict[str, str] = {}
        for source in sources:
            listing = {"Prefix": sentiment_prefix(source), "StartAfter": first_sentiment_key(source, since)}
            pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.processed_bucket, **listing)
            found |= {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", ())}
        wanted = sentiment_keys_between(found, since=since, until=until)
        stale = [key for key in wanted if self._seen.get(key, ("",))[0] != found[key]]
        self._each(lambda key: self._fetch(key, bucket=self.processed_bucket), stale)
        return {key: self._seen[key][1] for key in wanted}

    def etags(self, keys: Iterable[str]) -> dict[str, str]:
        """Key -> ETag of the version last read or written; `KeyError` for a key that this process has not seen."""
        return {key: self._seen[key][0] for key in keys}

    def write(self, objects: Mapping[str, Sequence[Row]]) -> list[str]:
        """Write each raw object whose rows differ from those last read; returns the keys written.

        A caller that merges reads its keys first: an object that vanished since then is written again.
        """
        changed = [key for key, rows in objects.items() if key not in self._seen or self._seen[key][1] != list(rows)]
        self._each(lambda key: self._store(key, objects[key]), changed)
        return changed

    def bars(self, *, symbols: Iterable[str], years: Iterable[int]) -> list[Row]:
        """Raw daily bars of the symbols in those years, unadjusted, by symbol and time."""
        wanted = sorted(set(years))
        found = self.read((bars_key(symbol, year) for symbol in symbols for year in wanted), prefix=BARS)
        return [row for rows in found.values() for row in rows]

    def actions(self, *, symbols: Iterable[str]) -> list[Row]:
        """Corporate actions of the symbols."""
        found = self.read((actions_key(symbol) for symbol in symbols), prefix=ACTIONS)
        return [row for rows in found.values() for row in rows]

    def calendar(self, *, years: Iterable[int]) -> StoredCalendar:
        """The sessions of those years; years that nobody has written yet are missing from it."""
        found = self.read((calendar_key(year) for year in sorted(set(years))), prefix=CALENDAR)
        rows = [row for rows in found.values() for row in rows]
        return StoredCalendar(
            sessions=tuple(date.fromisoformat(row["session"]) for row in rows),
            opens=tuple(parse_utc(row["open"]) for row in rows),
            closes=tuple(parse_utc(row["close"]) for row in rows),
        )

    def last_quotes(self, *, day: date) -> datetime | None:
        """The latest minute of the UTC date `day` that a quotes object is named after: a scheduled one, or a stream's slot's first."""
        keys = self.raw_index(quotes_prefix(day))
        return quotes_minute(max(keys)) if keys else None

    def newest_quotes(self, *, day: date) -> dict[str, Row]:
        """By symbol, the last quote of the last scheduled minute, or of the stream's last two slots; empty for a day without any."""
        prefix = quotes_prefix(day)
        minutes = {key: quotes_minute(key) for key in self.raw_index(prefix)}
        if not minutes:
            return {}
        last = max(minutes)
        first = minutes[last] if last == quotes_key(minutes[last]) else minutes[last] - timedelta(minutes=SLOT_MINUTES)
        newest = sorted(key for key, minute in minutes.items() if minute >= first)
        rows = [row for found in self.read(newest, prefix=prefix).values() for row in found]
        return {row["symbol"]: row for row in sorted(rows, key=lambda row: parse_utc(row["ts"]))}

    def manifest(self, timeframe: str) -> dict[str, Any] | None:
        """The manifest of the features of rows of `timeframe`, None when no complete build exists."""
        key = features_manifest(timeframe)
        body = read_object(self.s3, bucket=self.processed_bucket, key=key)
        return None if body is None else document_of(body, bucket=self.processed_bucket, key=key)

    def put_processed(self, key: str, document: Mapping[str, Any]) -> None:
        self._put(self.processed_bucket, key, document_bytes(document), "application/json")

    def put_decision_record(self, key: str, document: Mapping[str, Any]) -> None:
        """Write one audit record. Under object lock a retry adds an equal version: the record stays as it was."""
        self._put(self.audit_bucket, key, document_bytes(document), "application/json")

    def _each(self, work: Callable[[str], None], keys: Sequence[str]) -> None:
        if len(keys) < 2:
            for key in keys:
                work(key)
            return
        with ThreadPoolExecutor(max_workers=min(self.workers, len(keys))) as pool:
            list(pool.map(work, keys))

    def _fetch(self, key: str, *, bucket: str = "") -> None:
        bucket = bucket or self.raw_bucket
        answer = self.s3.get_object(Bucket=bucket, Key=key)
        try:
            rows = unpack(answer["Body"].read())
        except (OSError, EOFError, ValueError) as error:
            raise LakeError(f"s3://{bucket}/{key}: is not gzipped JSON lines ({error})") from error
        self._seen[key] = (answer["ETag"], rows)

    def _store(self, key: str, rows: Sequence[Row]) -> None:
        answer = self._put(self.raw_bucket, key, pack(rows), "application/gzip")
        self._seen[key] = (answer["ETag"], list(rows))

    def _put(self, bucket: str, key: str, body: bytes, content_type: str) -> Any:
        return self.s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)


@lru_cache(maxsize=4)
def lake(*, raw_bucket: str = "", processed_bucket: str = "", audit_bucket: str = "") -> Lake:
    """The lake of this process, with what it has already read: one for each set of buckets."""
    return Lake(s3=boto3.client("s3"), raw_bucket=raw_bucket, processed_bucket=processed_bucket, audit_bucket=audit_bucket)


def read_object(s3: Any, *, bucket: str, key: str, version: str | None = None) -> bytes | None:
    """An object's bytes, of a version if given; None where there is none."""
    which = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
    try:
        body: bytes = s3.get_object(**which)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchVersion", "404"):
            return None
        raise
    return body


def put_over(s3: Any, *, bucket: str, key: str, body: bytes, etag: str | None) -> str | None:
    """Write a JSON object over the version `etag` alone, over none at all for None; return the new version's ETag, None if another was
    first."""
    condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
    try:
        written: str = s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json", **condition)["ETag"]
    except ClientError as error:
        if error.response["Error"]["Code"] in OVERTAKEN:
            return None
        raise
    return written


def document_of(body: bytes, *, bucket: str, key: str) -> dict[str, Any]:
    """The JSON object that an object of the lake must be; raise `LakeError` otherwise."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise LakeError(f"s3://{bucket}/{key}: is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise LakeError(f"s3://{bucket}/{key}: must be a JSON object, was {type(document).__name__}")
    return document


def document_bytes(document: Mapping[str, Any]) -> bytes:
    """One line of JSON; a NaN is refused (`ValueError`)."""
    return (json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n").encode()
