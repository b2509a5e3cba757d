"""The tests' newsroom answers as the vendors describe, and the vendors' own clients read the same of it as our adapters do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import finnhub
import pytest
import requests
import tweepy
from alpaca.data.historical.news import NewsClient
from alpaca.data.requests import NewsRequest
from jsonschema import Draft202012Validator, FormatChecker
from requests.adapters import HTTPAdapter

from schema.exchange_time import iso
from sources.x_search import queries
from tests.descriptions import DATA, SPECS, description
from tests.newsrooms import KEY, NOON, SYMBOLS, Newsroom, ident, many, open_newsroom, source_of

SINCE, RUN = NOON - timedelta(days=1), NOON + timedelta(hours=1)


@pytest.fixture
def room() -> Iterator[Newsroom]:
    with open_newsroom() as opened:
        opened.posts = many(130)
        yield opened


class _ToTheNewsroom(HTTPAdapter):
    """What asks X is sent to the newsroom: tweepy has no setting for its address."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
        request.url = (request.url or "").replace("https://api.twitter.com", self._url)
        return super().send(request, *args, **more)


def valid(schema: dict[str, Any], answer: Any) -> bool:
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(answer)
    return True


def test_alpacas_news_is_as_it_describes_it(room: Newsroom) -> None:
    schema = {"$ref": "#/components/schemas/news_resp", "components": description(DATA)["components"]}
    headers = {"APCA-API-KEY-ID": KEY}
    query = {"symbols": "AAPL,SPY", "start": iso(SINCE), "end": iso(RUN), "limit": "50", "sort": "asc"}
    answer = requests.get(f"{room.url}/v1beta1/news", params=query, headers=headers, timeout=5).json()
    assert len(answer["news"]) == 50
    assert valid(schema, answer)


def test_finnhubs_news_is_as_it_describes_it(room: Newsroom) -> None:
    document = json.loads((SPECS / "finnhub_company-news.json").read_text(encoding="utf-8"))
    item = {"$ref": "#/components/schemas/CompanyNews", "components": document["components"]}
    declared = {one["name"] for one in document["paths"]["/company-news"]["get"]["parameters"]}
    source_of("finnhub", room.url).news(("AAPL",), since=SINCE, until=RUN, resume=None, limit=1_000)
    ((_, asked),) = room.asked
    assert set(asked) == {*declared, document["components"]["securitySchemes"]["api_key"]["name"]}
    answer = room.answer("/company-news", asked, {})[1]
    assert answer
    assert all(valid(item, one) for one in answer)
    assert set(answer[0]) == set(document["components"]["schemas"]["CompanyNews"]["properties"])


def test_xs_posts_are_as_it_describes_them(room: Newsroom) -> None:
    schema = json.loads((SPECS / "x_recent-search.json").read_text(encoding="utf-8"))
    source_of("x", room.url).news(SYMBOLS, since=SINCE, until=RUN, resume=None, limit=1_000)
    assert len(room.asked) == 2
    for path, query in list(room.asked):
        assert valid(schema, room.answer(path, query, {"Authorization": f"Bearer {KEY}"})[1])


def test_alpaca_py_reads_what_the_adapter_reads(room: Newsroom) -> None:
    client = NewsClient(KEY, "secret", url_override=room.url)
    found = client.get_news(NewsRequest(start=SINCE, end=RUN, sort="asc", symbols=",".join(SYMBOLS), limit=None))
    page = source_of("alpaca", room.url).news(SYMBOLS, since=SINCE, until=RUN, resume=None, limit=1_000)
    theirs = [(str(one.id), one.headline, iso(one.created_at)) for one in found.data["news"]]  # type: ignore[union-attr]
    assert theirs == [(one.id, one.text, one.published) for one in page.items]
    assert len(theirs) == 130


def test_finnhub_python_reads_what_the_adapter_reads(room: Newsroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finnhub.Client, "API_URL", room.url)
    found = finnhub.Client(api_key=KEY).company_news("AAPL", _from=f"{SINCE:%Y-%m-%d}", to=f"{RUN:%Y-%m-%d}")
    page = source_of("finnhub", room.url).news(("AAPL",), since=SINCE, until=RUN, resume=None, limit=1_000)
    assert [str(one["id"]) for one in reversed(found)] == [one.id for one in page.items]
    assert len(found) == 44


def test_tweepy_reads_what_the_adapter_reads(room: Newsroom) -> None:
    client = tweepy.Client(bearer_token=KEY)
    client.session.mount("https://api.twitter.com", _ToTheNewsroom(room.url))
    (query,) = queries(SYMBOLS)
    pages = tweepy.Paginator(client.search_recent_tweets, query, max_results=100, start_time=SINCE, end_time=NOON)
    theirs = {str(post.id): post.text for page in pages for post in page.data}
    page = source_of("x", room.url).news(SYMBOLS, since=SINCE, until=RUN, resume=None, limit=1_000)
    assert theirs == {one.id: one.text for one in page.items}
    assert set(theirs) == {ident("x", post) for post in room.posts}
