"""Scored posts to columns: the formulas, what never counts, and what a row can know."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from trading_env.data import sentiment
from trading_env.data.features import FEATURE_HASH, FEATURES
from trading_env.data.sentiment import (
    LOOKBACK,
    SENTIMENT,
    SENTIMENT_NAMES,
    TABLES,
    CollectionRun,
    ScoredPost,
    SentimentError,
    closes_of,
    earliest_post,
    sentiment_features,
)

#: Closes at 16:00 New York, winter; the second week begins on row 5, a Monday.
DAYS = np.busday_offset(np.datetime64("2018-01-01"), np.arange(100))
CLOSES = DAYS.astype("datetime64[us]") + np.timedelta64(21, "h")
NAMES = ("AAA", "BBB")
FAST, SLOW, DISPERSION, COUNT, RECENCY, KNOWN = range(len(SENTIMENT))


def at(row: int, *, hours: float = 0.0) -> datetime:
    """So many hours before a row's close; negative, after it."""
    moment: datetime = CLOSES[row].astype(object).replace(tzinfo=UTC)
    return moment - timedelta(hours=hours)


def post(row: int, *, hours: float = 1.0, score: float = 1.0, text: str = "a", **more: Any) -> ScoredPost:
    return replace(ScoredPost(("AAA",), at(row, hours=hours), score, 1.0, text), **more)


def some_posts(seed: int, *, count: int, texts: int) -> list[ScoredPost]:
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, 99, count)
    return [post(int(row), hours=float(rng.uniform(0, 24)), score=float(rng.uniform(-1, 1)), text=str(row % texts)) for row in rows]


def heard(*posts: ScoredPost, source: str = "alpaca") -> list[CollectionRun]:
    """The source answered half an hour before each close, and once more with these posts."""
    empty = [CollectionRun(source, at(row, hours=0.5)) for row in range(len(CLOSES))]
    return [*empty, CollectionRun(source, at(0), posts)]


def columns(runs: list[CollectionRun], *, sources: tuple[str, ...] = ("alpaca",)) -> np.ndarray:
    return sentiment_features(runs, closes=CLOSES, symbols=NAMES, sources=sources)


def test_without_a_post_everything_is_neutral_and_known() -> None:
    found = columns(heard())
    assert found.shape == (100, 2, len(SENTIMENT))
    assert (found[:, :, :KNOWN] == 0).all()
    assert (found[:, :, KNOWN] == 1).all()


def test_a_mean_decays_over_hours_and_days_and_is_shrunk() -> None:
    fresh, old = post(50, hours=1.0, score=0.8, confidence=0.5), post(50, hours=13.0, score=-0.4, text="b")
    row = columns(heard(fresh, old))[50, 0]
    for column, half_life in ((FAST, 12.0), (SLOW, 120.0)):
        u = [0.5 * 2 ** (-1 / half_life), 2 ** (-13 / half_life)]
        assert row[column] == pytest.approx((u[0] * 0.8 - u[1] * 0.4) / (3 + sum(u)), rel=1e-12)
    middle = (u[0] * 0.8 - u[1] * 0.4) / sum(u)
    spread = u[0] * (0.8 - middle) ** 2 + u[1] * (-0.4 - middle) ** 2
    assert row[DISPERSION] == pytest.approx(math.sqrt(spread / (3 + sum(u))), rel=1e-12)
    assert row[RECENCY] == pytest.approx(1 / (1 + 1 / 24))


def test_one_post_never_decides_and_many_do() -> None:
    one = columns(heard(post(50)))[50, 0, FAST]
    many = columns(heard(*(post(50, text=str(number)) for number in range(30))))[50, 0, FAST]
    assert 0 < one < 0.25
    assert many > 0.85


def test_the_tails_are_cut() -> None:
    found = columns(heard(post(50, hours=0.0)))[:, 0]
    assert np.flatnonzero(found[:, FAST]).tolist() == list(range(50, 55))
    assert np.flatnonzero(found[:, SLOW]).tolist() == list(range(50, 71))
    assert np.flatnonzero(found[:, RECENCY]).tolist() == list(range(50, 71))


def test_a_post_of_the_weekend_belongs_to_monday_and_one_after_the_close_to_tomorrow() -> None:
    friday, monday = 54, 55
    for late in (post(friday, hours=-1e-6), post(monday, hours=30.0)):
        found = columns(heard(late))
        assert (found[: friday + 1, :, :KNOWN] == 0).all()
        assert found[monday, 0, FAST] > 0
        assert found[monday, 0, COUNT] == 1.0
    assert columns(heard(post(friday, hours=0.0)))[friday, 0, FAST] > 0


def test_the_count_is_held_against_the_names_own_past() -> None:
    daily = [post(row, text=f"{row}.{number}") for row in range(2, 90) for number in range(row % 3)]
    burst = [post(90, text=f"burst {number}") for number in range(5)]
    found = columns(heard(*daily, *burst))[:, 0, COUNT]
    past = np.array([row % 3 for row in range(90 - 63, 90)])
    assert found[90] == pytest.approx((5 - past.mean()) / max(past.std(), 1.0))
    assert (found[:22] == 0).all()
    assert columns(heard(*daily, *(post(90, text=f"{number}") for number in range(100))))[90, 0, COUNT] == 5.0


def test_a_repost_is_no_post() -> None:
    once = columns(heard(post(50)))
    often = columns(heard(post(50), *(post(50, hours=hours) for hours in (0.9, 0.5, 0.1)), post(60), post(70)))
    np.testing.assert_array_equal(often[:60], once[:60])
    assert columns(heard(post(50), post(80)))[80, 0, COUNT] > 0.9  # six weeks later it is news again


def test_what_is_flagged_counts_for_nothing_nor_makes_a_later_one_a_repost() -> None:
    flagged = post(50, hours=2.0, flagged=True)
    np.testing.assert_array_equal(columns(heard(flagged)), columns(heard()))
    np.testing.assert_array_equal(columns(heard(flagged, post(50))), columns(heard(post(50))))


def test_a_post_counts_for_each_of_its_names_and_for_no_other() -> None:
    both = columns(heard(post(50, symbols=("BBB", "AAA", "ZZZ"))))
    np.testing.assert_array_equal(both[:, 0], columns(heard(post(50)))[:, 0])
    np.testing.assert_array_equal(both[:, 1], both[:, 0])


def test_a_source_that_is_down_is_neutral_and_flagged_never_a_silent_zero() -> None:
    posts = tuple(post(row, text=str(row)) for row in range(40, 60))
    runs = [run for run in heard(*posts) if run.posts or not at(50, hours=6.5) < run.at <= at(50)]
    found = columns(runs)
    assert (found[50] == 0).all()
    assert (found[49, 0, [FAST, SLOW, RECENCY, KNOWN]] > 0).all()
    assert (found[51, 0, [FAST, SLOW, RECENCY, KNOWN]] > 0).all()
    # An outage is no quiet day to compare with
    gone = [run for run in heard() if run.at > at(40)]
    busy = [post(row, text=f"{row} {n}") for row in range(41, 80) for n in range(4)]
    assert columns([*gone, CollectionRun("alpaca", at(0), tuple(busy))])[79, 0, COUNT] == 0.0


def test_nobody_to_score_what_came_is_no_answer() -> None:
    runs = [run for run in heard() if not at(50, hours=6.5) < run.at <= at(50)]
    unscored = CollectionRun("alpaca", at(50, hours=1.0), (post(50, flagged=True),), answered=False)
    assert columns([*runs, unscored])[50, 0, KNOWN] == 0
    assert columns([*runs, replace(unscored, answered=True)])[50, 0, KNOWN] == 1


def test_of_two_sources_one_may_be_down() -> None:
    runs = [*heard(post(50)), *(run for run in heard(source="x") if run.at < at(30))]
    found = columns(runs, sources=("alpaca", "x"))
    assert found[[29, 50], 0, KNOWN].tolist() == [1.0, 0.5]
    assert found[50, 0, FAST] > 0
    np.testing.assert_array_equal(columns(runs), columns(heard(post(50))))


def test_order_and_a_second_delivery_do_not_matter() -> None:
    rng, posts = np.random.default_rng(0), some_posts(0, count=400, texts=99)
    runs = heard(*posts)
    shuffled = [runs[index] for index in rng.permutation(len(runs))]
    again = [CollectionRun("alpaca", at(0), tuple(posts[index] for index in rng.permutation(400))), *shuffled, *shuffled]
    assert columns(again).tobytes() == columns(runs).tobytes()


def test_a_reader_of_the_newest_rows_has_the_bits_of_one_that_reads_everything() -> None:
    posts = some_posts(1, count=700, texts=60)
    runs = [*heard(), *(CollectionRun("alpaca", one.received, (one,)) for one in posts)]
    whole = columns(runs)
    for row in (20, 64, 65, 99):
        closes = CLOSES[: row + 1][-LOOKBACK - 1 :]
        since = earliest_post(closes)
        some = [run for run in runs if since <= run.at <= at(row)]
        last = sentiment_features(some, closes=closes, symbols=NAMES, sources=("alpaca",))[-1]
        assert last.tobytes() == whole[row].tobytes()
    assert len(some) < len(runs)


def test_what_cannot_be_used_is_refused_with_its_value() -> None:
    good = post(50)
    with pytest.raises(SentimentError, match=r"a score must lie in \[-1, 1\] .* was 1\.5 and 1\.0 in a"):
        replace(good, score=1.5)
    with pytest.raises(SentimentError, match=r"was nan and 1\.0"):
        replace(good, score=math.nan)
    with pytest.raises(SentimentError, match="a time must have its zone, was 2018-03-12T20:00:00"):
        replace(good, received=good.received.replace(tzinfo=None))
    with pytest.raises(SentimentError, match="at least one source"):
        columns(heard(), sources=())
    with pytest.raises(SentimentError, match="closes must be strictly increasing, was 2018-01-01"):
        sentiment_features([], closes=CLOSES[::-1][-2:], symbols=NAMES, sources=("alpaca",))
    with pytest.raises(SentimentError, match="that of 2018-01-02 is missing"):
        closes_of(DAYS[:2], {DAYS[0].astype(object): at(0)})


def test_closes_come_from_the_calendar() -> None:
    np.testing.assert_array_equal(closes_of(DAYS, {day.astype(object): at(row) for row, day in enumerate(DAYS)}), CLOSES)


def test_the_tables_are_named_apart() -> None:
    without, daily = TABLES["none"], TABLES["daily"]
    assert (without.hash, without.features) == (FEATURE_HASH, tuple(feature.name for feature in FEATURES))
    assert daily.features == (*without.features, *SENTIMENT_NAMES)
    assert len(set(daily.features)) == daily.width
    assert daily.hash == sentiment._hash() != FEATURE_HASH


def test_a_change_of_the_table_changes_its_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentiment, "SENTIMENT", SENTIMENT[::-1])
    assert sentiment._hash() != TABLES["daily"].hash
