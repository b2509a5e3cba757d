"""What only X asks of its adapter: queries of 512 characters, posts that cost money, seven days, the newest first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from sources.port import SourceInvalid, SourceLimited, SourceUnavailable
from sources.x_search import XSearch, queries
from tests.newsrooms import KEY, NOON, Newsroom, Post, ident, many, open_newsroom, says

SINCE, RUN = NOON - timedelta(days=2), NOON + timedelta(hours=1)
NAMES = ("AAPL", "BAC", "SPY")
WIDE = tuple(f"{first}{second}QX" for first in "ABCDEFGH" for second in "ABCDEFGHIJ")  # 80 names: two queries


@pytest.fixture
def room() -> Iterator[Newsroom]:
    with open_newsroom() as opened:
        yield opened


@pytest.fixture
def source(room: Newsroom) -> XSearch:
    return XSearch(bearer=KEY, url=room.url, sleep=lambda _: None)


def test_a_query_is_at_most_512_characters_and_none_is_left_out() -> None:
    names = [f"S{number}A" for number in range(300)] + ["BRK.B"]
    made = queries(names)
    assert len(made) > 1
    assert all(len(query) <= 512 and query.endswith(") lang:en -is:retweet") for query in made)
    assert [word.strip("$()") for query in made for word in query.split() if "$" in word] == names
    assert queries([]) == []


def test_no_more_is_read_than_is_paid_for(room: Newsroom, source: XSearch) -> None:
    room.posts = many(300)
    for limit in (10, 19, 105, 109, 250):
        assert source.news(NAMES, since=SINCE, until=RUN, resume=None, limit=limit).read <= limit
    assert {int(query["max_results"]) for _, query in room.asked} == {10, 19, 100, 50}
    with pytest.raises(SourceLimited, match="at least 10 posts per page, the limit was 9"):
        source.news(NAMES, since=SINCE, until=RUN, resume=None, limit=9)


def test_no_post_is_read_twice(room: Newsroom, source: XSearch) -> None:
    """While many are published, with two queries and a limit that is reached in both, no post is paid for twice and none is skipped."""
    resume, got, read, run = None, list[str](), 0, RUN
    for step in range(30):
        room.posts += [
            Post(1000 * step + number, at=run - timedelta(minutes=9, seconds=-number), symbols=(WIDE[number % 80],))
            for number in range(40 if step < 6 else 0)
        ]
        page = source.news(WIDE, since=SINCE, until=run, resume=resume, limit=25)
        assert page.read <= 25
        got, read, resume = got + [item.id for item in page.items], read + page.read, page.resume
        run += timedelta(minutes=10)
    assert sorted(got) == sorted(ident("x", post) for post in room.posts)
    assert read == 240


def test_what_was_left_for_seven_days_is_gone_and_nothing_is_asked_for_that_is_older(room: Newsroom, source: XSearch) -> None:
    room.posts = many(60)
    first = source.news(NAMES, since=SINCE, until=RUN, resume=None, limit=20)
    late = RUN + timedelta(days=9)
    room.posts.append(Post(99, at=late - timedelta(hours=1)))
    room.asked.clear()
    page = source.news(NAMES, since=late - timedelta(hours=2), until=late, resume=first.resume, limit=100)
    assert [item.id for item in page.items] == [ident("x", room.posts[-1])]
    assert [query["start_time"] for _, query in room.asked] == ["2026-11-22T18:05:00Z"]


def test_the_last_seconds_are_left_to_the_next_call(room: Newsroom, source: XSearch) -> None:
    """X refuses an end within ten seconds of its clock."""
    room.posts = [Post(1, at=RUN - timedelta(seconds=5))]
    page = source.news(NAMES, since=SINCE, until=RUN, resume=None, limit=100)
    assert page.items == []
    later = source.news(NAMES, since=RUN, until=RUN + timedelta(minutes=30), resume=page.resume, limit=100)
    assert len(later.items) == 1


def test_posts_that_were_read_before_a_failure_are_kept(room: Newsroom, source: XSearch) -> None:
    room.posts = many(150)
    answer, before = room.answer, list[str]()

    def fails_later(path: str, query: dict[str, str], headers: object) -> tuple[int, object]:
        before.append(query.get("next_token", ""))
        return answer(path, query, headers) if len(before) == 1 else (503, {})  # type: ignore[arg-type]

    room.answer = fails_later  # type: ignore[method-assign, assignment]
    page = source.news(NAMES, since=SINCE, until=RUN, resume=None, limit=1_000)
    assert len(page.items) == page.read == 100
    with pytest.raises(SourceUnavailable):
        source.news(NAMES, since=SINCE, until=RUN, resume=page.resume, limit=1_000)
    room.answer = answer  # type: ignore[method-assign]
    rest = source.news(NAMES, since=SINCE, until=RUN, resume=page.resume, limit=1_000)
    assert rest.read == 50
    assert {item.id for item in (*page.items, *rest.items)} == {ident("x", post) for post in room.posts}


def test_cashtags_are_x_s_own_and_the_words_where_it_marked_none(room: Newsroom, source: XSearch) -> None:
    room.posts = [
        Post(1, text="$AAPL and $SPY", change={"entities": {"cashtags": [{"tag": "aapl"}]}}),
        Post(2, text="$bac, $SPYX and a$AAPL", symbols=("BAC",), change={"entities": None}),
        Post(3, text="cut ...", change={"note_tweet": {"text": "All of it: $SPY", "entities": {"cashtags": [{"tag": "SPY"}]}}}),
        Post(4, text="no tag at all", change={"entities": {"urls": []}}),
    ]
    page = source.news(NAMES, since=SINCE, until=RUN, resume=None, limit=100)
    assert {item.text: item.symbols for item in page.items} == {
        "$AAPL and $SPY": ("AAPL",),
        "$bac, $SPYX and a$AAPL": ("AAPL", "BAC"),
        "All of it: $SPY": ("AAPL", "SPY"),
    }
    assert page.read == 4


def test_errors_without_posts_are_invalid(room: Newsroom, source: XSearch) -> None:
    room.instead = [says(200, {"errors": [{"title": "Forbidden"}], "meta": {"result_count": 0}})]
    with pytest.raises(SourceInvalid, match=r"^x answered with errors and no posts"):
        source.news(NAMES, since=SINCE, until=RUN, resume=None, limit=100)


def test_a_page_that_leads_nowhere_ends_the_call(room: Newsroom, source: XSearch) -> None:
    room.instead = [says(200, {"data": [{"text": "no id"}], "meta": {"result_count": 1, "next_token": "t"}})]
    page = source.news(NAMES, since=SINCE, until=RUN, resume=None, limit=100)
    assert (len(page.items), len(page.invalid), page.read) == (0, 1, 1)
    assert len(room.asked) == 1
