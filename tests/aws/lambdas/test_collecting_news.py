"""Runs of collecting against a real HTTP server and a versioned lake in process: what is stored, once, and what is removed again."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from lambdas.collect_news.collecting import Collected, collect, retain, score_pending
from lambdas.collect_news.post_budget import PostBudget, SharePaused
from lambdas.common.lake.lake import LakeError
from lambdas.common.lake.news import NewsStore
from schema.exchange_time import iso
from schema.lake_layout import collecting_key, forget_key, news_key, news_quarantine_key, sentiment_key
from schema.news import NewsItem, ScoredItem, flagged
from schema.sections.news import NewsSettings
from sources.port import NewsPage
from tests.newsrooms import NOON, SYMBOLS, Newsroom, Post, ident, many, open_newsroom, says, source_of

RUN = NOON + timedelta(hours=1)
HALF_AN_HOUR = timedelta(minutes=30)
SETTINGS = NewsSettings(sources=("alpaca", "finnhub", "x"), x_posts_per_month=60_000)


@pytest.fixture
def room() -> Iterator[Newsroom]:
    with open_newsroom() as opened:
        yield opened


@pytest.fixture
def store(buckets: SimpleNamespace) -> NewsStore:
    s3 = boto3.client("s3")
    for bucket in (buckets.raw, buckets.processed):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return NewsStore(s3=s3, raw_bucket=buckets.raw, processed_bucket=buckets.processed)


def run_at(
    room: Newsroom,
    store: NewsStore,
    run: datetime = RUN,
    *vendors: str,
    settings: NewsSettings = SETTINGS,
    symbols: Sequence[str] = SYMBOLS,
) -> Collected:
    sources = [source_of(vendor, room.url) for vendor in vendors or ("alpaca",)]
    return collect(sources=sources, store=store, symbols=symbols, run=run, settings=settings)


def scored(items: Sequence[NewsItem]) -> list[ScoredItem]:
    """As a scorer that is down does it."""
    return [
        ScoredItem(
            **item.model_dump(include={"id", "source", "published", "received", "symbols"}),
            fingerprint="f",
            sentiment=flagged("scorer_down", model="none", version="1"),
        )
        for item in items
    ]


def everything(store: NewsStore) -> str:
    """All that the two buckets hold, every version of it, as text."""
    texts = []
    for bucket in (store.raw_bucket, store.processed_bucket):
        for version in store.s3.list_object_versions(Bucket=bucket).get("Versions", []):
            body = store.s3.get_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])["Body"].read()
            texts.append((gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body).decode())
    return "\n".join(texts)


def test_a_run_is_one_object_per_source_and_what_it_received_is_stamped_with_it(room: Newsroom, store: NewsStore) -> None:
    room.posts = many(7)
    result = run_at(room, store, RUN, "alpaca", "finnhub", "x")
    assert result == Collected(items={"alpaca": 7, "finnhub": 7, "x": 7}, invalid=0, down={})
    assert news_key("x", RUN) == "raw/news/source=x/date=2026-11-20/1800.jsonl.gz"
    for vendor in result.items:
        items = store.items(vendor, RUN)
        assert items is not None
        assert {item.received for item in items} == {iso(RUN)}
        assert [item.text for item in items] == [f"Headline {number}" for number in range(7)]


def test_a_source_with_nothing_is_an_empty_object_and_one_that_is_down_is_none(room: Newsroom, store: NewsStore) -> None:
    room.instead = [says(403, {"message": "forbidden"})]
    result = run_at(room, store, RUN, "finnhub", "alpaca")
    assert result.items == {"alpaca": 0}
    assert list(result.down) == ["finnhub"]
    assert result.down["finnhub"].startswith("finnhub refused ")
    assert "\n" not in result.down["finnhub"]
    assert store.items("alpaca", RUN) == []
    assert store.items("finnhub", RUN) is None
    assert store.runs("alpaca", since=RUN, until=RUN) == [RUN]


def test_what_a_source_had_while_it_was_down_comes_with_the_next_run(room: Newsroom, store: NewsStore) -> None:
    room.posts = many(3)
    run_at(room, store)
    room.posts += [Post(10, at=RUN + timedelta(minutes=1))]
    room.instead = [says(503, {})] * 3
    assert "alpaca" in run_at(room, store, RUN + HALF_AN_HOUR).down
    room.posts += [Post(11, at=RUN + timedelta(minutes=40))]
    assert run_at(room, store, RUN + timedelta(days=2)).items == {"alpaca": 2}
    assert store.runs("alpaca", since=RUN, until=RUN + timedelta(days=3)) == [RUN, RUN + timedelta(days=2)]


def test_an_item_is_stored_once_by_whoever_received_it_first(room: Newsroom, store: NewsStore) -> None:
    """Updated, sent again, found by the overlap: its first line stays."""
    room.posts = many(5)
    run_at(room, store)
    room.posts = [*room.posts[:4], Post(4, at=room.posts[4].at, text="rewritten", updated=RUN + timedelta(minutes=2))]
    assert run_at(room, store, RUN + HALF_AN_HOUR).items == {"alpaca": 0}
    assert "rewritten" not in everything(store)


def test_what_arrives_late_is_seen_and_has_the_time_at_which_it_was(room: Newsroom, store: NewsStore) -> None:
    for vendor in ("alpaca", "finnhub"):
        room.posts = many(5)
        run_at(room, store, RUN, vendor)
        late = Post(9, at=NOON - timedelta(minutes=100))
        room.posts.append(late)
        run_at(room, store, RUN + HALF_AN_HOUR, vendor)
        items = store.items(vendor, RUN + HALF_AN_HOUR)
        assert items is not None
        assert [(item.id, item.received) for item in items] == [("9", iso(RUN + HALF_AN_HOUR))]


def test_a_retry_of_a_run_gives_the_same_object_and_asks_nobody(room: Newsroom, store: NewsStore) -> None:
    room.posts = many(5)
    first = run_at(room, store, RUN, "alpaca", "x")
    before, asked = everything(store), len(room.asked)
    room.posts += [Post(10, at=RUN - timedelta(minutes=1))]
    assert run_at(room, store, RUN, "alpaca", "x") == first
    assert (everything(store), len(room.asked)) == (before, asked)


def test_a_run_that_a_later_one_has_overtaken_stamps_nothing_with_its_own_time(room: Newsroom, store: NewsStore) -> None:
    room.posts = many(5)
    run_at(room, store)
    result = run_at(room, store, RUN - HALF_AN_HOUR)
    assert result.items == {}
    assert "has collected what there was" in result.down["alpaca"]
    assert store.items("alpaca", RUN - HALF_AN_HOUR) is None


@pytest.mark.parametrize("crash", ["put_items", "put_state"])
def test_a_run_that_dies_loses_nothing(room: Newsroom, store: NewsStore, crash: str) -> None:
    """Between any two of its writes; the next run stores what is missing, and nothing twice."""
    room.posts = many(30)
    refused = news_key("alpaca", RUN) if crash == "put_items" else collecting_key("alpaca")

    def refuse(params: dict[str, Any], **_: Any) -> None:
        if params["Key"] == refused:
            raise OSError("the process dies here")

    store.s3.meta.events.register("before-parameter-build.s3.PutObject", refuse)
    with pytest.raises(OSError, match="dies here"):
        run_at(room, store)
    store.s3.meta.events.unregister("before-parameter-build.s3.PutObject", refuse)
    run_at(room, store)
    run_at(room, store, RUN + HALF_AN_HOUR)
    runs = store.runs("alpaca", since=RUN, until=RUN + HALF_AN_HOUR)
    ids = [item.id for run in runs for item in store.items("alpaca", run) or []]
    assert sorted(ids, key=int) == [str(number) for number in range(30)]


def test_ten_thousand_posts_are_stored_by_one_run(room: Newsroom, store: NewsStore) -> None:
    room.posts = many(10_000, every=timedelta(seconds=5))
    assert run_at(room, store, RUN, "x").items == {"x": 10_000}
    items = store.items("x", RUN)
    assert items is not None
    assert {item.id for item in items} == {ident("x", post) for post in room.posts}


def test_more_than_a_run_takes_is_stored_by_the_next(room: Newsroom, store: NewsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lambdas.collect_news.collecting.ITEMS_PER_RUN", 40)
    room.posts = many(100)
    counts = [run_at(room, store, RUN + step * HALF_AN_HOUR, "alpaca", "finnhub", "x").items for step in range(4)]
    assert counts == [{"alpaca": count, "finnhub": count, "x": count} for count in (40, 40, 20, 0)]


def test_the_same_item_a_thousand_times_is_one_line(room: Newsroom, store: NewsStore) -> None:
    room.posts = [Post(1)] * 1_000
    assert run_at(room, store).items == {"alpaca": 1}


def test_a_date_in_the_future_does_not_hide_what_comes_after(room: Newsroom, store: NewsStore) -> None:
    """Nor is its item stored again when that day comes."""
    ahead = "2026-11-22T12:00:00Z"
    room.posts = [Post(1, change={"created_at": ahead}), Post(2, at=NOON + timedelta(minutes=1))]
    assert run_at(room, store).items == {"alpaca": 2}
    room.posts.append(Post(3, at=RUN + timedelta(minutes=3)))
    assert run_at(room, store, RUN + HALF_AN_HOUR).items == {"alpaca": 1}
    room.posts[0] = Post(1, at=datetime(2026, 11, 22, 12, tzinfo=UTC))
    assert run_at(room, store, datetime(2026, 11, 22, 13, tzinfo=UTC)).items == {"alpaca": 0}


def test_clocks_ten_minutes_apart_lose_nothing(room: Newsroom, store: NewsStore) -> None:
    """The vendor's is ahead: what it publishes "later" than the run comes with the next, stamped with that."""
    posts = [Post(number, at=RUN + timedelta(minutes=number)) for number in range(-5, 6) if number != 0]
    room.posts = [Post(100 + post.number, at=post.at) for post in posts]
    stored = [run_at(room, store, RUN + step * timedelta(minutes=10)).items["alpaca"] for step in range(3)]
    assert stored == [5, 5, 0]


def test_what_cannot_be_read_is_a_dead_letter_once(room: Newsroom, store: NewsStore) -> None:
    room.posts = [Post(1, change={"headline": float("nan")}), Post(2, change={"headline": {"a": "\x00"}}), Post(3)]
    assert run_at(room, store) == Collected(items={"alpaca": 1}, invalid=2, down={})
    letters = store.quarantined("alpaca", RUN)
    assert [letter["reason"].split(":")[0] for letter in letters] == ["Out of range float values are not JSON compliant", "headline"]
    assert '"headline": NaN' in letters[0]["record"]
    assert run_at(room, store, RUN + HALF_AN_HOUR).invalid == 0
    assert store.quarantined_runs("alpaca", since=RUN, until=RUN + HALF_AN_HOUR) == [RUN]
    assert news_quarantine_key("alpaca", RUN) == "processed/quarantine/news/source=alpaca/date=2026-11-20/1800.jsonl.gz"


def test_posts_that_cost_money_are_bounded_by_the_month_and_spread_over_its_days(room: Newsroom, store: NewsStore) -> None:
    settings = NewsSettings(x_posts_per_month=300)
    room.posts = many(900)
    first = run_at(room, store, RUN, "x", settings=settings)  # the 20th of 30 days
    assert first.items == {"x": 200}
    assert store.posts_read("x", RUN) == 200
    asked = len(room.asked)
    again = run_at(room, store, RUN + HALF_AN_HOUR, "x", settings=settings)
    assert (again.items, again.down) == ({}, {})
    assert again.paused == {"x": "x: 200 posts are read, of 200 up to 2026-11-20 and 300 in the month"}
    assert len(room.asked) == asked
    assert store.items("x", RUN + HALF_AN_HOUR) is None
    assert run_at(room, store, RUN + timedelta(days=1), "x", settings=settings).items == {"x": 10}
    last = datetime(2026, 11, 30, 18, tzinfo=UTC)
    room.posts = many(200, until=last)
    total = sum(run_at(room, store, last + step * HALF_AN_HOUR, "x", settings=settings).items.get("x", 0) for step in range(3))
    assert 210 + total == store.posts_read("x", last) == 300
    spent = run_at(room, store, last + 3 * HALF_AN_HOUR, "x", settings=settings)
    assert spent.down == {"x": "x: 300 posts of this month's 300 are read; it goes on next month, or with more x_posts_per_month in [news]"}
    december = datetime(2026, 12, 3, 18, tzinfo=UTC)
    assert store.posts_read("x", december) == 0


@pytest.mark.parametrize(
    ("instead", "counted"),
    [
        ([says(401, {})], 0),
        ([says(429, {}, {"Retry-After": "900"})], 0),
        ([says(503, {})] * 3, 100),
        ([says(200, {"meta": 1})], 100),
    ],
    ids=["refused", "limited", "no answer", "not understood"],
)
def test_doubt_about_what_was_billed_counts_as_billed(room: Newsroom, store: NewsStore, instead: list[Any], counted: int) -> None:
    room.instead = instead
    assert "x" in run_at(room, store, RUN, "x").down
    assert store.posts_read("x", RUN) == counted


def test_a_run_that_dies_while_it_reads_has_spent_what_it_booked(store: NewsStore) -> None:
    class Dies:
        name = "x"

        def news(self, *_: Any, **__: Any) -> NewsPage:
            raise MemoryError

    with pytest.raises(MemoryError):
        collect(sources=[Dies()], store=store, symbols=SYMBOLS, run=RUN, settings=NewsSettings(x_posts_per_month=300))
    assert store.posts_read("x", RUN) == 200


def test_of_two_runs_at_once_none_spends_what_the_other_has_booked(store: NewsStore) -> None:
    first, second = (PostBudget(store=store, source="x", run=RUN, per_month=300) for _ in range(2))
    interfered = []

    def interfere(params: dict[str, Any], **_: Any) -> None:
        if not interfered:
            interfered.append(params["Key"])
            assert second.book(150) == 150

    store.s3.meta.events.register("before-parameter-build.s3.PutObject", interfere)
    assert first.book(150) == 50
    assert interfered == [collecting_key("x-posts-2026-11")]
    assert store.posts_read("x", RUN) == 200
    with pytest.raises(SharePaused):
        first.book(10)
    first.correct(booked=50, read=7)
    assert store.posts_read("x", RUN) == 157


def test_each_object_without_scores_is_scored_oldest_first_and_once(room: Newsroom, store: NewsStore) -> None:
    room.posts = many(4)
    run_at(room, store, RUN, "alpaca", "finnhub")
    room.posts += [Post(9, at=RUN + timedelta(minutes=1))]
    later = RUN + HALF_AN_HOUR
    run_at(room, store, later)
    seen: list[str] = []

    def score(items: Sequence[NewsItem]) -> list[ScoredItem]:
        seen.append(f"{items[0].source} {items[0].received}")
        return scored(items)

    sources = ("finnhub", "alpaca")
    assert score_pending(store=store, run=later, sources=sources, score=score) == 9
    assert seen == [f"alpaca {iso(RUN)}", f"finnhub {iso(RUN)}", f"alpaca {iso(later)}"]
    assert score_pending(store=store, run=later, sources=sources, score=score) == 0
    scores = store.scores("alpaca", RUN)
    assert scores is not None
    assert [one.id for one in scores] == ["0", "1", "2", "3"]
    assert sentiment_key("alpaca", RUN) == "processed/sentiment/source=alpaca/date=2026-11-20/1800.jsonl.gz"


def test_a_scorer_that_dies_is_asked_again_by_the_next_run(room: Newsroom, store: NewsStore) -> None:
    room.posts = many(4)
    run_at(room, store)

    def dies(_: Sequence[NewsItem]) -> list[ScoredItem]:
        raise OSError("no scorer")

    with pytest.raises(OSError, match="no scorer"):
        score_pending(store=store, run=RUN, sources=("alpaca",), score=dies)
    assert store.scores("alpaca", RUN) is None
    assert score_pending(store=store, run=RUN + timedelta(days=2), sources=("alpaca",), score=scored) == 4


def test_scores_of_other_items_are_not_stored(room: Newsroom, store: NewsStore) -> None:
    room.posts = many(4)
    run_at(room, store)
    with pytest.raises(LakeError, match="4 items of alpaca at 2026-11-20T18:00:00Z were scored as 3 others"):
        score_pending(store=store, run=RUN, sources=("alpaca",), score=lambda items: scored(items)[1:])
    assert store.scores("alpaca", RUN) is None


def test_an_empty_object_has_empty_scores(room: Newsroom, store: NewsStore) -> None:
    run_at(room, store)
    assert score_pending(store=store, run=RUN, sources=("alpaca",), score=scored) == 0
    assert store.scores("alpaca", RUN) == []


def test_beyond_its_days_only_ids_and_scores_stay_in_any_version(room: Newsroom, store: NewsStore) -> None:
    room.posts = [Post(1, text="a secret of strangers"), Post(2, text="another", change={"author_id": 7, "text": 3})]
    run_at(room, store, RUN, "x", "alpaca")
    score_pending(store=store, run=RUN, sources=("x", "alpaca"), score=scored)
    assert retain(store=store, run=RUN + timedelta(days=6, hours=23), settings=SETTINGS) == 0
    assert store.quarantined("x", RUN)
    after = RUN + timedelta(days=7, minutes=1)
    assert retain(store=store, run=after, settings=SETTINGS) == 1
    (item,) = store.items("x", RUN) or ()
    assert (item.id, item.symbols, item.text, item.raw, item.url, item.author, item.summary) == (
        *(ident("x", room.posts[0]), ("AAPL",)),
        *(None, None, "", "", ""),
    )
    assert store.quarantined("x", RUN) == []
    assert store.scores("x", RUN)
    (kept,) = [one for one in store.items("alpaca", RUN) or () if one.text == "a secret of strangers"]
    assert kept.raw is not None
    assert retain(store=store, run=after, settings=SETTINGS) == 0
    assert retain(store=store, run=RUN + timedelta(days=366), settings=SETTINGS) == 2
    assert "strangers" not in everything(store)


def test_texts_of_a_source_that_is_collected_no_more_go_as_well(room: Newsroom, store: NewsStore) -> None:
    room.posts = [Post(1, text="a secret of strangers")]
    run_at(room, store, RUN, "x")
    assert retain(store=store, run=RUN + timedelta(days=8), settings=NewsSettings(sources=())) == 1
    assert "strangers" not in everything(store)


def ask_to_forget(store: NewsStore, source: str, identity: str) -> None:
    store.s3.put_object(Bucket=store.raw_bucket, Key=forget_key(source, identity), Body=b"{}")


def test_what_is_to_be_forgotten_is_removed_everywhere_and_never_comes_back(room: Newsroom, store: NewsStore) -> None:
    """From texts, scores, dead letters and every old version; the others stay."""
    gone = Post(1, text="forget this")
    room.posts = [gone, Post(2, text="keep this", at=NOON + timedelta(minutes=1))]
    run_at(room, store, RUN, "x")
    score_pending(store=store, run=RUN, sources=("x",), score=scored)
    store.quarantine("x", RUN, [("bad", {"id": ident("x", gone), "text": "forget this"}), ("bad", {"id": "7", "text": "keep this letter"})])
    store.put_items("x", RUN, store.items("x", RUN) or [])  # an old version of it
    ask_to_forget(store, "x", ident("x", gone))
    ask_to_forget(store, "x", "an id / that: nobody ☃ knows")
    for later in (RUN + HALF_AN_HOUR, RUN + 2 * HALF_AN_HOUR):
        assert run_at(room, store, later, "x").items == {"x": 0}
    left = everything(store)
    assert "forget this" not in left
    assert [item.text for item in store.items("x", RUN) or ()] == ["keep this"]
    assert [score.id for score in store.scores("x", RUN) or ()] == [ident("x", room.posts[1])]
    assert [json.loads(letter["record"])["id"] for letter in store.quarantined("x", RUN)] == ["7"]
    assert store.requested() == {}
    assert store.forgotten("x") == {ident("x", gone), "an id / that: nobody ☃ knows"}


def test_what_is_to_be_forgotten_is_not_collected_by_the_overlap(room: Newsroom, store: NewsStore) -> None:
    room.posts = [Post(1, text="forget this")]
    run_at(room, store)
    ask_to_forget(store, "alpaca", "1")
    assert run_at(room, store, RUN + HALF_AN_HOUR).items == {"alpaca": 0}
    assert "forget this" not in everything(store)


def test_a_request_is_obeyed_though_its_source_is_not_collected_any_more(room: Newsroom, store: NewsStore) -> None:
    room.posts = [Post(1, text="forget this")]
    run_at(room, store, RUN, "x")
    ask_to_forget(store, "x", ident("x", room.posts[0]))
    collect(sources=[], store=store, symbols=SYMBOLS, run=RUN + HALF_AN_HOUR, settings=NewsSettings())
    assert "forget this" not in everything(store)


def test_an_object_that_is_none_of_ours_is_named(room: Newsroom, store: NewsStore) -> None:
    store.s3.put_object(Bucket=store.raw_bucket, Key=news_key("x", RUN), Body=b"not gzip")
    with pytest.raises(LakeError, match=r"raw/news/source=x/date=2026-11-20/1800.jsonl.gz: is not gzipped JSON lines"):
        store.items("x", RUN)
    store.s3.put_object(Bucket=store.raw_bucket, Key=news_key("x", RUN), Body=gzip.compress(b'{"id": 7}\n'))
    with pytest.raises(LakeError, match=r"a line is no NewsItem \(id: "):
        store.items("x", RUN)
