"""News as a person sees them: strangers' words as text, scores with their flags, and the score of a name beside its price."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from lambdas.common.lake.lake import Lake
from lambdas.common.lake.news import CollectingState, NewsStore
from lambdas.dashboard.views.headlines import web_link
from schema.exchange_time import iso
from schema.lake_layout import bars_key
from schema.news import NewsItem, ScoredItem, Sentiment, flagged
from tests.aws.dashboard.conftest import Web

RUN = datetime(2020, 1, 2, 15, 0, tzinfo=UTC)
GOOD = Sentiment(label="positive", positive=0.7, negative=0.1, neutral=0.2, mixed=0.0, confidence=0.7, model="vader", version="3.3.2")


@pytest.fixture
def store(web: Web, buckets: SimpleNamespace) -> NewsStore:
    return NewsStore(s3=boto3.client("s3"), raw_bucket=buckets.raw, processed_bucket=buckets.processed)


def item(identity: str, *, run: datetime = RUN, **more: Any) -> NewsItem:
    fields = {"source": "alpaca", "symbols": ("IBM",), "text": f"headline {identity}", "published": iso(run)}
    return NewsItem(id=identity, received=iso(run), **{**fields, **more})


def put(store: NewsStore, items: list[NewsItem], *, run: datetime = RUN, scores: dict[str, Sentiment] | None = None) -> None:
    store.put_items("alpaca", run, items)
    shared = {"id", "source", "published", "received", "symbols"}
    if scores is not None:
        scored = [
            ScoredItem(**one.model_dump(include=shared), fingerprint="f", sentiment=scores[one.id]) for one in items if one.id in scores
        ]
        store.put_scores("alpaca", run, scored)
    store.put_state("alpaca", CollectingState(last_run=iso(run)))


def test_hostile_words_are_shown_as_text_and_only_the_webs_addresses_are_links(web: Web, store: NewsStore) -> None:
    hostile = item("a", text='<script>alert(1)</script><img src=x onerror="alert(2)">', url="javascript:alert(3)", author="<b>eve</b>")
    honest = item("b", url='https://example.org/a?b=1&c="><script>')
    put(store, [hostile, honest, item("c", text=None)], scores={"a": GOOD, "b": flagged("low_confidence", model="vader", version="3.3.2")})
    shown = web.get("pages/news").text
    assert "<script>" not in shown
    assert "<img" not in shown
    assert "<b>" not in shown
    assert "&lt;script&gt;alert(1)" in shown
    assert 'href="javascript' not in shown
    assert "<code>javascript:alert(3)</code>" in shown
    assert 'target="_blank" rel="noopener noreferrer nofollow">headline b</a>' in shown
    assert "its text is not kept any more" in shown


@pytest.mark.parametrize(
    ("address", "link"),
    [
        ("https://example.org/x", True),
        ("HTTP://example.org", True),
        ("javascript:alert(1)", False),
        ("JaVaScRiPt:alert(1)", False),
        ("data:text/html,<script>", False),
        ("//example.org/x", False),
        ("https:evil", False),
        ("https://[broken", False),
        ("java\nscript:alert(1)", False),
        ("", False),
    ],
)
def test_an_address_is_a_link_only_if_it_is_the_webs(address: str, link: bool) -> None:
    assert web_link(address) == (address if link else None)


def test_what_is_flagged_or_not_scored_yet_has_no_score(web: Web, store: NewsStore) -> None:
    down = flagged("scorer_down", model="none", version="1")
    put(store, [item("a"), item("b"), item("c")], scores={"a": GOOD, "b": down})
    view = web.get("api/news").body
    by_text = {one["text"]: one for one in view["headlines"]}
    assert (by_text["headline a"]["score"], by_text["headline a"]["flag"]) == (pytest.approx(0.6), None)
    assert (by_text["headline b"]["score"], by_text["headline b"]["flag"]) == (None, "scorer_down")
    assert (by_text["headline c"]["score"], by_text["headline c"]["label"]) == (None, None)
    shown = web.get("pages/news").text
    assert "the scorer did not answer" in shown
    assert "not scored yet" in shown
    assert "+0.60" in shown


def test_a_day_is_paged_newest_first_and_filtered_by_name(web: Web, store: NewsStore) -> None:
    for hour in (13, 14, 15):
        run = RUN.replace(hour=hour)
        put(store, [item(f"{hour}-{number}", run=run, symbols=("IBM",) if number else ("AAPL",)) for number in range(3)], run=run)
    first = web.get("api/news", {"limit": "4"}).body
    rest = web.get("api/news", {"limit": "200", "cursor": first["cursor"]}).body
    texts = [one["text"].removeprefix("headline ") for one in (*first["headlines"], *rest["headlines"])]
    assert texts == [f"{hour}-{number}" for hour in (15, 14, 13) for number in (2, 1, 0)]
    assert rest["cursor"] is None
    assert len(web.get("api/news", {"symbol": "AAPL", "day": "2020-01-02"}).body["headlines"]) == 3
    empty = web.get("pages/news", {"day": "2020-01-03", "symbol": "IBM"}).text
    assert "Nothing about IBM was collected on Fri 2020-01-03." in empty
    assert "The last day is Thu 2020-01-02." in empty


def test_sentiment_stands_beside_the_close_and_a_gap_is_none(web: Web, store: NewsStore, buckets: SimpleNamespace) -> None:
    lake = Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw)
    bars = [{"ts": f"2020-01-0{day}T05:00:00Z", "close": 100.0 + day} for day in (2, 3)]
    lake.write({bars_key("IBM", 2020): bars})
    sad = GOOD.model_copy(update={"label": "negative", "positive": 0.1, "negative": 0.7})
    down = flagged("scorer_down", model="none", version="1")
    put(store, [item("a"), item("b"), item("c"), item("d", symbols=("AAPL",))], scores={"a": GOOD, "b": sad, "c": down, "d": GOOD})
    view = web.get("api/news/sentiment", {"symbol": "IBM", "until": "2020-01-03"}).body
    assert view["days"] == ["2020-01-02", "2020-01-03"]
    assert (view["close"], view["score"]) == ([102.0, 103.0], [pytest.approx(0.0), None])
    assert (view["scored"], view["flagged"]) == ([2, 0], [1, 0])
    shown = web.get("pages/news", {"symbol": "IBM", "day": "2020-01-03"}).text
    assert 'data-source="news/sentiment?symbol=IBM&amp;until=2020-01-03"' in shown


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("api/news", {"symbol": "<script>"}),
        ("api/news", {"day": "yesterday"}),
        ("pages/news", {"day": "0001-01-01"}),
        ("pages/news", {"day": "9999-12-31"}),
        ("api/news", {"cursor": "x"}),
        ("api/news", {"cursor": "2020-13-45T99:99:99Z.alpaca.1"}),
        ("api/news/sentiment", {"symbol": "IBM", "until": "0001-01-01"}),
        ("api/news/sentiment", {}),
        ("api/news/sentiment", {"symbol": "IBM", "days": "999"}),
    ],
)
def test_a_wrong_question_is_a_422(web: Web, store: NewsStore, path: str, query: dict[str, str]) -> None:
    put(store, [item("a")])
    assert web.get(path, query).status == 422


def test_nothing_was_ever_collected(web: Web) -> None:
    assert "Nothing was ever collected here" in web.get("pages/news").text
    assert web.get("api/news").body["last_day"] is None
