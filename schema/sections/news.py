"""The sections `[news]` and `[sentiment]` of `settings.toml`: what is collected, how long it is kept, and what scores it.

A file without them collects nothing, as files from before they existed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schema.sections.section import Section

NewsSourceName = Literal["alpaca", "finnhub", "x"]
ScorerName = Literal["vader", "classifier", "comprehend", "bedrock"]
Days = Annotated[int, Field(ge=1, le=3650)]
#: Of X ids and scores may be kept, not text.
RETENTION_DAYS: Mapping[NewsSourceName, int] = {"alpaca": 365, "finnhub": 365, "x": 7}


class NewsSettings(Section):
    """`retention_days`: of the text, by source; ids and scores stay. `x_posts_per_month`: X bills each post that is read."""

    sources: tuple[NewsSourceName, ...] = ()
    every_minutes: Annotated[int, Field(ge=5, le=60)] = 30
    retention_days: Mapping[NewsSourceName, Days] = RETENTION_DAYS
    x_posts_per_month: Annotated[int, Field(ge=0, le=3_000_000)] = 2_000

    @model_validator(mode="after")
    def _sources_are_distinct(self) -> Self:
        if len(set(self.sources)) < len(self.sources):
            raise ValueError(f"sources must be distinct, was {list(self.sources)}")
        return self

    def kept_days(self, source: NewsSourceName) -> int:
        return self.retention_days.get(source, RETENTION_DAYS[source])


class SentimentSettings(Section):
    """`min_confidence`: a text that is scored with less counts as neutral and flagged. `monthly_budget_usd`: of scorers that are paid for;
    when it is spent, texts are neutral and flagged, and an alarm says so."""

    scorer: ScorerName = "vader"
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.2
    monthly_budget_usd: Annotated[float, Field(ge=0, le=10_000)] = 2.0
