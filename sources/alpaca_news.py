"""Alpaca's news (`/v1beta1/news`, Market Data API 1.1): headlines by symbol, oldest first, 50 per page.

The vendor sorts and filters by `updated_at`; `published` is `created_at`. So what was published before `since` and only updated since is
not news, and is left out. Where a call ends before the vendor's last record, `resume` names the update that it ended with.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schema.exchange_time import iso, parse_utc
from sources.answers import pages
from sources.news_records import Gathered, Moment, Name, VendorNews, Words, field_of, web_address
from sources.port import NewsPage, SourceInvalid
from sources.transport import VendorTransport

URL = "https://data.alpaca.markets"
PATH = "/v1beta1/news"
PAGE = 50
PER_MINUTE = 200


class _Article(VendorNews):
    id: Annotated[int, Field(ge=0)]
    headline: Words
    created_at: Moment
    updated_at: Moment
    symbols: list[str]
    summary: Words = ""
    author: Name = ""
    url: str | None = None


class _Resume(BaseModel):
    """Continue with what was updated at `updated`, but for these ids; `since`: what the call that ended early was asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    since: str
    updated: str
    ids: tuple[int, ...]


class AlpacaNews:
    """`port.NewsSource`. `url` is the data endpoint's; the keys are those of the broker."""

    name = "alpaca"

    def __init__(
        self,
        *,
        key_id: str,
        secret_key: str,
        url: str = URL,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        keys = {"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret_key}
        self._transport = VendorTransport(source=self.name, url=url, per_minute=PER_MINUTE, headers=keys, sleep=sleep, clock=clock)

    def news(self, symbols: Sequence[str], *, since: datetime, until: datetime, resume: str | None, limit: int) -> NewsPage:
        """As `NewsSource.news` promises; `resume` is None as soon as the last page was read."""
        goes_on = None if resume is None else _resume(resume)
        oldest = since if goes_on is None else parse_utc(goes_on.since)
        query = {
            "symbols": ",".join(symbols),
            "start": iso(since) if goes_on is None else goes_on.updated,
            "end": iso(until),
            "sort": "asc",
            "limit": PAGE,
        }
        gathered = Gathered(source=self.name, symbols=frozenset(symbols), received=until)
        updated, ids = (goes_on.updated, set(goes_on.ids)) if goes_on else ("", set[int]())
        for record in pages(lambda token: self._page(query, token), source=self.name):
            if len(gathered.items) == limit:
                left = _Resume(since=iso(oldest), updated=updated, ids=tuple(sorted(ids)))
                return _page_of(gathered, left.model_dump_json())
            article = gathered.record(_Article, record)
            if article is None or (article.updated_at == updated and article.id in ids):
                continue
            ids = {article.id} if article.updated_at != updated else ids | {article.id}
            updated = article.updated_at
            if parse_utc(article.created_at) >= oldest:
                _add(gathered, article, record)
        return _page_of(gathered, None)

    def _page(self, query: dict[str, Any], token: str | None) -> tuple[Sequence[Any], Any]:
        answer = self._transport.get(PATH, query | ({"page_token": token} if token else {}))
        return field_of(answer, "news", list, transport=self._transport), answer.get("next_page_token")


def _add(gathered: Gathered, article: _Article, record: dict[str, Any]) -> None:
    gathered.add(
        record,
        symbols=article.symbols,
        id=str(article.id),
        published=article.created_at,
        text=article.headline,
        summary=article.summary,
        author=article.author,
        url=web_address(article.url),
    )


def _page_of(gathered: Gathered, resume: str | None) -> NewsPage:
    items = sorted(gathered.items.values(), key=lambda item: (parse_utc(item.published), int(item.id)))
    return NewsPage(items=items, resume=resume, invalid=gathered.invalid, read=gathered.read)


def _resume(text: str) -> _Resume:
    try:
        return _Resume.model_validate(json.loads(text))
    except (ValueError, ValidationError):
        raise SourceInvalid(f"alpaca: resume must be what an earlier page returned, was {text[:60]!r}") from None
