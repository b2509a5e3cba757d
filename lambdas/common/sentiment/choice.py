"""The scorer of the settings: plain VADER."""

# ruff: noqa: ARG001
from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # type: ignore[import-untyped]

from lambdas.common.sentiment.port import Scorable, Scorer
from schema.news import Sentiment, flagged
from schema.sections.news import SentimentSettings


def scorer_from_settings(settings: SentimentSettings, *, spent_usd: float) -> Scorer:
    return Vader()


class Vader:
    model, spent_usd = "vader", 0.0

    def __init__(self) -> None:
        self.version = version("vaderSentiment")
        self._analyzer = SentimentIntensityAnalyzer()

    def score(self, texts: Sequence[Scorable]) -> list[Sentiment]:
        return [self._score(text.text) for text in texts]

    def _score(self, text: str) -> Sentiment:
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
