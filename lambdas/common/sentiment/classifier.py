"""The project's own classifier, trained by `learning.headline_classifier` on headlines that it ships; served in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from lambdas.common.sentiment.port import Scorable, sentiment_of
from schema.news import Sentiment, flagged
from trading_env.data.headline_model import HeadlineModel, loaded

READ_CHARACTERS = 1_000


class ClassifierScorer:
    """English; a text in another language is `refused`. Threads may share it."""

    model = "headline-classifier"
    spent_usd = 0.0

    def __init__(self) -> None:
        self._arrays = _shipped()
        self.version = self._arrays.version

    def score(self, texts: Sequence[Scorable]) -> list[Sentiment]:
        shares = self._arrays.shares([text.text[:READ_CHARACTERS] for text in texts]).tolist()
        return [self._sentiment(text, row) for text, row in zip(texts, shares, strict=True)]

    def _sentiment(self, text: Scorable, shares: Sequence[float]) -> Sentiment:
        if not text.text.strip():
            return flagged("empty", model=self.model, version=self.version)
        if text.language != "en":
            return flagged("refused", model=self.model, version=self.version)
        return sentiment_of(shares, model=self.model, version=self.version)


@cache
def _shipped() -> HeadlineModel:
    return loaded(files(__package__).joinpath("headlines.npz").read_bytes())
