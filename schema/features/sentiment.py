"""The lake's scored posts as sentiment columns: what `decide` and the features job both call, so that they compute the same.

Promise: the objects of `lake_layout.sentiment_key` and nothing else say what was known when: a run without an object means that the source
was down, an empty object that it had nothing. Raises `SentimentError` for a line or a calendar that cannot be used, ValueError for a key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from schema.exchange_time import parse_utc
from schema.lake_layout import sentiment_run
from schema.news import Flag, ScoredItem
from trading_env.data.bars import Array
from trading_env.data.market import Market, with_sentiment
from trading_env.data.sentiment import CollectionRun, Instants, ScoredPost, SentimentError, closes_of, earliest_post, sentiment_features

Line = Mapping[str, Any]

#: Nobody scored the text: as if the source had been down.
UNSCORED: frozenset[Flag] = frozenset({"scorer_down", "budget_spent"})


#: What a run receives it may receive so long after the minute that names its object.
LONGEST_RUN = timedelta(hours=1)


def scored_runs(objects: Mapping[str, Sequence[Line]]) -> Iterator[CollectionRun]:
    """Objects by key -> runs."""
    for key, lines in objects.items():
        source, at = sentiment_run(key)
        try:
            items = [ScoredItem.model_validate(line) for line in lines]
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise SentimentError(f"{key}: {where} is not allowed: {problem['msg']}, was {problem['input']!r}") from error
        judged = [item.sentiment.flag not in UNSCORED for item in items]
        yield CollectionRun(source, at, tuple(_post(item, at) for item in items), answered=any(judged) or not items)


def sentiment_of(objects: Mapping[str, Sequence[Line]], *, closes: Instants, symbols: Sequence[str], sources: Sequence[str]) -> Array:
    """The columns of `SENTIMENT` at each close, (T, A, len(SENTIMENT))."""
    return sentiment_features(scored_runs(objects), closes=closes, symbols=symbols, sources=sources)


def market_with_sentiment(
    market: Market, objects: Mapping[str, Sequence[Line]], *, closes: Mapping[date, datetime], sources: Sequence[str]
) -> Market:
    """The market with its sentiment columns; `closes` of the exchange's calendar."""
    instants = closes_of(market.sessions, closes)
    return with_sentiment(market, sentiment_of(objects, closes=instants, symbols=market.symbols, sources=sources))


def reach(closes: Instants, *, first: int) -> tuple[datetime, datetime]:
    """From when to when runs can matter to the rows from `first` on."""
    last: datetime = closes[-1].astype("datetime64[us]").astype(object).replace(tzinfo=UTC)
    return earliest_post(closes[: first + 1]) - LONGEST_RUN, last


def _post(item: ScoredItem, at: datetime) -> ScoredPost:
    return ScoredPost(
        symbols=item.symbols,
        received=max(parse_utc(item.received), at),
        score=item.sentiment.score,
        confidence=item.sentiment.confidence,
        fingerprint=item.fingerprint,
        flagged=item.sentiment.flag is not None,
    )
