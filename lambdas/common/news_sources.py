"""The sources of news that the settings name, with their keys: those of the broker's secret, one more field of it per other source.

`{"key_id": "...", "secret_key": "...", "finnhub": "...", "x": "..."}`. Promise: no address but a vendor's own or this machine's is ever
asked, and no key is shown. Failure: `SourceRefused`, one line with the remedy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping

import boto3
from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lambdas.common.environment import Variables, read
from schema.loopback import is_loopback
from schema.sections.news import NewsSettings, NewsSourceName
from sources import alpaca_news, finnhub_news, x_search
from sources.alpaca_news import AlpacaNews
from sources.finnhub_news import FinnhubNews
from sources.port import NewsSource, SourceRefused
from sources.x_search import XSearch

#: What each source's key is called in the secret.
FIELDS: Mapping[NewsSourceName, str] = {"alpaca": "key_id", "finnhub": "finnhub", "x": "x"}


class NewsKeys(BaseModel):
    """The secret's value. Neither its representation nor an error about it shows anything."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, extra="ignore")
    key_id: str = Field(default="", repr=False)
    secret_key: str = Field(default="", repr=False)
    finnhub: str = Field(default="", repr=False)
    x: str = Field(default="", repr=False)


class NewsVariables(Variables):
    broker_secret_arn: str
    alpaca_data_url: str = alpaca_news.URL
    finnhub_url: str = finnhub_news.URL
    x_url: str = x_search.URL


def news_sources_from_environment(settings: NewsSettings, *, environ: Mapping[str, str] | None = None) -> list[NewsSource]:
    """Return the adapters of `settings.sources`, in their order; raise `SourceRefused` for a key that is missing or a foreign address."""
    if not settings.sources:
        return []
    variables = read(NewsVariables, environ=os.environ if environ is None else environ)
    for name, url, own in (
        ("ALPACA_DATA_URL", variables.alpaca_data_url, alpaca_news.URL),
        ("FINNHUB_URL", variables.finnhub_url, finnhub_news.URL),
        ("X_URL", variables.x_url, x_search.URL),
    ):
        if url != own and not (url.startswith("http://") and is_loopback(url)):
            raise SourceRefused(f"{name} may be {own} or http://127.0.0.1:<port>, was {url}")
    keys = _keys(variables.broker_secret_arn)
    missing = [FIELDS[name] for name in settings.sources if not getattr(keys, FIELDS[name])]
    if missing:
        secret = variables.broker_secret_arn.rsplit(":", 1)[-1]
        raise SourceRefused(
            f"the secret {secret} has no {' and no '.join(missing)}: store it with `papertape secret`, for a source of its own with "
            "`--source`, or leave it out of [news] sources"
        )
    made: Mapping[NewsSourceName, Callable[[], NewsSource]] = {
        "alpaca": lambda: AlpacaNews(key_id=keys.key_id, secret_key=keys.secret_key, url=variables.alpaca_data_url),
        "finnhub": lambda: FinnhubNews(token=keys.finnhub, url=variables.finnhub_url),
        "x": lambda: XSearch(bearer=keys.x, url=variables.x_url),
    }
    return [made[name]() for name in settings.sources]


def _keys(arn: str) -> NewsKeys:
    name = arn.rsplit(":", 1)[-1]
    try:
        value = boto3.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
        return NewsKeys.model_validate(json.loads(value))
    except (ClientError, KeyError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else "no text in it"
        raise SourceRefused(f"the broker's secret {name} cannot be read ({code}); store it: make secret") from None
    except (ValueError, ValidationError):
        shape = '{"key_id": "...", "secret_key": "...", "finnhub": "...", "x": "..."}'
        raise SourceRefused(f"the broker's secret {name} is not {shape}; store the keys again") from None
