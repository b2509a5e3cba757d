"""What the deployed collection of news made of a replay, read from the lake as anybody would: its scores beside the year's prices."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np

from local.replay.local_deployment import LocalDeployment
from papertape.market_data.sessions import sessions_between
from papertape.reports.sentiment_beside_price import ScoredText, SentimentBesidePrice, beside_price
from schema.exchange_time import new_york_date, parse_utc
from schema.features.sentiment import market_with_sentiment
from schema.lake_layout import SENTIMENT
from schema.news import ScoredItem
from schema.settings import Settings
from trading_env.data.market import Market


def score_objects(deployment: LocalDeployment) -> dict[str, list[dict[str, Any]]]:
    """Every score in the lake, line by line of each object: source by source in the order of time."""
    s3, bucket = deployment.client("s3"), deployment.output("ProcessedBucket")
    found = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{SENTIMENT}source="):
        for item in page.get("Contents", ()):
            content = gzip.decompress(s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())
            found[item["Key"]] = [json.loads(line) for line in content.splitlines()]
    return found


def scored_items(deployment: LocalDeployment) -> Iterator[ScoredItem]:
    """Every score in the lake, source by source in the order of time."""
    for lines in score_objects(deployment).values():
        yield from (ScoredItem.model_validate(line) for line in lines)


def market_with_scores(market: Market, objects: Mapping[str, Sequence[Mapping[str, Any]]], *, settings: Settings) -> Market:
    """`market` with its sentiment columns at the closes of the exchange's calendar; as it is where no policy reads scores."""
    if settings.features.sentiment == "none":
        return market
    first, last = (day.astype(object) for day in (market.sessions[0], market.sessions[-1]))
    closes = {date.fromisoformat(session.date): session.closes for session in sessions_between(first, last)}
    return market_with_sentiment(market, objects, closes=closes, sources=settings.news.sources)


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
