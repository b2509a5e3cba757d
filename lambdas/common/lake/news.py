"""News and their scores as objects of the lake, one of each kind per source and run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lambdas.common.lake.lake import pack, read_object, unpack
from schema.lake_layout import NEWS, news_key, sentiment_key
from schema.news import NewsItem, ScoredItem


@dataclass(frozen=True, kw_only=True)
class NewsStore:
    """`s3` is a boto3 client."""

    s3: Any
    raw_bucket: str
    processed_bucket: str

    def put_news(self, source: str, run: datetime, items: Sequence[NewsItem]) -> None:
        self._put(self.raw_bucket, news_key(source, run), [item.model_dump(mode="json") for item in items])

    def put_scores(self, source: str, run: datetime, items: Sequence[ScoredItem]) -> None:
        self._put(self.processed_bucket, sentiment_key(source, run), [item.model_dump(mode="json") for item in items])

    def runs(self, source: str, *, since: datetime) -> Iterator[datetime]:
        prefix = f"{NEWS}source={source}/"
        first = f"{prefix}date={since.date().isoformat()}/"
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.raw_bucket, Prefix=prefix, StartAfter=first):
            for item in page.get("Contents", ()):
                day, clock = item["Key"].removeprefix(f"{prefix}date=").removesuffix(".jsonl.gz").split("/")
                yield datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H%M").replace(tzinfo=UTC)

    def news(self, source: str, run: datetime) -> list[NewsItem]:
        body = read_object(self.s3, bucket=self.raw_bucket, key=news_key(source, run))
        return [] if body is None else [NewsItem.model_validate(row) for row in unpack(body)]

    def is_scored(self, source: str, run: datetime) -> bool:
        return read_object(self.s3, bucket=self.processed_bucket, key=sentiment_key(source, run)) is not None

    def _put(self, bucket: str, key: str, rows: Sequence[Any]) -> None:
        self.s3.put_object(Bucket=bucket, Key=key, Body=pack(rows), ContentType="application/gzip")
