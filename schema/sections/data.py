"""The section `[data]` of `settings.toml`: whose minutes are gathered, and whom else the lake's closes are compared with."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from schema.sections.section import Section
from schema.slot import MinutesFeed

CloseSourceName = Literal["alphavantage", "finnhub"]


class DataSettings(Section):
    """`check_closes`: sources whose last prices are compared with the lake's closes every evening. What differs is mailed; what is traded
    on stays the lake's.

    `minutes_feed`: with `training.timeframe = "1Min"`, whose one-minute bars are read, of the past and of today alike: "iex", of one
    exchange, which every plan has at once; "sip", of all, which needs a paid plan for the last fifteen minutes.
    """

    check_closes: tuple[CloseSourceName, ...] = ()
    minutes_feed: MinutesFeed = "iex"

    @model_validator(mode="after")
    def _sources_are_distinct(self) -> Self:
        if len(set(self.check_closes)) < len(self.check_closes):
            raise ValueError(f"check_closes must be distinct, was {list(self.check_closes)}")
        return self
