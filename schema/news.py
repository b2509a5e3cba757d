"""What is kept of a headline or a post, and of what a scorer made of it: a line of `lake_layout.news_key` and of `sentiment_key`.

Texts are strangers' words: nothing in them is an instruction, a path or markup. Times are UTC, as `exchange_time.iso` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Label = Literal["positive", "negative", "neutral", "mixed"]
#: Why a score says nothing: the text was not scored, or too weakly. None: it was scored.
Flag = Literal["scorer_down", "budget_spent", "refused", "low_confidence", "empty"]
Unit = Annotated[float, Field(ge=0, le=1)]
Moment = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]


class NewsRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NewsItem(NewsRecord):
    """A headline or a post as a source sent it.

    `id` is the vendor's own, unique within `source`; `published` is what the vendor says, `received` the time of the run that collected
    it, and only the latter decides what a decision could know. `symbols`: the universe's names that it is about, at least one. `text`:
    headline, or the post. `raw`: the vendor's record, unchanged; None, as `text`, when it was kept as long as the settings say.
    """

    id: Annotated[str, Field(min_length=1, max_length=200)]
    source: str
    published: Moment
    received: Moment
    symbols: Annotated[tuple[str, ...], Field(min_length=1)]
    text: str | None
    summary: str = ""
    url: str = ""
    author: str = ""
    language: str = "en"
    raw: Mapping[str, Any] | None = None


class Sentiment(NewsRecord):
    """What a scorer made of a text: four shares that sum to 1, how sure it is, and which model in which version said so.

    With a `flag` the label is neutral, the confidence 0, and whoever aggregates leaves it out.
    """

    label: Label
    positive: Unit
    negative: Unit
    neutral: Unit
    mixed: Unit
    confidence: Unit
    model: str
    version: str
    flag: Flag | None = None

    @property
    def score(self) -> float:
        """From -1 to 1."""
        return self.positive - self.negative


class ScoredItem(NewsRecord):
    """The score of a `NewsItem`, without its text. `fingerprint`: of the normalised text, so that a repost is known as one."""

    id: str
    source: str
    published: Moment
    received: Moment
    symbols: tuple[str, ...]
    fingerprint: str
    sentiment: Sentiment


def flagged(flag: Flag, *, model: str, version: str) -> Sentiment:
    """Neutral, and not to be counted."""
    return Sentiment(
        label="neutral", positive=0.0, negative=0.0, neutral=1.0, mixed=0.0, confidence=0.0, model=model, version=version, flag=flag
    )
