"""A source of prices with its key, from the broker's secret: `{"key_id": ..., "secret_key": ..., "finnhub": ..., "alphavantage": ...}`.

Promise: no address but a vendor's own or this machine's is asked, and no key is shown. Failure: `SourceRefused`, one line with the remedy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import date

import boto3
from botocore.exceptions import ClientError

from lambdas.common.environment import Variables, read
from schema.loopback import is_loopback
from schema.sections.data import CloseSourceName
from sources import alpha_vantage, finnhub_quotes
from sources.port import PriceSource, SourceRefused


class PriceVariables(Variables):
    broker_secret_arn: str
    alphavantage_url: str = alpha_vantage.URL
    finnhub_url: str = finnhub_quotes.URL


def price_source(name: CloseSourceName, *, today: date, environ: Mapping[str, str] | None = None) -> PriceSource:
    """The adapter of `name`; `today` is New York's."""
    variables = read(PriceVariables, environ=os.environ if environ is None else environ)
    key = _key(variables.broker_secret_arn, name)
    match name:
        case "finnhub":
            return finnhub_quotes.Finnhub(key=key, url=_own(variables.finnhub_url, finnhub_quotes.URL))
        case "alphavantage":
            return alpha_vantage.AlphaVantage(key=key, today=today, url=_own(variables.alphavantage_url, alpha_vantage.URL))


def _own(url: str, vendors: str) -> str:
    if url != vendors and not is_loopback(url):
        raise SourceRefused(f"a vendor's address may be {vendors} or http://127.0.0.1:<port>, was {url}")
    return url


def _key(arn: str, field: str) -> str:
    name = arn.rsplit(":", 1)[-1]
    try:
        held = json.loads(boto3.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
    except (ClientError, KeyError, ValueError) as error:
        raise SourceRefused(f"the broker's secret {name} cannot be read ({type(error).__name__}); store it: make secret") from None
    key = held.get(field) if isinstance(held, dict) else None
    if not isinstance(key, str) or not key:
        raise SourceRefused(f"the secret {name} has no {field}: add it as a JSON field, or leave it out of [data] check_closes")
    return key
