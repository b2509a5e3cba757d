"""What the deployed collection of news made of a replay, read from the lake as anybody would: its scores beside the year's prices."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence

import numpy as np

from local.replay.local_deployment import LocalDeployment
from papertape.reports.sentiment_beside_price import ScoredText, SentimentBesidePrice, beside_price
from schema.exchange_time import new_york_date, parse_utc
from schema.lake_layout import SENTIMENT
from schema.news import ScoredItem
from trading_env.data.market import Market


def scored_items(deployment: LocalDeployment) -> Iterator[ScoredItem]:
    """Every score in the lake, source by source in the order of time."""
    s3, bucket = deployment.client("s3"), deployment.output("ProcessedBucket")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{SENTIMENT}source="):
        for item in page.get("Contents", ()):
            lines = gzip.decompress(s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()).splitlines()
            yield from (ScoredItem.model_validate_json(line) for line in lines)


def news_of(deployment: LocalDeployment, *, sessions: Sequence[str], market: Market) -> SentimentBesidePrice | None:
    """The year's, for the report; None where no source is configured. Whatever the laptop's exchange serves is invented."""
    if not deployment.settings.news.sources:
        return None
    items = list(scored_items(deployment))
    texts = [
        ScoredText(
            symbol=symbol,
            session=new_york_date(parse_utc(item.received)).isoformat(),
            score=item.sentiment.score if item.sentiment.flag is None else None,
        )
        for item in items
        for symbol in item.symbols
    ]
    first, last = market.index_of(sessions[0]), market.index_of(sessions[-1])
    growth = market.close[first : last + 1] * market.split[first : last + 1] / market.close[first - 1 : last] - 1
    return beside_price(
        texts,
        sessions=sessions,
        growth={symbol: np.asarray(growth[:, column]).tolist() for column, symbol in enumerate(market.symbols)},
        scorer=", ".join(sorted({f"{item.sentiment.model} {item.sentiment.version}" for item in items})),
        invented=True,
    )
