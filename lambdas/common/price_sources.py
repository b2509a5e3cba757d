"""A source of prices with its key. Failure: as `source_keys`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date

from lambdas.common.environment import Variables, read
from lambdas.common.source_keys import checked_url, source_keys
from schema.sections.data import CloseSourceName
from sources import alpha_vantage, finnhub_quotes
from sources.port import PriceSource


class PriceVariables(Variables):
    broker_secret_arn: str
    alphavantage_url: str = alpha_vantage.URL
    finnhub_url: str = finnhub_quotes.URL


def price_source(name: CloseSourceName, *, today: date, environ: Mapping[str, str] | None = None) -> PriceSource:
    """The adapter of `name`; `today` is New York's."""
    variables = read(PriceVariables, environ=os.environ if environ is None else environ)
    keys = source_keys(variables.broker_secret_arn, needed=[name], asked_by="[data] check_closes")
    match name:
        case "finnhub":
            return finnhub_quotes.Finnhub(key=keys.finnhub, url=checked_url("FINNHUB_URL", variables.finnhub_url, own=finnhub_quotes.URL))
        case "alphavantage":
            url = checked_url("ALPHAVANTAGE_URL", variables.alphavantage_url, own=alpha_vantage.URL)
            return alpha_vantage.AlphaVantage(key=keys.alphavantage, today=today, url=url)
