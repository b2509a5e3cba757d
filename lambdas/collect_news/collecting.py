"""What one scheduled run does: collect what is new of each source, score what is not scored, keep texts no longer than allowed.

Promises: an object per source that answered, empty if it had nothing, and none where it was down; an item is stored once, by its id, with
the `received` of the run that was first; a run that is repeated asks again only where it has no object yet; what was asked to be forgotten
is removed before anything is collected, and never comes back. A run that dies loses nothing: the next goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lambdas.collect_news.post_budget import BILLED, PAGE_MAX, PostBudget, SharePaused
from lambdas.common.lake.lake import LakeError
from lambdas.common.lake.news import NewsStore
from lambdas.common.telemetry import logger
from schema.exchange_time import iso, parse_utc
from schema.news import NewsItem, ScoredItem
from schema.sections.news import RETENTION_DAYS, NewsSettings
from sources.port import NewsPage, NewsSource, SourceError, SourceLimited, SourceRefused, SourceUnavailable

BEGINNING = timedelta(days=3)  # how far the first run looks back
OVERLAP = timedelta(hours=2)  # in which what arrives late is still seen
KNOWN = timedelta(days=4)  # of these runs, ids are not stored again; longer than the beginning
ITEMS_PER_RUN = 10_000
FIRST = datetime(2000, 1, 1, tzinfo=UTC)  # before any run


@dataclass(frozen=True, kw_only=True)
class Collected:
    """`items`: how many each source that answered has in the object of this run; `invalid`: how many records could not be read and are in
    quarantine; `down`: why a source did not answer, one line each; `paused`: why one was not asked that is paid for, and will be."""

    items: Mapping[str, int]
    invalid: int
    down: Mapping[str, str]
    paused: Mapping[str, str] = field(default_factory=dict)


def collect(*, sources: Sequence[NewsSource], store: NewsStore, symbols: Sequence[str], run: datetime, settings: NewsSettings) -> Collected:
    """Store what each source published on `symbols` since the last run; one that raises a `SourceError` is down, and the others go on.

    `run` is the scheduled time, which every item is stamped with. What S3 refuses is raised: nobody would know what was stored.
    """
    forget_requested(store=store, run=run)
    items: dict[str, int] = {}
    down: dict[str, str] = {}
    paused: dict[str, str] = {}
    invalid = 0
    for source in sources:
        try:
            stored, unread = _collected(source, store=store, symbols=symbols, run=run, settings=settings)
        except SharePaused as pause:
            paused[source.name] = str(pause)
            logger.info("source is paused", extra={"source": source.name, "reason": str(pause)})
            continue
        except SourceError as error:
            down[source.name] = " ".join(str(error).split())
            logger.warning("source is down", extra={"source": source.name, "error": down[source.name]})
            continue
        items[source.name] = stored
        invalid += unread
    return Collected(items=items, invalid=invalid, down=down, paused=paused)


def score_pending(
    *,
    store: NewsStore,
    run: datetime,
    sources: Sequence[str],
    score: Callable[[Sequence[NewsItem]], list[ScoredItem]],
    days: int = 3,
) -> int:
    """Score what was collected in the last `days` and is not scored, oldest first; return how many items were.

    `score` returns a score per item, in their order, flagged where it has none; `LakeError` if it does not, and nothing of it is stored.
    """
    since = run - timedelta(days=days)
    pending = [
        (moment, source)
        for source in sources
        for moment in set(store.runs(source, since=since, until=run)).difference(store.scored_runs(source, since=since, until=run))
    ]
    count = 0
    for moment, source in sorted(pending):
        items = store.items(source, moment) or []
        scores = score(items) if items else []
        if [one.id for one in scores] != [item.id for item in items]:
            raise LakeError(f"{len(items)} items of {source} at {iso(moment)} were scored as {len(scores)} others")
        store.put_scores(source, moment, scores)
        count += len(items)
    return count


def retain(*, store: NewsStore, run: datetime, settings: NewsSettings) -> int:
    """Remove texts, summaries, addresses, authors and raw records that are older than their source's days; return of how many items.

    Ids, times, symbols and scores stay. What could not be read is removed as a whole. Also of sources that are not collected any more.
    """
    stripped = 0
    for source in RETENTION_DAYS:
        before = run - timedelta(days=settings.kept_days(source))
        state = store.state(source)
        since = FIRST if state.stripped_before is None else parse_utc(state.stripped_before)
        due = store.runs(source, since=since, until=before)
        stripped += sum(store.strip(source, moment) for moment in due)
        for moment in store.quarantined_runs(source, since=since, until=before):
            store.drop_quarantine(source, moment)
        if before > since and state.last_run is not None:
            store.put_state(source, state.model_copy(update={"stripped_before": iso(before)}))
    return stripped


def forget_requested(*, store: NewsStore, run: datetime) -> int:
    """Remove everywhere what somebody asked to forget (`papertape forget`); return how many lines that were."""
    return sum(store.forget(source, identities, at=run) for source, identities in sorted(store.requested().items()))


def _collected(source: NewsSource, *, store: NewsStore, symbols: Sequence[str], run: datetime, settings: NewsSettings) -> tuple[int, int]:
    """Collect one source; return how many items the run's object has, and how many records could not be read."""
    name, state = source.name, store.state(source.name)
    already = store.items(name, run)
    if already is not None:
        return len(already), 0
    if state.last_run is not None and parse_utc(state.last_run) > run:
        raise SourceUnavailable(f"{name}: the run of {state.last_run} was before this one of {iso(run)} and has collected what there was")
    since = run - BEGINNING if state.newest is None else min(parse_utc(state.newest) - OVERLAP, run)
    page = _page(source, store=store, symbols=symbols, since=since, run=run, resume=state.resume, settings=settings)
    known = store.ids(name, since=min(since, run - KNOWN), until=run) | store.forgotten(name)
    fresh = list({item.id: item for item in page.items if item.id not in known}.values())
    invalid = _new_invalid(store, name, page.invalid, since=since, run=run)
    store.quarantine(name, run, invalid)
    store.put_items(name, run, fresh)
    newest = max((*((state.newest,) if state.newest else ()), *(_seen(item) for item in page.items)), key=parse_utc, default=None)
    store.put_state(name, state.model_copy(update={"last_run": iso(run), "newest": newest, "resume": page.resume}))
    return len(fresh), len(invalid)


def _page(
    source: NewsSource,
    *,
    store: NewsStore,
    symbols: Sequence[str],
    since: datetime,
    run: datetime,
    resume: str | None,
    settings: NewsSettings,
) -> NewsPage:
    """Ask the source, within its budget if it bills what is read."""
    if source.name not in BILLED:
        return source.news(symbols, since=since, until=run, resume=resume, limit=ITEMS_PER_RUN)
    budget = PostBudget(store=store, source=source.name, run=run, per_month=settings.x_posts_per_month)
    booked = budget.book(ITEMS_PER_RUN)
    try:
        page = source.news(symbols, since=since, until=run, resume=resume, limit=booked)
    except (SourceLimited, SourceRefused):  # the vendor answered, and sent no posts
        budget.correct(booked=booked, read=0)
        raise
    except SourceError:
        budget.correct(booked=booked, read=min(booked, PAGE_MAX))
        raise
    budget.correct(booked=booked, read=page.read)
    return page


def _new_invalid(
    store: NewsStore, source: str, invalid: Sequence[tuple[str, dict[str, Any]]], *, since: datetime, run: datetime
) -> list[tuple[str, dict[str, Any]]]:
    """Those records that no run has kept apart since: a source sends them again as long as it sends what was published beside them."""
    if not invalid:
        return []
    runs = store.quarantined_runs(source, since=since, until=run)
    known = {row["record"] for moment in runs for row in store.quarantined(source, moment)}
    return [(reason, record) for reason, record in invalid if json.dumps(record) not in known]


def _seen(item: NewsItem) -> str:
    """When it was published, or received if it says that it comes from the future."""
    return min(item.published, item.received, key=parse_utc)
