"""What a scorer is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from schema.news import Sentiment


@dataclass(frozen=True, kw_only=True)
class Scorable:
    text: str
    language: str = "en"


class Scorer(Protocol):
    @property
    def model(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def spent_usd(self) -> float: ...

    def score(self, texts: Sequence[Scorable]) -> list[Sentiment]: ...
