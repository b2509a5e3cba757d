"""A server of news on 127.0.0.1 that speaks as Alpaca, Finnhub and X do, as far as the adapters and the vendors' own clients ask.

Posts are the tests' own words. Its answers are validated against the vendors' descriptions in tests/contract/sources.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from schema.exchange_time import parse_utc
from sources.alpaca_news import AlpacaNews
from sources.finnhub_news import FinnhubNews
from sources.port import NewsSource
from sources.x_search import EPOCH_MS, XSearch

KEY = "a-key-of-the-tests"
NOON = datetime(2026, 11, 20, 17, tzinfo=UTC)
SYMBOLS = ("AAPL", "BAC", "SPY")

Behaviour = Callable[[BaseHTTPRequestHandler], None]
Answer = tuple[int, Any]
NOT_FOUND: Answer = (404, {"message": "not found"})


@dataclass(frozen=True)
class Post:
    """Something published; `change` replaces fields of the vendor's record."""

    number: int
    at: datetime = NOON
    symbols: tuple[str, ...] = ("AAPL",)
    text: str = "Apple sells more telephones"
    updated: datetime | None = None
    change: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def post_id(self) -> int:
        return ((int(self.at.timestamp() * 1000) - EPOCH_MS) << 22) + self.number


@dataclass
class Newsroom:
    """What is published, what was asked, and what the next requests get instead of an answer."""

    posts: list[Post] = field(default_factory=list)
    instead: list[Behaviour] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0
    _found: dict[tuple[object, ...], list[Post]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def forget(self) -> None:
        self.posts, self.instead, self.asked, self._found = [], [], [], {}

    def answer(self, path: str, query: dict[str, str], headers: Mapping[str, str]) -> Answer:
        self.asked.append((path, query))
        vendors = {"/v1beta1/news": self._alpaca, "/company-news": self._finnhub, "/2/tweets/search/recent": self._x}
        return vendors[path](query, headers) if path in vendors else NOT_FOUND

    def _alpaca(self, query: dict[str, str], headers: Mapping[str, str]) -> Answer:
        if headers.get("APCA-API-KEY-ID") != KEY:
            return 401, {"message": "unauthorized."}
        size = int(query.get("limit") or 10)
        if not 1 <= size <= 50:
            return 400, {"message": "invalid limit"}
        names = set(query["symbols"].split(","))
        start, end = parse_utc(query["start"]), parse_utc(query["end"])
        found = [post for post in self.posts if names.intersection(post.symbols) and start <= (post.updated or post.at) <= end]
        found.sort(key=lambda post: post.updated or post.at, reverse=query.get("sort") != "asc")
        first = int(query.get("page_token") or 0)
        following = str(first + size) if first + size < len(found) else None
        return 200, {"news": [article(post) for post in found[first : first + size]], "next_page_token": following}

    def _finnhub(self, query: dict[str, str], _headers: Mapping[str, str]) -> Answer:
        if query.get("token") != KEY:
            return 401, {"error": "Invalid API key"}
        found = [post for post in self.posts if query["symbol"] in post.symbols and query["from"] <= f"{post.at:%Y-%m-%d}" <= query["to"]]
        return 200, [story(post, query["symbol"]) for post in sorted(found, key=lambda post: post.at, reverse=True)]

    def _x(self, query: dict[str, str], headers: Mapping[str, str]) -> Answer:
        if headers.get("Authorization") != f"Bearer {KEY}":
            return 401, {"title": "Unauthorized", "type": "about:blank", "status": 401, "detail": "Unauthorized"}
        size = int(query.get("max_results") or 10)
        if not 10 <= size <= 100 or len(query["query"]) > 512:
            return 400, {"title": "Invalid Request", "type": "https://api.twitter.com/2/problems/invalid-request"}
        names = set(re.findall(r"\$([A-Z.]+)", query["query"]))
        start, end = (parse_utc(query[name]) if name in query else None for name in ("start_time", "end_time"))
        asked = (len(self.posts), *sorted((name, value) for name, value in query.items() if name not in {"next_token", "max_results"}))
        found = self._found.get(asked) or [
            post
            for post in self.posts
            if names.intersection(post.symbols)
            and (start is None or post.at >= start)
            and (end is None or post.at < end)
            and int(query.get("since_id", 0)) < post.post_id < int(query.get("until_id", 2**63))
        ]
        found.sort(key=lambda post: post.post_id, reverse=True)
        self._found = {asked: found}  # for the next page
        first = int(query.get("next_token", "page0").removeprefix("page"))
        shown = [tweet(post) for post in found[first : first + size]]
        meta: dict[str, Any] = {"result_count": len(shown)}
        if not shown:
            return 200, {"meta": meta}
        meta |= {"newest_id": shown[0]["id"], "oldest_id": shown[-1]["id"]}
        if first + size < len(found):
            meta["next_token"] = f"page{first + size}"
        return 200, {"data": shown, "meta": meta}


def article(post: Post) -> dict[str, Any]:
    return {
        "id": post.number,
        "headline": post.text,
        "author": "A. Reporter",
        "created_at": f"{post.at:%Y-%m-%dT%H:%M:%SZ}",
        "updated_at": f"{post.updated or post.at:%Y-%m-%dT%H:%M:%SZ}",
        "summary": "In short.",
        "content": "-",
        "images": [],
        "symbols": list(post.symbols),
        "source": "benzinga",
        "url": f"https://news.example/{post.number}",
        **post.change,
    }


def story(post: Post, symbol: str) -> dict[str, Any]:
    return {
        "category": "company",
        "datetime": int(post.at.timestamp()),
        "headline": post.text,
        "id": post.number,
        "image": "",
        "related": symbol,
        "source": "Example",
        "summary": "In short.",
        "url": f"https://news.example/{post.number}",
        **post.change,
    }


def tweet(post: Post) -> dict[str, Any]:
    tags = [{"start": 0, "end": 1, "tag": symbol} for symbol in post.symbols]
    return {
        "id": str(post.post_id),
        "text": post.text,
        "created_at": f"{post.at:%Y-%m-%dT%H:%M:%S.000Z}",
        "author_id": "42",
        "lang": "en",
        "edit_history_tweet_ids": [str(post.post_id)],
        "entities": {"cashtags": tags},
        **post.change,
    }


def ident(vendor: str, post: Post) -> str:
    """The post's id as the vendor's adapter gives it."""
    return str(post.post_id if vendor == "x" else post.number)


def source_of(vendor: str, url: str, *, key: str = KEY, sleep: Callable[[float], None] = lambda _: None) -> NewsSource:
    """The vendor's adapter, asking the newsroom at `url`; it never really waits, and its budget is of the whole test."""
    if vendor == "alpaca":
        return AlpacaNews(key_id=key, secret_key="secret-of-the-tests", url=url, sleep=sleep)
    if vendor == "finnhub":
        return FinnhubNews(token=key, url=url, sleep=sleep)
    return XSearch(bearer=key, url=url, sleep=sleep)


def many(count: int, *, every: timedelta = timedelta(seconds=30), until: datetime = NOON) -> list[Post]:
    """So many posts, the last one a minute before `until`."""
    first = until - timedelta(minutes=1) - every * (count - 1)
    return [Post(number, at=first + every * number, symbols=(SYMBOLS[number % 3],), text=f"Headline {number}") for number in range(count)]


def says(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response_only(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return behave


def half_a_body(handler: BaseHTTPRequestHandler) -> None:
    """Announce more than is sent."""
    handler.send_response_only(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"news": [{"id": 1, "headl')
    handler.close_connection = True


@contextmanager
def open_newsroom() -> Iterator[Newsroom]:
    room = Newsroom()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # an answer is one segment, which no delayed acknowledgement holds up

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if room.instead:
                room.asked.append((parts.path, query))
                room.instead.pop(0)(self)
            else:
                says(*room.answer(parts.path, query, self.headers))(self)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    room.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield room
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
