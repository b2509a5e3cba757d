"""Finnhub's company news (`/company-news`): headlines by symbol and day, no pages.

One call per symbol, over the whole days that the span touches; what lies outside of the span is left out. An article that is listed under
several symbols is one item of all of them. The vendor says no time but that of publishing, in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field

from schema.exchange_time import iso, parse_utc
from schema.news import NewsItem
from sources.news_records import Gathered, VendorNews, Words, web_address
from sources.port import NewsPage, SourceInvalid
from sources.transport import VendorTransport

URL = "https://finnhub.io/api/v1"
PATH = "/company-news"
PER_MINUTE = 60
DAY = timedelta(days=1)


class _Story(VendorNews):
    id: Annotated[int, Field(ge=0)]
    datetime: Annotated[int, Field(gt=0, lt=253_402_300_800)]  # seconds since 1970, up to the year 9999
    headline: Words
    summary: Words = ""
    related: str = ""
    url: str | None = None


class FinnhubNews:
    """`port.NewsSource`."""

    name = "finnhub"

    def __init__(
        self,
        *,
        token: str,
        url: str = URL,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = VendorTransport(
            source=self.name, url=url, per_minute=PER_MINUTE, params={"token": token}, sleep=sleep, clock=clock
        )

    def news(self, symbols: Sequence[str], *, since: datetime, until: datetime, resume: str | None, limit: int) -> NewsPage:
        """As `NewsSource.news` promises; `resume` is the time and id of the last item where `limit` cut more off."""
        after = (int(since.timestamp()) - 1, _LAST) if resume is None else _resume(resume)
        first = datetime.fromtimestamp(after[0], UTC).date() - DAY
        days = {"from": first.isoformat(), "to": until.astimezone(UTC).date().isoformat()}
        gathered = Gathered(source=self.name, symbols=frozenset(symbols), received=until)
        for symbol in symbols:
            answer = self._transport.get(PATH, {"symbol": symbol, **days})
            if not isinstance(answer, list):
                raise SourceInvalid(f"finnhub: {PATH} must be a list, was {self._transport.shown(answer)}")
            for record in answer:
                self._add(gathered, symbol, record, after=after)
        items = sorted(gathered.items.values(), key=_order)
        rest = items[limit:]
        last = _order(items[limit - 1]) if rest else None
        return NewsPage(
            items=items[:limit],
            resume=f"{last[0]}:{last[1]}" if last else None,
            invalid=gathered.invalid,
            read=gathered.read,
        )

    def _add(self, gathered: Gathered, symbol: str, record: Any, *, after: tuple[int, int]) -> None:
        story = gathered.record(_Story, record)
        if story is None or (story.datetime, story.id) <= after:
            return
        named = {symbol, *(name.strip() for name in story.related.split(","))}
        item = gathered.add(
            record,
            symbols=named,
            id=str(story.id),
            published=iso(datetime.fromtimestamp(story.datetime, UTC)),
            text=story.headline,
            summary=story.summary,
            url=web_address(story.url),
        )
        if item is not None and symbol not in item.symbols:
            gathered.items[item.id] = item.model_copy(update={"symbols": tuple(sorted({*item.symbols, symbol}))})


#: Above every id.
_LAST = 2**63


def _order(item: NewsItem) -> tuple[int, int]:
    return int(parse_utc(item.published).timestamp()), int(item.id)


def _resume(text: str) -> tuple[int, int]:
    seconds, _, identity = text.partition(":")
    if not (seconds.isdigit() and identity.isdigit()):
        raise SourceInvalid(f"finnhub: resume must be what an earlier page returned, was {text[:60]!r}")
    return int(seconds), int(identity)
