"""Items to scored items."""

# ruff: noqa: ARG001
from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lambdas.common.sentiment.port import Scorable, Scorer
from schema.news import NewsItem, ScoredItem


def scored(items: Sequence[NewsItem], *, scorer: Scorer, min_confidence: float) -> list[ScoredItem]:
    scores = scorer.score([Scorable(text=item.text or "") for item in items])
    return [
        ScoredItem(
            id=item.id, source=item.source, published=item.published, received=item.received, symbols=item.symbols,
            fingerprint=hashlib.sha256((item.text or "").lower().encode()).hexdigest(), sentiment=score,
        )
        for item, score in zip(items, scores, strict=True)
    ]  # fmt: skip
