"""X's recent search (API v2, `/2/tweets/search/recent`): posts with a cashtag of the names, in English, without reposts.

X bills each post that it sends, so none is asked for twice: `resume` holds, for each query, the id up to which all was read. X sends the
newest first. Where a call ends at its limit, the newest of the span were read; `resume` names what is left below them, and the next call
reads that before anything newer. X shows seven days; what was left for longer is gone. A call that fails after some posts were read ends
there as at a limit, for they are paid for; it raises if none was read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schema.exchange_time import iso, parse_utc
from sources.news_records import Gathered, Moment, Name, VendorNews, Words, field_of
from sources.port import NewsPage, SourceError, SourceInvalid, SourceLimited
from sources.transport import VendorTransport

URL = "https://api.x.com"
PATH = "/2/tweets/search/recent"
FIELDS = "author_id,created_at,entities,lang,note_tweet"
PAGE_MIN, PAGE_MAX = 10, 100
PER_MINUTE = 150  # 450 in 15 minutes are allowed
LONGEST_QUERY = 512
ONLY = " lang:en -is:retweet"
SHOWN = timedelta(days=7) - timedelta(minutes=5)
#: X refuses an end within the last ten seconds; what was published since comes with the next call.
SETTLED = timedelta(seconds=15)
EPOCH_MS = 1_288_834_974_657  # an id's upper bits are the milliseconds since then
CASHTAG = re.compile(r"\$([A-Za-z]{1,6}(?:[._][A-Za-z]{1,2})?)\b")
PostId = Annotated[str, Field(pattern=r"^[0-9]{1,19}$")]


class _Cashtag(VendorNews):
    tag: str


class _Entities(VendorNews):
    cashtags: list[_Cashtag] | None = None


class _LongPost(VendorNews):
    text: Words
    entities: _Entities | None = None


class _Post(VendorNews):
    id: PostId
    text: Words
    created_at: Moment
    author_id: Name = ""
    lang: Name = "en"
    entities: _Entities | None = None
    note_tweet: _LongPost | None = None

    @property
    def words(self) -> str:
        return self.text if self.note_tweet is None else self.note_tweet.text

    @property
    def tags(self) -> set[str]:
        """What X marked as cashtags, or, where it marked nothing at all, what reads like one."""
        marked = [entities for entities in (self.entities, self.note_tweet and self.note_tweet.entities) if entities]
        named = [tag.tag for entities in marked for tag in entities.cashtags or ()]
        return {tag.upper() for tag in (named if marked else CASHTAG.findall(self.words))}


class _Place(BaseModel):
    """What of a query is read: all up to `since_id`, or up to the time `start`; and with a `before`, what lies from there to `newest`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    start: str
    since_id: PostId | None = None
    before: PostId | None = None
    newest: PostId | None = None


_PLACES = TypeAdapter(dict[str, _Place])


class XSearch:
    """`port.NewsSource`. `bearer` is the app's token; `limit` bounds the posts that are read, and so their price."""

    name = "x"

    def __init__(
        self,
        *,
        bearer: str,
        url: str = URL,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        headers = {"Authorization": f"Bearer {bearer}"}
        self._transport = VendorTransport(source=self.name, url=url, per_minute=PER_MINUTE, headers=headers, sleep=sleep, clock=clock)

    def news(self, symbols: Sequence[str], *, since: datetime, until: datetime, resume: str | None, limit: int) -> NewsPage:
        """As `NewsSource.news` promises, but for the order at a limit; reads at most `limit` posts, ten at least."""
        if limit < PAGE_MIN:
            raise SourceLimited(f"x sends at least {PAGE_MIN} posts per page, the limit was {limit}")
        places = dict(_places(resume))
        asked = queries(symbols)
        gathered = Gathered(source=self.name, symbols=frozenset(symbols), received=until)
        try:
            for index, query in enumerate(asked):
                places.setdefault(query, _Place(start=iso(since)))
                share = max((limit - gathered.read) // (len(asked) - index), PAGE_MIN)
                for place in self._read(query, places[query], gathered, until=until, upto=min(gathered.read + share, limit)):
                    places[query] = place
        except SourceError:
            if gathered.read == 0:
                raise
        items = sorted(gathered.items.values(), key=lambda item: (parse_utc(item.published), int(item.id)))
        left = {query: places.get(query, _Place(start=iso(since))) for query in asked}
        return NewsPage(items=items, resume=_PLACES.dump_json(left).decode(), invalid=gathered.invalid, read=gathered.read)

    def _read(self, query: str, place: _Place, gathered: Gathered, *, until: datetime, upto: int) -> Iterator[_Place]:
        """Read what is left of the query, at most `upto` posts in all; yield the place after each page."""
        horizon = until - SHOWN
        if place.before is not None:
            if _time_of(place.before) > horizon:
                span = _from(place, horizon) | {"until_id": place.before}
                for ids, more in self._pages(query, span, gathered, upto=upto):
                    place = place.model_copy(update={"before": min((*ids, place.before or ""), key=int)})
                    yield place
                    if more and upto - gathered.read < PAGE_MIN:
                        return
            place = _Place(start=place.start, since_id=place.newest)
            yield place
        span = _from(place, horizon) | {"end_time": _seconds(until - SETTLED)}
        if upto - gathered.read < PAGE_MIN or span.get("start_time", "") >= span["end_time"]:
            return
        for ids, more in self._pages(query, span, gathered, upto=upto):
            if ids:
                newest, oldest = max((*ids, place.newest or "0"), key=int), min((*ids, place.before or ids[0]), key=int)
                place = place.model_copy(update={"newest": newest, "before": oldest})
                yield place
            if more and upto - gathered.read < PAGE_MIN:
                return
        if place.newest is not None:
            yield _Place(start=place.start, since_id=place.newest)

    def _pages(self, query: str, span: Mapping[str, str], gathered: Gathered, *, upto: int) -> Iterator[tuple[list[str], bool]]:
        """Read a span from its newest post on; yield the ids of each page, and whether another follows."""
        token: str | None = None
        while True:
            ids, token = self._page(query, span, token, gathered, upto=upto)
            yield ids, token is not None
            if token is None:
                return

    def _page(
        self, query: str, span: Mapping[str, str], token: str | None, gathered: Gathered, *, upto: int
    ) -> tuple[list[str], str | None]:
        """Read a page; return the ids of its posts, and the token of the next."""
        params = {"query": query, "max_results": min(upto - gathered.read, PAGE_MAX), "tweet.fields": FIELDS, **span}
        params |= {"next_token": token} if token else {}
        answer = self._transport.get(PATH, params)
        meta = field_of(answer, "meta", dict, transport=self._transport)
        posts = field_of(answer, "data", list, transport=self._transport) if answer.get("data") or meta.get("result_count") else []
        if not posts and answer.get("errors"):
            raise SourceInvalid(f"x answered with errors and no posts: {self._transport.redacted(str(answer['errors']))}")
        ids = []
        for record in posts:
            post = gathered.record(_Post, record)
            identity = record.get("id") if isinstance(record, dict) else None
            if isinstance(identity, str) and re.fullmatch(r"[0-9]{1,19}", identity):
                ids.append(identity)
            if post is not None:
                _add(gathered, post, record)
        more = meta.get("next_token")
        if more is not None and not ids:
            raise SourceInvalid("x: a page has a next_token and no post with an id")
        return ids, more


def queries(symbols: Sequence[str]) -> list[str]:
    """The searches for the cashtags of `symbols`, in their order, each within 512 characters."""
    found: list[str] = []
    tags: list[str] = []
    for symbol in symbols:
        if len(_query([*tags, symbol])) > LONGEST_QUERY:
            found.append(_query(tags))
            tags = []
        tags.append(symbol)
    return [*found, _query(tags)] if tags else found


def _query(symbols: Sequence[str]) -> str:
    return "(" + " OR ".join(f"${symbol}" for symbol in symbols) + ")" + ONLY


def _add(gathered: Gathered, post: _Post, record: dict[str, Any]) -> None:
    gathered.add(
        record,
        symbols=post.tags,
        id=post.id,
        published=post.created_at,
        text=post.words,
        author=post.author_id,
        language=post.lang,
        url=f"https://x.com/i/web/status/{post.id}",
    )


def _from(place: _Place, horizon: datetime) -> dict[str, str]:
    """Where a span begins, not before what X still shows."""
    if place.since_id is not None and _time_of(place.since_id) > horizon:
        return {"since_id": place.since_id}
    start = horizon if place.since_id is not None else max(parse_utc(place.start), horizon)
    return {"start_time": _seconds(start)}


def _time_of(identity: str) -> datetime:
    return datetime.fromtimestamp(((int(identity) >> 22) + EPOCH_MS) / 1000, UTC)


def _seconds(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _places(resume: str | None) -> dict[str, _Place]:
    try:
        return {} if resume is None else _PLACES.validate_json(resume)
    except ValidationError:
        raise SourceInvalid(f"x: resume must be what an earlier page returned, was {str(resume)[:60]!r}") from None
