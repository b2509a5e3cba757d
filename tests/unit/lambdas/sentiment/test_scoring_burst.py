"""A burst of posts: each is scored, in its place."""

from __future__ import annotations

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
    items = [post(number) for number in range(10_000)]
    found = scored(items, scorer=VaderScorer(), min_confidence=0.2)
    assert [each.id for each in found] == [each.id for each in items]
    assert all(each.sentiment.label == "positive" and each.sentiment.flag is None for each in found)
