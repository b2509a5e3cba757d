"""The section `[data]` of `settings.toml`: whom else the closes of the lake are compared with. A file without it compares nothing."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from schema.sections.section import Section

CloseSourceName = Literal["alphavantage", "finnhub"]


class DataSettings(Section):
    """`check_closes`: sources whose last prices are compared with the lake's closes every evening. What differs is mailed; what is traded
    on stays the lake's."""

    check_closes: tuple[CloseSourceName, ...] = ()

    @model_validator(mode="after")
    def _sources_are_distinct(self) -> Self:
        if len(set(self.check_closes)) < len(self.check_closes):
            raise ValueError(f"check_closes must be distinct, was {list(self.check_closes)}")
        return self
