"""VADER with the project's finance words: free, without a network, the default.

VADER (C.J. Hutto, MIT) weighs words on a scale from -4 to 4, with rules for negation and degree; `finance_words` decides which words it is
given. VADER adds good and bad news up to nothing. Here both sums are kept, so that a headline can be mixed. With P and N the sums of what
is good and bad, (P+N) / sqrt((P+N)^2 + ALPHA) of the headline says something: min/max of P and N of that is mixed, the rest the larger's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from math import sqrt
from typing import Any

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from lambdas.common.sentiment.finance_words import FinanceWords, asks, finance_words
from lambdas.common.sentiment.port import Scorable, sentiment_of
from schema.news import Sentiment, flagged

#: How much must be said for half of it to count; VADER's own is 15, for posts that are longer than headlines.
ALPHA = 3.0
QUESTION = 0.4  # of every valence in a headline that asks


class VaderScorer:
    """English; a text in another language is `refused`. Threads may share it: nothing that it reads is written again."""

    model = "vader-finance"
    spent_usd = 0.0

    def __init__(self) -> None:
        self._words = finance_words()
        self._analyzer = _KeepsBothSums(self._words)
        self.version = f"{version('vaderSentiment')}+{self._words.version}"

    def score(self, texts: Sequence[Scorable]) -> list[Sentiment]:
        return [self._score(text) for text in texts]

    def _score(self, scorable: Scorable) -> Sentiment:
        if not scorable.text.strip():
            return flagged("empty", model=self.model, version=self.version)
        if scorable.language != "en":
            return flagged("refused", model=self.model, version=self.version)
        sums = self._analyzer.polarity_scores(self._words.read(scorable.text))
        weight = QUESTION if asks(scorable.text) else 1.0
        return sentiment_of(_shares(sums["good"] * weight, sums["bad"] * weight), model=self.model, version=self.version)


def _shares(good: float, bad: float) -> tuple[float, float, float, float]:
    """Positive, negative, neutral, mixed."""
    if good == bad == 0:
        return 0.0, 0.0, 1.0, 0.0
    said = (good + bad) / sqrt((good + bad) ** 2 + ALPHA)
    mixed = said * min(good, bad) / max(good, bad)
    rest = said - mixed
    return (rest if good > bad else 0.0), (rest if bad > good else 0.0), 1 - said, mixed


class _KeepsBothSums(SentimentIntensityAnalyzer):  # type: ignore[misc]  # it has no types
    """VADER's rules over its own lexicon with ours laid over it; its module's tables stay as they are. A figure is no word ("187" was)."""

    def __init__(self, words: FinanceWords) -> None:
        super().__init__()
        known: dict[str, float] = self.make_lex_dict()
        kept = {word: valence for word, valence in known.items() if word not in words.neutral and not word.isdigit()}
        self.lexicon: dict[str, float] = kept | dict(words.valences)

    def score_valence(self, sentiments: Sequence[float], text: str) -> Mapping[str, Any]:  # noqa: ARG002  (inherited)
        return {"good": sum(max(each, 0.0) for each in sentiments), "bad": sum(max(-each, 0.0) for each in sentiments)}
