"""The sources of news that the settings name, with their keys.

A source whose key is missing is one that refuses whoever asks it, as a vendor does with a wrong one: the others are collected. Failure:
`SourceRefused` for a foreign address.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lambdas.common.environment import Variables, read
from lambdas.common.source_keys import SourceKeys, checked_url, source_keys
from schema.sections.news import NewsSettings, NewsSourceName
from sources import alpaca_news, finnhub_news, x_search
from sources.alpaca_news import AlpacaNews
from sources.finnhub_news import FinnhubNews
from sources.port import NewsPage, NewsSource, SourceRefused
from sources.x_search import XSearch

#: What each source's key is called in the secret.
FIELDS: Mapping[NewsSourceName, str] = {"alpaca": "key_id", "finnhub": "finnhub", "x": "x"}


class NewsVariables(Variables):
    broker_secret_arn: str
    alpaca_data_url: str = alpaca_news.URL
    finnhub_url: str = finnhub_news.URL
    x_url: str = x_search.URL


@dataclass(frozen=True)
class KeylessNews:
    """A source without its key: `refusal` is what whoever asks is told."""

    name: str
    refusal: SourceRefused

    def news(self, symbols: Sequence[str], *, since: datetime, until: datetime, resume: str | None, limit: int) -> NewsPage:  # noqa: ARG002
        raise self.refusal


def news_sources_from_environment(settings: NewsSettings, *, environ: Mapping[str, str] | None = None) -> list[NewsSource]:
    """Return the adapters of `settings.sources`, in their order; raise `SourceRefused` for a foreign address."""
    if not settings.sources:
        return []
    variables = read(NewsVariables, environ=os.environ if environ is None else environ)
    checked_url("ALPACA_DATA_URL", variables.alpaca_data_url, own=alpaca_news.URL)
    checked_url("FINNHUB_URL", variables.finnhub_url, own=finnhub_news.URL)
    checked_url("X_URL", variables.x_url, own=x_search.URL)
    made: Mapping[NewsSourceName, Callable[[SourceKeys], NewsSource]] = {
        "alpaca": lambda keys: AlpacaNews(key_id=keys.key_id, secret_key=keys.secret_key, url=variables.alpaca_data_url),
        "finnhub": lambda keys: FinnhubNews(token=keys.finnhub, url=variables.finnhub_url),
        "x": lambda keys: XSearch(bearer=keys.x, url=variables.x_url),
    }

    def source(name: NewsSourceName) -> NewsSource:
        try:
            return made[name](source_keys(variables.broker_secret_arn, needed=[FIELDS[name]], asked_by="[news] sources"))
        except SourceRefused as refusal:
            return KeylessNews(name, refusal)

    return [source(name) for name in settings.sources]
