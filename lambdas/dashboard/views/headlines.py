"""What was written about the names: headlines and posts of a day with their scores, and the mean score of a name beside its closes.

Texts are strangers' words: they are shown as text, and an address is a link only if it is one of the web's. Days are New York's, of the run
that received an item: that is when a decision could know it. What has no score yet has none here; flagged scores count in no mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from urllib.parse import urlsplit

from pydantic import BaseModel

from lambdas.common.lake.news import NewsStore
from lambdas.common.ledger.ledger import CursorError
from lambdas.dashboard.request import PageRequest
from schema.exchange_time import NEW_YORK, iso, new_york_date, parse_utc
from schema.news import NewsItem, ScoredItem

AT_ONCE = 16  # runs that are read together
CURSOR = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\.[a-z]{1,20}\.[0-9]{1,6}$"


class HeadlineView(BaseModel):
    """`text` None: it was kept as long as the settings say. `link` None: the source's address is none of the web's, and is in `address`.
    `score` from -1 to 1, None: not scored yet."""

    source: str
    symbols: tuple[str, ...]
    published: str
    received: str
    text: str | None
    summary: str
    link: str | None
    address: str
    author: str
    score: float | None
    label: str | None
    confidence: float | None
    flag: str | None
    scorer: str | None


class HeadlinesView(BaseModel):
    """The newest first. `last_day`: of the newest run that collected anything, None where nothing was ever collected."""

    day: str
    symbol: str | None
    symbols: tuple[str, ...]
    sources: tuple[str, ...]
    last_day: str | None
    headlines: tuple[HeadlineView, ...]
    cursor: str | None


class SentimentView(BaseModel):
    """A name by day: its close (US dollars, as traded), the mean score of what was written, and how much was scored and how much flagged.
    None: no session, or nothing scored."""

    symbol: str
    days: tuple[str, ...]
    close: tuple[float | None, ...]
    score: tuple[float | None, ...]
    scored: tuple[int, ...]
    flagged: tuple[int, ...]


@dataclass(frozen=True)
class _Run:
    at: datetime
    source: str


def headlines(request: PageRequest, *, symbol: str | None, day: date | None, cursor: str | None, limit: int) -> HeadlinesView:
    """One page of a day; without `day` the last that was collected."""
    store, sources = _store(request), request.settings.news.sources
    last = _last_day(store, sources)
    shown = day or last or new_york_date(parse_utc(request.now))
    rows = _after(cursor, _rows(store, _runs(store, sources, shown), symbol))
    found = list(islice(rows, limit + 1))
    following = found[limit - 1][0] if len(found) > limit else None
    return HeadlinesView(
        day=shown.isoformat(),
        symbol=symbol,
        symbols=tuple(request.settings.universe.symbols),
        sources=tuple(sources),
        last_day=None if last is None else last.isoformat(),
        headlines=tuple(one for _, one in found[:limit]),
        cursor=following,
    )


def sentiment(request: PageRequest, *, symbol: str, until: date | None, days: int) -> SentimentView:
    """The `days` up to `until`; without it up to the last that was collected."""
    sources = request.settings.news.sources
    last = until or _last_day(_store(request), sources) or new_york_date(parse_utc(request.now))
    first = last - timedelta(days=days - 1)
    rows = request.lake.scores(sources=sources, since=_midnight(first), until=_midnight(last + timedelta(days=1)) - timedelta(seconds=1))
    items = [ScoredItem.model_validate(row) for some in rows.values() for row in some if symbol in row["symbols"]]
    closes = _closes(request, symbol, first, last)
    by_day: dict[str, list[ScoredItem]] = {}
    for item in items:
        by_day.setdefault(_day(item.received), []).append(item)
    shown = sorted({*closes, *by_day})
    counted = {one: [item.sentiment.score for item in by_day.get(one, ()) if item.sentiment.flag is None] for one in shown}
    return SentimentView(
        symbol=symbol,
        days=tuple(shown),
        close=tuple(closes.get(one) for one in shown),
        score=tuple(sum(counted[one]) / len(counted[one]) if counted[one] else None for one in shown),
        scored=tuple(len(counted[one]) for one in shown),
        flagged=tuple(len(by_day.get(one, ())) - len(counted[one]) for one in shown),
    )


def web_link(address: str) -> str | None:
    """The address if it is one of the web's, else None: what a script or a file could hide in is shown as text."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    clean = address.isprintable() and " " not in address
    return address if clean and parts.scheme in ("http", "https") and parts.hostname else None


def _store(request: PageRequest) -> NewsStore:
    names = request.variables
    return NewsStore(s3=request.lake.s3, raw_bucket=names.raw_bucket, processed_bucket=names.processed_bucket)


def _last_day(store: NewsStore, sources: Sequence[str]) -> date | None:
    runs = [run for run in (store.state(source).last_run for source in sources) if run is not None]
    return new_york_date(parse_utc(max(runs))) if runs else None


def _runs(store: NewsStore, sources: Sequence[str], day: date) -> list[_Run]:
    """The runs of a day, the newest first."""
    since, until = _midnight(day), _midnight(day + timedelta(days=1)) - timedelta(seconds=1)
    found = [_Run(at, source) for source in sources for at in store.runs(source, since=since, until=until)]
    return sorted(found, key=lambda run: (run.at, run.source), reverse=True)


def _rows(store: NewsStore, runs: Sequence[_Run], symbol: str | None) -> Iterator[tuple[str, HeadlineView]]:
    """Each item of the runs with its place, which a cursor is."""
    for start in range(0, len(runs), AT_ONCE):
        some = runs[start : start + AT_ONCE]
        with ThreadPoolExecutor(max_workers=len(some)) as pool:
            read = list(pool.map(lambda run: (store.items(run.source, run.at), store.scores(run.source, run.at)), some))
        for run, (items, scores) in zip(some, read, strict=True):
            scored = {one.id: one for one in scores or ()}
            ordered = sorted(items or (), key=lambda item: (item.published, item.id), reverse=True)
            for place, item in enumerate(ordered):
                if symbol is None or symbol in item.symbols:
                    yield f"{iso(run.at)}.{run.source}.{place}", _shown(item, scored.get(item.id))


def _after(cursor: str | None, rows: Iterator[tuple[str, HeadlineView]]) -> Iterator[tuple[str, HeadlineView]]:
    """What comes after the place of `cursor`; runs that came meanwhile lie before it."""
    if cursor is None:
        return rows
    try:
        last = _order(cursor)
    except ValueError:
        raise CursorError(f"cursor is not one that this list gave, was {cursor!r}") from None
    return (row for row in rows if _order(row[0]) > last)


def _order(cursor: str) -> tuple[float, tuple[int, ...], int]:
    """Sorts as the rows come: the newest run first, then source by name from the end, then place."""
    at, source, place = cursor.rsplit(".", 2)
    return -parse_utc(at).timestamp(), tuple(-ord(char) for char in source), int(place)


def _shown(item: NewsItem, scored: ScoredItem | None) -> HeadlineView:
    sentiment = None if scored is None else scored.sentiment
    return HeadlineView(
        source=item.source,
        symbols=item.symbols,
        published=item.published,
        received=item.received,
        text=item.text,
        summary=item.summary,
        link=web_link(item.url),
        address=item.url,
        author=item.author,
        score=None if sentiment is None or sentiment.flag is not None else sentiment.score,
        label=None if sentiment is None else sentiment.label,
        confidence=None if sentiment is None else sentiment.confidence,
        flag=None if sentiment is None else sentiment.flag,
        scorer=None if sentiment is None else f"{sentiment.model} {sentiment.version}",
    )


def _closes(request: PageRequest, symbol: str, first: date, last: date) -> dict[str, float]:
    rows = request.lake.bars(symbols=[symbol], years=range(first.year, last.year + 1))
    found = {_day(row["ts"]): float(row["close"]) for row in rows}
    return {day: close for day, close in found.items() if first.isoformat() <= day <= last.isoformat()}


def _day(instant: str) -> str:
    return new_york_date(parse_utc(instant)).isoformat()


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=NEW_YORK).astimezone(UTC)
