"""News, their scores and what is known of collecting them, in S3; keys are those of `schema.lake_layout`.

Promises: an object is written whole or not at all, and equal items give equal bytes; what is removed is removed from every version of its
object; an absent object is None, never an empty list. Failure: `LakeError` for an object that is not what it should be, botocore's
`ClientError` for what S3 refuses. The bucket keeps versions, so `strip` and `forget` need the right to delete them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, ValidationError

from lambdas.common.lake.lake import LakeError, Row, document_bytes, document_of, pack, put_over, read_object, unpack
from schema.exchange_time import iso
from schema.lake_layout import (
    FORGET,
    FORGOTTEN,
    NEWS,
    NEWS_QUARANTINE,
    SENTIMENT,
    collecting_key,
    forgotten_item,
    forgotten_key,
    news_key,
    news_quarantine_key,
    sentiment_key,
)
from schema.news import NewsItem, NewsRecord, ScoredItem

RACES = 5
Record = TypeVar("Record", bound=NewsRecord)
Model = TypeVar("Model", bound=BaseModel)
Answer = TypeVar("Answer")
#: What is removed of an item whose text was kept as long as the settings say.
STRIPPED: Row = {"text": None, "summary": "", "url": "", "author": "", "raw": None}


class CollectingState(BaseModel):
    """How far a source was collected: by which run, up to which published time, and from where it goes on.

    `stripped_before`: what was received before that has no text any more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    last_run: str | None = None
    newest: str | None = None
    resume: str | None = None
    stripped_before: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewsStore:
    """`s3` is a boto3 client; a `run` is the scheduled time of the run that collected."""

    s3: Any
    raw_bucket: str
    processed_bucket: str
    workers: int = 8

    def items(self, source: str, run: datetime) -> list[NewsItem] | None:
        """What `run` collected; None where it has no object: the source was down, or nothing ran."""
        return self._records(NewsItem, self.raw_bucket, news_key(source, run))

    def scores(self, source: str, run: datetime) -> list[ScoredItem] | None:
        """The scores of `items`; None where they were not scored yet."""
        return self._records(ScoredItem, self.processed_bucket, sentiment_key(source, run))

    def quarantined(self, source: str, run: datetime) -> list[Row]:
        """What `run` could not read: reason, received, and the vendor's record as JSON text."""
        return self._rows(self.processed_bucket, news_quarantine_key(source, run)) or []

    def put_items(self, source: str, run: datetime, items: Sequence[NewsItem]) -> None:
        self._put_rows(self.raw_bucket, news_key(source, run), [item.model_dump() for item in items])

    def put_scores(self, source: str, run: datetime, scores: Sequence[ScoredItem]) -> None:
        self._put_rows(self.processed_bucket, sentiment_key(source, run), [score.model_dump() for score in scores])

    def quarantine(self, source: str, run: datetime, invalid: Sequence[tuple[str, Row]]) -> None:
        """Keep records that could not be read apart, beside those that `run` has kept already; JSON as text, for it may hold a NaN."""
        rows = [{"reason": reason, "received": iso(run), "record": json.dumps(record)} for reason, record in invalid]
        if rows:
            self._put_rows(self.processed_bucket, news_quarantine_key(source, run), [*self.quarantined(source, run), *rows])

    def runs(self, source: str, *, since: datetime, until: datetime) -> list[datetime]:
        """The runs from `since` to `until`, both included, that have an object of the source, oldest first."""
        return [run for run, _ in self._objects(self.raw_bucket, NEWS, source, since=since, until=until)]

    def scored_runs(self, source: str, *, since: datetime, until: datetime) -> list[datetime]:
        """Those of them whose items are scored."""
        return [run for run, _ in self._objects(self.processed_bucket, SENTIMENT, source, since=since, until=until)]

    def quarantined_runs(self, source: str, *, since: datetime, until: datetime) -> list[datetime]:
        """The runs that could not read something."""
        return [run for run, _ in self._objects(self.processed_bucket, NEWS_QUARANTINE, source, since=since, until=until)]

    def ids(self, source: str, *, since: datetime, until: datetime) -> frozenset[str]:
        """Ids of what those runs collected."""
        keys = [key for _, key in self._objects(self.raw_bucket, NEWS, source, since=since, until=until)]
        return frozenset(row["id"] for rows in self._each(lambda key: self._rows(self.raw_bucket, key), keys) for row in rows or ())

    def state(self, source: str) -> CollectingState:
        """How far the source was collected; a new one where it never was."""
        key = collecting_key(source)
        body = read_object(self.s3, bucket=self.processed_bucket, key=key)
        if body is None:
            return CollectingState()
        return self._valid(CollectingState, document_of(body, bucket=self.processed_bucket, key=key), self.processed_bucket, key)

    def put_state(self, source: str, state: CollectingState) -> None:
        self._put(self.processed_bucket, collecting_key(source), document_bytes(state.model_dump()))

    def posts_read(self, source: str, run: datetime) -> int:
        """How many posts of the source were read in the month of `run`, in UTC, or may have been."""
        return self._posts(collecting_key(_month(source, run)))[0]

    def count_posts(self, source: str, run: datetime, change: Callable[[int], int]) -> None:
        """Replace that count by what `change` makes of it; if another run was first, of what that one wrote."""
        key = collecting_key(_month(source, run))
        for _ in range(RACES):
            posts, version = self._posts(key)
            body = document_bytes({"posts": change(posts)})
            if put_over(self.s3, bucket=self.processed_bucket, key=key, body=body, etag=version) is not None:
                return
        raise LakeError(f"s3://{self.processed_bucket}/{key}: was changed {RACES} times while it was written")

    def _posts(self, key: str) -> tuple[int, str | None]:
        """The count at `key`, and its ETag; None where it was never written."""
        try:
            answer = self.s3.get_object(Bucket=self.processed_bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return 0, None
            raise
        posts = document_of(answer["Body"].read(), bucket=self.processed_bucket, key=key).get("posts")
        if not isinstance(posts, int) or posts < 0:
            raise LakeError(f"s3://{self.processed_bucket}/{key}: posts must be a count, was {posts!r}")
        return posts, answer["ETag"]

    def strip(self, source: str, run: datetime) -> int:
        """Remove all but ids, times, symbols and language of what `run` collected, in every version; return how many items had more."""
        items = self.items(source, run) or []
        had_more = sum(item.model_copy(update=STRIPPED) != item for item in items)
        if had_more:
            self.put_items(source, run, [item.model_copy(update=STRIPPED) for item in items])
        self._remove_old_versions(self.raw_bucket, news_key(source, run))
        return had_more

    def drop_quarantine(self, source: str, run: datetime) -> None:
        """Remove what `run` could not read, in every version."""
        key = news_quarantine_key(source, run)
        self.s3.delete_object(Bucket=self.processed_bucket, Key=key)
        self._remove_old_versions(self.processed_bucket, key)

    def requested(self) -> dict[str, set[str]]:
        """Source -> the ids that are to be forgotten and are not yet."""
        open_requests: dict[str, set[str]] = {}
        for source, identity in self._marked(FORGET) - self._marked(FORGOTTEN):
            open_requests.setdefault(source, set()).add(identity)
        return open_requests

    def forgotten(self, source: str) -> frozenset[str]:
        """The ids of the source that somebody asked to forget; they are not collected again."""
        return frozenset(identity for of, identity in self._marked(FORGET) | self._marked(FORGOTTEN) if of == source)

    def forget(self, source: str, identities: Collection[str], *, at: datetime) -> int:
        """Remove the items everywhere: raw, scored and quarantined lines, and every old version of the source's objects.

        Returns the number of lines removed. Repeating does no harm, and an id that nobody knows is noted as well.
        """
        wanted = frozenset(identities)
        places = (
            (self.raw_bucket, NEWS, lambda row: row["id"] in wanted),
            (self.processed_bucket, SENTIMENT, lambda row: row["id"] in wanted),
            (self.processed_bucket, NEWS_QUARANTINE, lambda row: not wanted.isdisjoint(_values(json.loads(row["record"])))),
        )
        removed = sum(self._without(bucket, f"{prefix}source={source}/", is_one) for bucket, prefix, is_one in places)
        for identity in sorted(wanted):
            self._put(self.raw_bucket, forgotten_key(source, identity), document_bytes({"forgotten": iso(at)}))
        return removed

    def _without(self, bucket: str, prefix: str, is_one: Callable[[Row], bool]) -> int:
        """Rewrite what lies under `prefix` without the rows that are one; return how many there were."""

        def rewrite(key: str) -> int:
            rows = self._rows(bucket, key) or []
            rest = [row for row in rows if not is_one(row)]
            if len(rest) < len(rows):
                self._put_rows(bucket, key, rest)
            return len(rows) - len(rest)

        removed = sum(self._each(rewrite, [item["Key"] for item in self._listed(bucket, prefix)]))
        self._remove_old_versions(bucket, prefix)
        return removed

    def _remove_old_versions(self, bucket: str, prefix: str) -> None:
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for version in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                if not version["IsLatest"]:
                    self.s3.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])

    def _marked(self, prefix: str) -> set[tuple[str, str]]:
        return {forgotten_item(item["Key"]) for item in self._listed(self.raw_bucket, prefix)}

    def _objects(self, bucket: str, prefix: str, source: str, *, since: datetime, until: datetime) -> Iterator[tuple[datetime, str]]:
        """Run and key of the objects of those runs, oldest first."""
        folder = f"{prefix}source={source}/"
        for item in self._listed(bucket, folder, after=f"{folder}date={since.astimezone(UTC).date().isoformat()}"):
            moment = item["Key"].removeprefix(folder).removesuffix(".jsonl.gz")
            try:
                run = datetime.strptime(moment, "date=%Y-%m-%d/%H%M").replace(tzinfo=UTC)
            except ValueError as error:
                raise LakeError(f"s3://{bucket}/{item['Key']}: the key must end in date=<day>/<HHMM>.jsonl.gz") from error
            if run > until:
                return
            if run >= since:
                yield run, item["Key"]

    def _listed(self, bucket: str, prefix: str, after: str = "") -> Iterator[dict[str, Any]]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **({"StartAfter": after} if after else {}))
        for page in pages:
            yield from page.get("Contents", ())

    def _records(self, model: type[Record], bucket: str, key: str) -> list[Record] | None:
        rows = self._rows(bucket, key)
        return None if rows is None else [self._valid(model, row, bucket, key) for row in rows]

    def _valid(self, model: type[Model], row: Row, bucket: str, key: str) -> Model:
        try:
            return model.model_validate(row)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise LakeError(f"s3://{bucket}/{key}: a line is no {model.__name__} ({where}: {error.errors()[0]['msg']})") from None

    def _rows(self, bucket: str, key: str) -> list[Row] | None:
        body = read_object(self.s3, bucket=bucket, key=key)
        try:
            return None if body is None else unpack(body)
        except (OSError, EOFError, ValueError) as error:
            raise LakeError(f"s3://{bucket}/{key}: is not gzipped JSON lines ({error})") from error

    def _put_rows(self, bucket: str, key: str, rows: Sequence[Row]) -> None:
        self.s3.put_object(Bucket=bucket, Key=key, Body=pack(rows), ContentType="application/gzip")

    def _put(self, bucket: str, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json")

    def _each(self, work: Callable[[Any], Answer], places: Sequence[Any]) -> list[Answer]:
        if not places:
            return []
        with ThreadPoolExecutor(max_workers=min(self.workers, len(places))) as pool:
            return list(pool.map(work, places))


def _month(source: str, run: datetime) -> str:
    return f"{source}-posts-{run.astimezone(UTC):%Y-%m}"


def _values(value: Any) -> set[str]:
    """Every text and number in a vendor's record, as text."""
    if isinstance(value, dict):
        return set().union(*(_values(one) for one in value.values()))
    if isinstance(value, list):
        return set().union(*(_values(one) for one in value))
    return {str(value)}
