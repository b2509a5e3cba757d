# ruff: noqa: ARG001
"""What is new from each source into the raw lake, and its scores beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lambdas.common.lake.news import NewsStore
from schema.news import NewsItem, ScoredItem
from schema.sections.news import NewsSettings
from sources.port import NewsSource, SourceError

LIMIT = 10_000
BEFORE = timedelta(days=3)


@dataclass(frozen=True, kw_only=True)
class Collected:
    """`items` by source that answered; `down`: why the others did not."""

    items: Mapping[str, int]
    invalid: int
    down: Mapping[str, str]


def collect(*, sources: Sequence[NewsSource], store: NewsStore, symbols: Sequence[str], run: datetime, settings: NewsSettings) -> Collected:
    items, down, invalid = {}, {}, 0
    for source in sources:
        earlier = [one for one in store.runs(source.name, since=run - BEFORE) if one < run]
        try:
            page = source.news(symbols, since=max(earlier, default=run - BEFORE), until=run, resume=None, limit=LIMIT)
        except SourceError as error:
            down[source.name] = str(error)
            continue
        known = {item.id for one in earlier[-1:] for item in store.news(source.name, one)}
        new = [item for item in page.items if item.id not in known]
        store.put_news(source.name, run, new)
        items[source.name], invalid = len(new), invalid + len(page.invalid)
    return Collected(items=items, invalid=invalid, down=down)


def score_pending(
    *,
    store: NewsStore,
    run: datetime,
    sources: Sequence[str],
    score: Callable[[Sequence[NewsItem]], list[ScoredItem]],
    days: int = 3,
) -> int:
    count = 0
    for source in sources:
        for one in store.runs(source, since=run - timedelta(days=days)):
            if not store.is_scored(source, one):
                found = score(store.news(source, one))
                store.put_scores(source, one, found)
                count += len(found)
    return count


def retain(*, store: NewsStore, run: datetime, settings: NewsSettings) -> int:
    return 0
