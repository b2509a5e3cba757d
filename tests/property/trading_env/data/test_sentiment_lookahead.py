"""No row of the sentiment columns changes when what was received after its close is taken away or replaced, whatever was posted when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trading_env.data.sentiment import CollectionRun, ScoredPost, sentiment_features

SESSIONS, NAMES, SOURCES = 90, ("AAA", "BBB"), ("alpaca", "x")
CLOSES = np.busday_offset(np.datetime64("2018-01-01"), np.arange(SESSIONS)).astype("datetime64[us]") + np.timedelta64(21, "h")
BEGIN = datetime(2017, 12, 1, tzinfo=UTC)


def instant(close: np.datetime64) -> datetime:
    return close.astype(object).replace(tzinfo=UTC)


ROWS, TICKS, MINUTES = st.integers(0, SESSIONS - 1), st.integers(-2, 2), st.integers(0, 60 * 24 * 160)
#: Near closes, where it matters, and anywhere
MOMENTS = st.one_of(
    st.builds(lambda row, ticks: instant(CLOSES[row]) + timedelta(microseconds=ticks), ROWS, TICKS),
    st.builds(lambda minutes: BEGIN + timedelta(minutes=minutes), MINUTES),
)
POSTS = st.builds(
    ScoredPost,
    symbols=st.lists(st.sampled_from((*NAMES, "ZZZ")), min_size=1, max_size=3).map(tuple),
    received=MOMENTS,
    score=st.floats(-1, 1),
    confidence=st.floats(0, 1),
    fingerprint=st.sampled_from("abcdefgh"),
    flagged=st.booleans(),
)
RUNS = st.builds(
    lambda source, at, posts, answered: CollectionRun(source, at, tuple(posts), answered),
    st.sampled_from(SOURCES),
    MOMENTS,
    st.lists(POSTS, max_size=4),
    st.booleans(),
)


def columns(runs: list[CollectionRun], closes: np.ndarray = CLOSES) -> np.ndarray:
    return sentiment_features(runs, closes=closes, symbols=NAMES, sources=SOURCES)


def until(runs: list[CollectionRun], close: datetime) -> list[CollectionRun]:
    """Runs and posts up to `close`; a run after it may hold a post that was received before."""
    return [
        CollectionRun(
            run.source, min(run.at, close), tuple(post for post in run.posts if post.received <= close), run.answered and run.at <= close
        )
        for run in runs
    ]


@given(runs=st.lists(RUNS, max_size=25), others=st.lists(RUNS, max_size=8), row=st.integers(0, SESSIONS - 2), order=st.randoms())
def test_what_is_received_after_a_close_changes_no_row_up_to_it(runs, others, row, order) -> None:
    every_close = [CollectionRun("x", instant(close)) for close in CLOSES]
    runs = [*every_close, *runs]
    close = instant(CLOSES[row])
    known = until(runs, close)
    whole = columns(runs)[: row + 1]
    assert columns(known)[: row + 1].tobytes() == whole.tobytes()
    assert columns(known, CLOSES[: row + 1]).tobytes() == whole.tobytes()
    after = close + timedelta(microseconds=1)
    later = []
    for run in others:
        posts = tuple(post for post in run.posts if post.received > close)
        later.append(CollectionRun(run.source, max(run.at, after), posts, run.answered))
    mixed = [*later, *known, *known]
    order.shuffle(mixed)
    assert columns(mixed)[: row + 1].tobytes() == whole.tobytes()
    assert np.isfinite(whole).all()
    assert (np.abs(whole[:, :, :3]) <= 1).all()
