"""Scored posts for tests: invented, seeded, of sources that are down now and then, as objects of the lake."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np

from lambdas.common.lake.lake import Lake, Row, pack
from schema.exchange_time import iso
from schema.lake_layout import sentiment_key
from schema.news import ScoredItem, Sentiment, flagged

HOURS = (17, 22)  # UTC: within the session, and after it
SOURCES = ("alpaca", "x")


def scored(
    *, received: datetime, symbols: tuple[str, ...], number: int, score: float = 0.5, source: str = "alpaca", text: str = ""
) -> ScoredItem:
    up, down = max(score, 0.0), max(-score, 0.0)
    return ScoredItem(
        id=str(number),
        source=source,
        published=iso(received - timedelta(minutes=5)),
        received=iso(received),
        symbols=symbols,
        fingerprint=text or f"text {number}",
        sentiment=Sentiment(
            label="neutral", positive=up, negative=down, neutral=1 - up - down, mixed=0.0, confidence=0.75, model="test", version="1"
        ),
    )


def objects(*, symbols: Sequence[str], first: date, days: int, seed: int = 0) -> dict[str, list[Row]]:
    """Runs at `HOURS` of every day, by key: posts about one to three names, reposts, flags, empty answers; without a key, down."""
    rng, found = np.random.default_rng(seed), dict[str, list[Row]]()
    for day in (first + timedelta(days=offset) for offset in range(days)):
        for source in SOURCES:
            if rng.random() < 0.15:
                continue  # down all day
            for hour in HOURS:
                run = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
                found[sentiment_key(source, run)] = [_line(rng, run, symbols, source) for _ in range(rng.poisson(2.0))]
    return found


def _line(rng: np.random.Generator, run: datetime, symbols: Sequence[str], source: str) -> Row:
    received, number = run + timedelta(seconds=float(rng.integers(0, 60))), int(rng.integers(0, 1 << 40))
    about = tuple(str(name) for name in rng.choice(symbols, size=int(rng.integers(1, 4)), replace=False))
    score, text = float(np.round(rng.uniform(-1, 1), 4)), f"text {rng.integers(0, 60)}" if rng.random() < 0.3 else ""
    item = scored(received=received, symbols=about, number=number, score=score, source=source, text=text)
    if rng.random() < 0.1:
        item = item.model_copy(update={"sentiment": flagged("low_confidence", model="test", version="1")})
    return item.model_dump(mode="json")


def fill_scores(lake: Lake, lines: dict[str, list[Row]]) -> None:
    for key, rows in lines.items():
        lake.s3.put_object(Bucket=lake.processed_bucket, Key=key, Body=pack(rows) if rows else b"")
