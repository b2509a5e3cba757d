"""The exchange's invented news, over Alpaca's route: never ahead of the clock, in pages, and always the same."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

import pytest

from local.exchange.invented_news import AUTHOR, SUMMARY, invented
from local.exchange.sessions import NEW_YORK
from tests.contract.exchange.test_schema import validator
from tests.descriptions import DATA
from tests.exchanges import ExchangeClient, refusal

NAMES = ("AAPL", "IBM", "SPY")


@pytest.fixture
def client() -> ExchangeClient:
    served = ExchangeClient(now=datetime.fromisoformat("2020-02-14T21:00:00Z"))
    served.venue.news = invented(NAMES)
    return served


def news(client: ExchangeClient, **asked: str) -> dict[str, Any]:
    answer = client.get("/v1beta1/news", **asked)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    validator(DATA, "/v1beta1/news", "get", "200").validate(page)
    return page


def test_an_article_says_that_it_is_invented_everywhere_but_in_what_is_scored(client: ExchangeClient) -> None:
    for article in news(client, start="2020-01-01", limit="50")["news"]:
        assert (article["author"], article["source"]) == (AUTHOR, AUTHOR)
        assert article["summary"] == article["content"] == SUMMARY
        assert "invented" in AUTHOR
        assert "invented" not in article["headline"]


def test_nothing_is_published_before_the_clock_says_so(client: ExchangeClient) -> None:
    until = {"start": "2020-01-01", "end": "2020-12-31", "limit": "50"}
    before = news(client, **until)["news"]
    assert max(article["created_at"] for article in before) <= "2020-02-14T21:00:00Z"
    client.advance("2020-02-21T21:00:00Z")
    later = [one for one in news(client, **until)["news"] if one["created_at"] > "2020-02-14T21:00:00Z"]
    assert later
    assert max(one["created_at"] for one in later) <= "2020-02-21T21:00:00Z"


@pytest.mark.parametrize("sort", ["asc", "desc"])
def test_pages_hold_each_article_once_in_order_even_while_time_passes(client: ExchangeClient, sort: str) -> None:
    asked = {"start": "2020-01-01", "end": "2020-02-14T21:00:00Z", "sort": sort}
    whole = [one["id"] for one in news(client, **asked, limit="50")["news"]]
    paged, token = [], ""
    while True:
        page = news(client, **asked, limit="4", **({"page_token": token} if token else {}))
        paged += [one["id"] for one in page["news"]]
        assert len(page["news"]) <= 4
        token = page["next_page_token"]
        if token is None:
            break
        client.advance(client.venue.now.replace(hour=22))
    assert paged == whole
    times = [one.at for one in invented(NAMES) if one.id in whole]
    assert len(whole) == len(times) > 10
    ids = [one.id for one in invented(NAMES) if one.id in whole]
    assert whole == (ids if sort == "asc" else ids[::-1])


def test_symbols_and_days_choose(client: ExchangeClient) -> None:
    chosen = news(client, symbols="IBM,ZZZZ", start="2020-01-06", end="2020-01-17", limit="50")["news"]
    assert {tuple(one["symbols"]) for one in chosen} == {("IBM",)}
    assert all("2020-01-06T05:00" <= one["created_at"] < "2020-01-18T05:00" for one in chosen)
    assert news(client, symbols="ZZZZ", start="2020-01-06")["news"] == []


def test_what_is_not_understood_is_refused(client: ExchangeClient) -> None:
    for asked in ({"limit": "51"}, {"limit": "0"}, {"start": "then"}, {"page_token": "b25l"}, {"page_token": "fA=="}):
        assert refusal(client.get("/v1beta1/news", **asked))[0] == 400, asked
    assert client.get("/v1beta1/news", sort="up").status_code == 422
    assert client.get("/v1beta1/news", include_content="perhaps").status_code == 422


def test_the_same_names_have_the_same_headlines_and_at_most_three_a_week() -> None:
    found = invented(["AAPL", "IBM", "SPY", "ZZZZ"])
    assert found == invented(NAMES)
    assert [one for one in found if one.symbol == "IBM"] == list(invented(["IBM"]))
    assert len({one.id for one in found}) == len(found)
    weeks = Counter((one.symbol, one.at.astimezone(NEW_YORK).isocalendar()[:2]) for one in found)
    assert max(weeks.values()) == 3
    assert len(weeks) < 3 * 53  # some weeks are quiet
    assert {one.at.astimezone(NEW_YORK).year for one in found} == {2020}
