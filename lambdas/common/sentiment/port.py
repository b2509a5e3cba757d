"""What a scorer is: texts in, one `Sentiment` per text out, in order.

A scorer never raises for a text. What it cannot score is neutral and flagged: `refused` for the text's own sake, `scorer_down` when the
scorer as a whole gives no answer (its reason is logged once), `budget_spent` when the month's money is used up, `empty` without words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from schema.news import Label, Sentiment

LABELS: tuple[Label, ...] = ("positive", "negative", "neutral", "mixed")


@dataclass(frozen=True, kw_only=True)
class Scorable:
    """A text and its language, as ISO 639-1 has it; a stranger's words."""

    text: str
    language: str = "en"


class Scorer(Protocol):
    """`model` and `version` say in each record what scored it."""

    @property
    def model(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def spent_usd(self) -> float:
        """What this object's calls have cost so far; 0 for one that is not paid for."""

    def score(self, texts: Sequence[Scorable]) -> list[Sentiment]: ...


def sentiment_of(shares: Sequence[float], *, model: str, version: str) -> Sentiment:
    """Return the record of four shares in the order of `LABELS`: finite, not negative, with a sum above 0, to which they are scaled.

    The label is that of the largest share, the first of several; the confidence is how far it lies above the next.
    """
    total = sum(shares)
    if len(shares) != len(LABELS) or min(shares) < 0 or not 0 < total < float("inf"):
        raise ValueError(f"shares must be four numbers from 0 on with a sum above 0, was {list(shares)}")
    unit = [min(share / total, 1.0) for share in shares]
    best = max(unit)
    confidence = best - sorted(unit)[-2]
    positive, negative, neutral, mixed = unit
    return Sentiment(
        label=LABELS[unit.index(best)],
        positive=positive,
        negative=negative,
        neutral=neutral,
        mixed=mixed,
        confidence=confidence,
        model=model,
        version=version,
    )
