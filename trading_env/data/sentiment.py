"""Scored posts to features of each name at each close: one function for the nightly table, for `decide` and for research.

The promises:

- Only what was received at or before a session's close enters its row; posts of the night and the weekend belong to the next session.
- Cutting or changing what was received after close t leaves every row at or before t bit-identical; so do another order and what is
  delivered twice. A row depends on `LOOKBACK` closes before it and on posts from `earliest_post` on: a reader that brings no more
  than these gets the bits of one that brings all.
- Many posts become one number with a count, never one post alone: a mean is shrunk by `PRIOR` posts that say nothing. A repost is no
  post, and what is flagged counts for nothing.
- No answer is no zero: where no source answered before the close, `sentiment_known` is 0 and says that the neutral rest means nothing.

`SENTIMENT` is the table. `TABLES` names what a model may be trained on: the features without it, or with it behind them; each has a hash.
Posts, closes or sources that cannot be used raise `SentimentError` with the value and what is allowed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt

from trading_env.data.bars import Array, Sessions
from trading_env.data.features import FEATURE_HASH, FEATURES, Feature
from trading_env.errors import PapertapeError

FAST_HOURS, FAST_SESSIONS = 12.0, 5  # half-life, and where its tail is cut
SLOW_DAYS, SLOW_SESSIONS = 5.0, 21
PRIOR = 3.0  # posts of full confidence that say nothing
COUNTED, LEAST_COUNTED = 63, 21  # sessions that a count is compared with, and how few of them may be known
REPOST_DAYS = 21.0
ANSWERED_HOURS = 6.5  # the length of a session
LOOKBACK = COUNTED + 1  # closes before a row's own that it depends on

HOUR = 3_600_000_000  # microseconds
Instants = npt.NDArray[np.datetime64]
Ticks = npt.NDArray[np.int64]


class SentimentError(PapertapeError, ValueError):
    """Posts that columns cannot be computed from; the message has the value and what is allowed."""


@dataclass(frozen=True)
class ScoredPost:
    """What counts of a post: `received` (aware), which alone decides what a decision could know, and the score of -1 to 1 with a confidence
    of 0 to 1. `fingerprint`: of the text, the same for a repost. `flagged`: the score says nothing."""

    symbols: tuple[str, ...]
    received: datetime
    score: float
    confidence: float
    fingerprint: str
    flagged: bool = False

    def __post_init__(self) -> None:
        if not (-1 <= self.score <= 1 and 0 <= self.confidence <= 1):
            raise SentimentError(
                f"a score must lie in [-1, 1] and a confidence in [0, 1], was {self.score} and {self.confidence} in {self.fingerprint}"
            )
        _ticks(self.received)


@dataclass(frozen=True)
class CollectionRun:
    """One answer of a source: what was collected at `at` (aware), perhaps nothing. A source that was down has no run. `answered` is False
    when there were posts and nobody to score them."""

    source: str
    at: datetime
    posts: tuple[ScoredPost, ...] = ()
    answered: bool = True


_POSTS = f"the name's posts without flag and reposts (same fingerprint within {REPOST_DAYS:g} days)"
_NEUTRAL = "0 where sentiment_known = 0"


def _mean(weight: str, sessions: int) -> str:
    return f"sum(u score) / ({PRIOR:g} + sum(u)), u = confidence 2^-({weight}), over {_POSTS} of the last {sessions} sessions; {_NEUTRAL}"


SENTIMENT: tuple[Feature, ...] = (
    Feature("sentiment", _mean(f"age in hours / {FAST_HOURS:g}", FAST_SESSIONS), FAST_SESSIONS + 1, "score"),
    Feature("sentiment_slow", _mean(f"age in days / {SLOW_DAYS:g}", SLOW_SESSIONS), SLOW_SESSIONS + 1, "score"),
    Feature(
        "sentiment_dispersion",
        f"sqrt(sum(u (score - m)^2) / ({PRIOR:g} + sum(u))), u and posts as of sentiment_slow, m = sum(u score) / sum(u); 0 of one post",
        SLOW_SESSIONS + 1,
        "score",
    ),
    Feature(
        "sentiment_count_z",
        f"(n - mean) / max(std, 1), within [-5, 5], n = {_POSTS} since the close before, mean and std of n in those of the {COUNTED} "
        f"sessions before t with sentiment_known > 0; 0 for fewer than {LEAST_COUNTED} of them; {_NEUTRAL}",
        COUNTED + 2,
        "z",
    ),
    Feature(
        "sentiment_recency",
        f"1 / (1 + days since the newest of the posts of sentiment_slow), 0 without one; {_NEUTRAL}",
        SLOW_SESSIONS + 1,
        "share",
    ),
    Feature("sentiment_known", f"share of the sources that answered, scored, in the {ANSWERED_HOURS:g} hours up to the close", 1, "share"),
)
SENTIMENT_NAMES = tuple(feature.name for feature in SENTIMENT)


def _hash() -> str:
    table = [[f.name, f.formula, f.window, f.unit] for f in SENTIMENT]
    return hashlib.sha256(json.dumps([FEATURE_HASH, table], separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class FeatureTable:
    """The columns of each name, in order, and the hash that a model trained on them names."""

    features: tuple[str, ...]
    hash: str

    @property
    def width(self) -> int:
        return len(self.features)


_PRICES = FeatureTable(tuple(feature.name for feature in FEATURES), FEATURE_HASH)
#: By the word of `[features] sentiment`.
TABLES: Mapping[str, FeatureTable] = {"none": _PRICES, "daily": FeatureTable((*_PRICES.features, *SENTIMENT_NAMES), _hash())}


def closes_of(sessions: Sessions, closes: Mapping[date, datetime]) -> Instants:
    """(T,) the instants at which the sessions closed, from a calendar's (aware). Raises SentimentError for a session that it lacks."""
    days = [day.astype(object) for day in sessions.astype("datetime64[D]")]
    if absent := [day for day in days if day not in closes]:
        raise SentimentError(f"the calendar must have the close of every session, that of {absent[0]} is missing; run backfill_bars")
    return np.array([_ticks(closes[day]) for day in days], dtype=np.int64).view("datetime64[us]")


def earliest_post(closes: Instants) -> datetime:
    """From when on posts can matter to the last of these closes."""
    first = closes[max(len(closes) - 1 - LOOKBACK, 0)].astype("datetime64[us]").astype(object)
    moment: datetime = first.replace(tzinfo=UTC) - timedelta(days=REPOST_DAYS)
    return moment


def sentiment_features(runs: Iterable[CollectionRun], *, closes: Instants, symbols: Sequence[str], sources: Sequence[str]) -> Array:
    """The columns of `SENTIMENT`, (T, A, len(SENTIMENT)), always finite.

    Args:
        runs: in any order; posts of other names and runs of other sources than `sources` count for nothing.
        closes: (T,) datetime64 in UTC, strictly increasing.
        symbols: the names, in the order of the A axis.
        sources: those that should have answered, at least one.
    """
    if not sources:
        raise SentimentError("sentiment needs at least one source in [news] sources, there is none")
    ticks = closes.astype("datetime64[us]").astype(np.int64)
    if (np.diff(ticks) <= 0).any():
        raise SentimentError(f"closes must be strictly increasing, was {closes[1:][np.diff(ticks) <= 0][0]} after one as late")
    own = [run for run in runs if run.source in set(sources)]
    known = _known(own, ticks, sources)
    result = np.zeros((len(ticks), len(symbols), len(SENTIMENT)))
    result[:, :, -1] = known[:, None]
    for column, posts in enumerate(_posts(own, symbols)):
        result[:, column, :-1] = posts.columns(ticks, known)
    return result


def _known(runs: Sequence[CollectionRun], closes: Ticks, sources: Sequence[str]) -> Array:
    """(T,) share of the sources with an answer in the hours up to each close."""
    answered = np.zeros(len(closes))
    for source in dict.fromkeys(sources):
        at = np.sort(np.array([_ticks(run.at) for run in runs if run.source == source and run.answered], dtype=np.int64))
        since = closes - int(ANSWERED_HOURS * HOUR)
        answered += np.searchsorted(at, closes, side="right") > np.searchsorted(at, since, side="right")
    return np.asarray(answered / len(set(sources)))


@dataclass(frozen=True)
class _Posts:
    """The posts of one name that count, in the order in which they were received."""

    received: Ticks
    scores: Array
    confidences: Array

    def columns(self, closes: Ticks, known: Array) -> Array:
        """(T, len(SENTIMENT) - 1) of this name; 0 in rows that are not known."""
        rows, upto = np.arange(len(closes)), np.searchsorted(self.received, closes, side="right")
        fast = upto[np.maximum(rows - FAST_SESSIONS, 0)]
        slow = upto[np.maximum(rows - SLOW_SESSIONS, 0)]
        values = np.zeros((len(closes), len(SENTIMENT) - 1))
        for row in np.flatnonzero((upto > slow) & (known > 0)):
            close, last = closes[row], upto[row]
            values[row, 0], _ = self._mean(slice(fast[row], last), close, FAST_HOURS)
            values[row, 1], values[row, 2] = self._mean(slice(slow[row], last), close, SLOW_DAYS * 24)
            values[row, 4] = 1 / (1 + (close - self.received[last - 1]) / (24 * HOUR))
        values[:, 3] = _count_scores(np.diff(upto, prepend=upto[:1]), known)
        return values

    def _mean(self, which: slice, close: np.int64, half_life: float) -> tuple[float, float]:
        """The shrunken mean of some posts, and their dispersion; `half_life` in hours."""
        scores = self.scores[which]
        if not len(scores):
            return 0.0, 0.0
        weights = self.confidences[which] * np.exp2((self.received[which] - close) / HOUR / half_life)
        mass, total = np.add.reduce(weights), np.add.reduce(weights * scores)
        if len(scores) == 1 or mass == 0:
            return total / (PRIOR + mass), 0.0
        spread = np.add.reduce(weights * (scores - total / mass) ** 2)
        return total / (PRIOR + mass), float(np.sqrt(spread / (PRIOR + mass)))


def _count_scores(counts: npt.NDArray[np.int64], known: Array) -> Array:
    """(T,) of counts since the close before, which the first row has none of. Sums of whole numbers: exact, in whatever order."""
    heard = known > 0
    heard_before = heard.copy()
    heard_before[:1] = False
    number, total, square = (
        np.concatenate([[0], np.cumsum(np.where(heard_before, values, 0))]) for values in (np.ones_like(counts), counts, counts * counts)
    )
    rows = np.arange(len(counts))
    first = np.maximum(rows - COUNTED, 0)
    n, s, q = (sums[rows] - sums[first] for sums in (number, total, square))
    enough = heard & (n >= LEAST_COUNTED)
    n = np.maximum(n, 1)
    deviation = np.sqrt(n * q - s * s) / n
    return np.where(enough, np.clip((counts - s / n) / np.maximum(deviation, 1.0), -5.0, 5.0), 0.0)


def _posts(runs: Sequence[CollectionRun], symbols: Sequence[str]) -> list[_Posts]:
    """For each name what counts, whatever order it came in."""
    lines: dict[str, set[tuple[int, str, float, float]]] = {symbol: set() for symbol in symbols}
    for run in runs:
        for post in run.posts:
            if not post.flagged:
                for symbol in lines.keys() & set(post.symbols):
                    lines[symbol].add((_ticks(post.received), post.fingerprint, post.score, post.confidence))
    return [_counted(sorted(lines[symbol])) for symbol in symbols]


def _counted(posts: Sequence[tuple[int, str, float, float]]) -> _Posts:
    last: dict[str, int] = {}
    kept = []
    for post in posts:
        before, last[post[1]] = last.get(post[1]), post[0]
        if before is None or post[0] - before > REPOST_DAYS * 24 * HOUR:
            kept.append(post)
    received = np.array([post[0] for post in kept], dtype=np.int64)
    scores, confidences = (np.array([post[place] for post in kept], dtype=np.float64) for place in (2, 3))
    return _Posts(received, scores, confidences)


def _ticks(moment: datetime) -> int:
    """Microseconds since 1970, exact."""
    if moment.tzinfo is None:
        raise SentimentError(f"a time must have its zone, was {moment.isoformat()}")
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
