"""What a burst of posts takes of one processor."""

from __future__ import annotations

import time

from lambdas.common.sentiment.scoring import scored
from lambdas.common.sentiment.vader import VaderScorer
from schema.news import NewsItem


def post(number: int) -> NewsItem:
    return NewsItem(
        id=f"n{number}",
        source="alpaca",
        published="2020-01-02T14:00:00Z",
        received="2020-01-02T14:30:00Z",
        symbols=("AAPL",),
        text=f"$NWIN {number} shares surge after earnings beat, raises guidance #{number}",
        language="en",
    )


def test_a_burst_of_ten_thousand_posts_is_scored_without_loss() -> None:
    """Within some seconds of one processor; the function has minutes."""
    items = [post(number) for number in range(10_000)]
    begun = time.process_time()
    found = scored(items, scorer=VaderScorer(), min_confidence=0.2)
    assert time.process_time() - begun < 8
    assert [each.id for each in found] == [each.id for each in items]
    assert all(each.sentiment.label == "positive" and each.sentiment.flag is None for each in found)
