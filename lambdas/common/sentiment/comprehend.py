"""Amazon Comprehend: 25 texts of one language per call, each of at most 5,000 bytes of UTF-8, cut between two characters.

A text in a language that Comprehend does not know, and one that it refuses, is `refused`; the texts of its batch are then asked in halves,
so that one text costs no other its score. When the service gives no answer, this and every later text of the call is `scorer_down`.
Price: 0.0001 USD per unit of 100 characters, at least 3 units per text (us-east-1, 2026).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lambdas.common.sentiment.paid import BudgetSpent, MonthlyBudget, ScorerDown, TextRefused, ask
from lambdas.common.sentiment.port import Scorable, sentiment_of
from lambdas.common.telemetry import logger
from schema.news import Flag, Sentiment, Unit, flagged

BATCH = 25
TEXT_BYTES = 5_000
UNIT_CHARACTERS, LEAST_UNITS, USD_PER_UNIT = 100, 3, 0.0001
LANGUAGES = frozenset({"en", "es", "fr", "de", "it", "pt", "ar", "hi", "ja", "ko", "zh", "zh-TW"})


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Shares(_Answer):
    Positive: Unit
    Negative: Unit
    Neutral: Unit
    Mixed: Unit


class _Result(_Answer):
    Index: Annotated[int, Field(ge=0, lt=BATCH)]
    Sentiment: Literal["POSITIVE", "NEGATIVE", "NEUTRAL", "MIXED"]
    SentimentScore: _Shares


class _Error(_Answer):
    Index: Annotated[int, Field(ge=0, lt=BATCH)]
    ErrorCode: str = ""


class _Batch(_Answer):
    ResultList: Annotated[tuple[_Result, ...], Field(max_length=BATCH)]
    ErrorList: Annotated[tuple[_Error, ...], Field(max_length=BATCH)]


class ComprehendScorer:
    """`client` is boto3's, for `comprehend`; `paid.ask` tries again, so the client needs not."""

    model = "comprehend"
    version = "2017-11-27"

    def __init__(self, *, client: Any, budget: MonthlyBudget, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client, self._budget, self._sleep = client, budget, sleep

    @property
    def spent_usd(self) -> float:
        return self._budget.spent_usd

    def score(self, texts: Sequence[Scorable]) -> list[Sentiment]:
        scores: dict[int, Sentiment] = {}
        by_language: dict[str, list[int]] = {}
        for at, text in enumerate(texts):
            if not text.text.strip():
                scores[at] = self._flagged("empty")
            elif text.language not in LANGUAGES:
                scores[at] = self._flagged("refused")
            else:
                by_language.setdefault(text.language, []).append(at)
        try:
            for places in by_language.values():
                for start in range(0, len(places), BATCH):
                    self._batch(places[start : start + BATCH], texts=texts, scores=scores)
        except ScorerDown as reason:
            logger.error("scorer-down", extra={"scorer": self.model, "reason": str(reason)})
        return [scores.get(at) or self._flagged("scorer_down") for at in range(len(texts))]

    def _batch(self, places: Sequence[int], *, texts: Sequence[Scorable], scores: dict[int, Sentiment]) -> None:
        """Put the score of each text at `places` into `scores`; raises `ScorerDown`."""
        sent = [cut(texts[at].text) for at in places]
        language = texts[places[0]].language
        try:
            answer = ask(
                lambda: self._client.batch_detect_sentiment(TextList=sent, LanguageCode=language),
                budget=self._budget,
                usd=sum(map(cost_usd, sent)),
                sleep=self._sleep,
            )
        except (TextRefused, BudgetSpent) as reason:
            if len(places) > 1:
                middle = len(places) // 2
                self._batch(places[:middle], texts=texts, scores=scores)
                self._batch(places[middle:], texts=texts, scores=scores)
            else:
                scores[places[0]] = self._flagged("refused" if isinstance(reason, TextRefused) else "budget_spent")
            return
        found = _read(answer)
        for place, at in enumerate(places):
            scores[at] = self._sentiment(found[place]) if place in found else self._flagged("refused")

    def _sentiment(self, shares: _Shares) -> Sentiment:
        return sentiment_of((shares.Positive, shares.Negative, shares.Neutral, shares.Mixed), model=self.model, version=self.version)

    def _flagged(self, flag: Flag) -> Sentiment:
        return flagged(flag, model=self.model, version=self.version)


def cut(text: str) -> str:
    """The beginning of a text in at most `TEXT_BYTES` bytes of UTF-8, no character halved; half a surrogate pair becomes "?"."""
    return text.encode("utf-8", "replace")[:TEXT_BYTES].decode("utf-8", "ignore")


def cost_usd(text: str) -> float:
    """What scoring `text` costs."""
    return max(ceil(len(text) / UNIT_CHARACTERS), LEAST_UNITS) * USD_PER_UNIT


def _read(answer: Mapping[str, Any]) -> dict[int, _Shares]:
    """Shares by place in the batch; texts that the service could not score are not among them. Raises `ScorerDown`."""
    try:
        batch = _Batch.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
        raise ScorerDown(f"answered what it does not describe: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if batch.ErrorList:
        logger.warning(
            "texts-refused", extra={"codes": sorted({each.ErrorCode for each in batch.ErrorList}), "count": len(batch.ErrorList)}
        )
    return {each.Index: each.SentimentScore for each in batch.ResultList}
