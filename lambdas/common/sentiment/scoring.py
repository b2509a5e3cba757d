# ruff: noqa: ARG001
"""Items to scored items."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Protocol

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # type: ignore[import-untyped]

from schema.news import NewsItem, ScoredItem, Sentiment, flagged
from schema.sections.news import SentimentSettings


class Scorer(Protocol):
    @property
    def spent_usd(self) -> float: ...

    def score(self, text: str) -> Sentiment: ...


class Vader:
    model, spent_usd = "vader", 0.0

    def __init__(self) -> None:
        self.version = version("vaderSentiment")
        self._analyzer = SentimentIntensityAnalyzer()

    def score(self, text: str) -> Sentiment:
        shares = self._analyzer.polarity_scores(text)
        total = shares["pos"] + shares["neg"] + shares["neu"]
        if not total:
            return flagged("empty", model=self.model, version=self.version)
        positive, negative, neutral = (min(shares[name] / total, 1.0) for name in ("pos", "neg", "neu"))
        label = "positive" if shares["compound"] > 0.05 else "negative" if shares["compound"] < -0.05 else "neutral"
        return Sentiment(
            label=label, positive=positive, negative=negative, neutral=neutral, mixed=0.0,
            confidence=max(abs(shares["compound"]), neutral), model=self.model, version=self.version,
        )  # fmt: skip


def scorer_from_settings(settings: SentimentSettings, *, spent_usd: float) -> Scorer:
    return Vader()


def scored(items: Sequence[NewsItem], *, scorer: Scorer, min_confidence: float) -> list[ScoredItem]:
    return [
        ScoredItem(
            id=item.id, source=item.source, published=item.published, received=item.received, symbols=item.symbols,
            fingerprint=hashlib.sha256((item.text or "").lower().encode()).hexdigest(), sentiment=scorer.score(item.text or ""),
        )
        for item in items
    ]  # fmt: skip
