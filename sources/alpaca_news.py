"""Alpaca's news, as the vendor's `/v1beta1/news` has it: headlines about the names asked for, oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from schema.exchange_time import iso, parse_utc
from schema.news import NewsItem
from sources.port import NewsPage
from sources.transport import VendorTransport

PAGE = 50


class AlpacaNews:
    name = "alpaca"

    def __init__(self, *, key_id: str, secret_key: str, url: str) -> None:
        headers = {"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret_key}
        self._transport = VendorTransport(source=self.name, url=url, per_minute=180, headers=headers)

    def news(self, symbols: Sequence[str], *, since: datetime, until: datetime, resume: str | None, limit: int) -> NewsPage:
        start = since if resume is None else max(since, parse_utc(resume) + timedelta(microseconds=1))
        asked = {"symbols": ",".join(symbols), "start": iso(start), "end": iso(until), "sort": "asc", "limit": PAGE}
        items: list[NewsItem] = []
        token: str | None = None
        while len(items) < limit:
            page = self._transport.get("/v1beta1/news", {**asked, **({"page_token": token} if token else {})})
            items += [self._item(article, symbols, received=until) for article in page["news"]]
            token = page["next_page_token"]
            if token is None:
                break
        kept = items[:limit]
        return NewsPage(items=kept, resume=kept[-1].published if kept else None)

    def _item(self, article: dict[str, Any], symbols: Sequence[str], *, received: datetime) -> NewsItem:
        return NewsItem(
            id=str(article["id"]),
            source=self.name,
            published=iso(parse_utc(article["created_at"])),
            received=iso(received),
            symbols=tuple(symbol for symbol in article["symbols"] if symbol in symbols),
            text=article["headline"],
            summary=article["summary"],
            url=article["url"] or "",
            author=article["author"],
            raw=article,
        )
