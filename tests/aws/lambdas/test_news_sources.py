"""The adapters of a function's process: which, with which keys, and to which addresses they may speak."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import boto3
import pytest

from lambdas.common.environment import VariablesError
from lambdas.common.news_sources import news_sources_from_environment
from schema.sections.news import NewsSettings
from sources.port import NewsSource, SourceRefused
from tests.newsrooms import KEY, NOON, SYMBOLS, Newsroom, open_newsroom

ALL = NewsSettings(sources=("x", "alpaca", "finnhub"))
KEYS = {"key_id": KEY, "secret_key": "secret-of-the-tests", "finnhub": KEY, "x": KEY, "live": False}


@pytest.fixture
def room() -> Iterator[Newsroom]:
    with open_newsroom() as opened:
        yield opened


def environ(room: Newsroom, **more: str) -> dict[str, str]:
    return {"ALPACA_DATA_URL": room.url, "FINNHUB_URL": room.url, "X_URL": room.url, **more}


def stored(value: str) -> dict[str, str]:
    return {"BROKER_SECRET_ARN": boto3.client("secretsmanager").create_secret(Name="papertape/alpaca", SecretString=value)["ARN"]}


def test_each_source_asks_with_its_own_key(aws: None, room: Newsroom) -> None:
    sources = news_sources_from_environment(ALL, environ=environ(room, **stored(json.dumps(KEYS))))
    assert [source.name for source in sources] == ["x", "alpaca", "finnhub"]
    for source in sources:
        source.news(SYMBOLS, since=NOON - timedelta(days=1), until=NOON, resume=None, limit=100)
    assert {path for path, _ in room.asked} == {"/2/tweets/search/recent", "/v1beta1/news", "/company-news"}


def test_without_a_source_nothing_is_read(aws: None) -> None:
    assert news_sources_from_environment(NewsSettings(), environ={}) == []


def test_the_keys_of_sources_that_are_not_configured_may_be_missing(aws: None, room: Newsroom) -> None:
    only = {"key_id": KEY, "secret_key": "secret-of-the-tests"}
    (source,) = news_sources_from_environment(NewsSettings(sources=("alpaca",)), environ=environ(room, **stored(json.dumps(only))))
    assert source.name == "alpaca"


def told_by(sources: Sequence[NewsSource]) -> dict[str, str]:
    """What each source says that refuses; those that answer are left out."""
    found = {}
    for source in sources:
        try:
            source.news(SYMBOLS, since=NOON - timedelta(days=1), until=NOON, resume=None, limit=100)
        except SourceRefused as refused:
            found[source.name] = str(refused)
    return found


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        (
            {"key_id": KEY, "secret_key": "secret-of-the-tests"},
            {"x": "has no x: store it with `papertape secret`", "finnhub": "has no finnhub: store"},
        ),
        ({**KEYS, "x": ""}, {"x": "has no x: store it"}),
        ({**KEYS, "x": 7}, dict.fromkeys(("x", "alpaca", "finnhub"), "is not {")),
        ([1], dict.fromkeys(("x", "alpaca", "finnhub"), "is not {")),
        (None, dict.fromkeys(("x", "alpaca", "finnhub"), "is not {")),
    ],
)
def test_a_source_without_its_key_refuses_with_the_remedy_and_the_others_answer(
    aws: None, room: Newsroom, secret: Any, told: dict[str, str]
) -> None:
    text = KEY if secret is None else json.dumps(secret)
    refused = told_by(news_sources_from_environment(ALL, environ=environ(room, **stored(text))))
    assert refused.keys() == told.keys()
    for name, words in told.items():
        assert words in refused[name]
        assert "\n" not in refused[name]
        assert KEY not in refused[name]


def test_a_secret_that_is_not_there_is_refused_with_the_remedy(aws: None, room: Newsroom) -> None:
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:papertape/alpaca"
    refused = told_by(news_sources_from_environment(ALL, environ=environ(room, BROKER_SECRET_ARN=arn)))
    assert set(refused) == {"x", "alpaca", "finnhub"}
    assert all("cannot be read (ResourceNotFoundException); store it: make secret" in words for words in refused.values())
    with pytest.raises(VariablesError, match="BROKER_SECRET_ARN"):
        news_sources_from_environment(ALL, environ={})


@pytest.mark.parametrize("name", ["ALPACA_DATA_URL", "FINNHUB_URL", "X_URL"])
@pytest.mark.parametrize("url", ["https://example.org", "http://127.0.0.1@example.org", "https://127.0.0.1:80", "http://api.x.com", ""])
def test_no_other_address_is_ever_asked(aws: None, room: Newsroom, name: str, url: str) -> None:
    with pytest.raises(SourceRefused, match=f"^{name} may be https://"):
        news_sources_from_environment(ALL, environ=environ(room, **{name: url}, BROKER_SECRET_ARN="never-read"))
