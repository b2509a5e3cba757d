"""Closes of other sources beside the lake's: what the evening asks and writes, and what health reads of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from pydantic import ValidationError

from lambdas.backfill_bars.closes import closes_of, compared
from lambdas.backfill_bars.handler import handler
from lambdas.common.health.closes import compared_closes
from lambdas.common.lake import lake as lakes
from lambdas.common.lake.lake import Lake
from lambdas.common.price_sources import price_source
from local.exchange.server import RunningExchange
from schema.lake_layout import closes_key
from schema.sections.data import DataSettings
from schema.settings import SETTINGS_FILE, Settings
from sources.port import SourceRefused
from tests.price_vendors import LAST, AlphaVantageVendor, FinnhubVendor, VendorServer, bars, serving
from tests.settings_files import settings_file

NIGHT = {"schedule": "backfill_bars", "time": "2020-01-02T23:00:00Z"}
TRUE = {symbol: bars(symbol, LAST, LAST, "raw")[0].close for symbol in ("AAPL", "BRK.B")}


@pytest.fixture
def finnhub() -> Iterator[VendorServer]:
    with serving(FinnhubVendor()) as server:
        yield server


@pytest.fixture
def keys(aws: None) -> str:
    secret = {"key_id": "k", "secret_key": "s", "finnhub": "a-finnhub-key", "alphavantage": "an-alpha-key"}
    arn: str = boto3.client("secretsmanager").create_secret(Name="other/alpaca", SecretString=json.dumps(secret))["ARN"]
    return arn


def test_each_source_has_its_closes_beside_the_lakes(finnhub: VendorServer, keys: str) -> None:
    environ = {"BROKER_SECRET_ARN": keys, "FINNHUB_URL": finnhub.url}
    with serving(AlphaVantageVendor()) as alpha:
        environ["ALPHAVANTAGE_URL"] = alpha.url
        rows = compared(
            ["finnhub", "alphavantage"],
            make=lambda name: price_source(name, today=LAST, environ=environ),
            closes={**TRUE, "AAPL": 99.0, "GONE": 1.0},
            session=LAST,
        )
    pairs = [["AAPL", 99.0, TRUE["AAPL"]], ["BRK.B", TRUE["BRK.B"], TRUE["BRK.B"]]]
    assert rows == [{"source": name, "pairs": pairs, "failed": ""} for name in ("finnhub", "alphavantage")]


def test_a_source_that_fails_or_is_of_another_day_says_so_and_costs_nothing_else(finnhub: VendorServer, keys: str) -> None:
    environ = {"BROKER_SECRET_ARN": keys, "FINNHUB_URL": finnhub.url}

    def once(session: date) -> dict[str, Any]:
        (row,) = compared(["finnhub"], make=lambda name: price_source(name, today=LAST, environ=environ), closes=TRUE, session=session)
        return row

    assert once(date(2020, 9, 3)) == {"source": "finnhub", "pairs": [], "failed": "finnhub has no price of 2020-09-03"}
    finnhub.revoke()
    assert once(LAST)["failed"].startswith("finnhub refused /quote (401")


def test_a_free_key_of_alpha_vantage_looks_at_other_names_each_day() -> None:
    closes, seen = {f"N{number:02}": 1.0 for number in range(30)}, []

    class Asked:
        name = "alphavantage"

        def last_prices(self, symbols: list[str]) -> dict[str, Any]:
            seen.append(symbols)
            return {}

    for day in (1, 2, 3):
        compared(["alphavantage"], make=lambda _name: Asked(), closes=closes, session=date(2020, 9, day))
    assert [len(set(symbols)) for symbols in seen] == [20, 20, 20]
    assert {symbol for symbols in seen for symbol in symbols} == set(closes)


@pytest.mark.parametrize(("field", "told"), [("finnhub", "has no finnhub: store it with"), ("", "is not .*; store the keys again")])
def test_a_key_that_is_missing_is_one_line(aws: None, field: str, told: str) -> None:
    arn = boto3.client("secretsmanager").create_secret(Name="bare", SecretString='{"key_id": "k"}' if field else "no json")["ARN"]
    with pytest.raises(SourceRefused, match=told):
        price_source("finnhub", today=LAST, environ={"BROKER_SECRET_ARN": arn})


def test_only_the_vendors_or_this_machine_gets_a_key(keys: str) -> None:
    with pytest.raises(SourceRefused, match=r"may be https://finnhub.io/api/v1 or"):
        price_source("finnhub", today=LAST, environ={"BROKER_SECRET_ARN": keys, "FINNHUB_URL": "https://elsewhere.example"})


@pytest.fixture
def lake(exchange: RunningExchange, buckets: SimpleNamespace) -> Iterator[Lake]:
    lakes.lake.cache_clear()
    exchange.advance("2020-01-02T23:00:00Z")
    yield Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw)
    lakes.lake.cache_clear()


def test_off_by_default_the_evening_writes_none(lake: Lake) -> None:
    handler(NIGHT, None)
    assert lake.raw_index("raw/closes/") == {}


def test_the_evening_writes_and_health_reads_even_when_a_source_refuses(
    lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch, finnhub: VendorServer
) -> None:
    """The broker's secret has no key of finnhub: the bars are written all the same, and health says why nothing was compared."""
    monkeypatch.setenv("FINNHUB_URL", finnhub.url)
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings.model_copy(update={"data": DataSettings(check_closes=("finnhub",))})))
    assert handler(NIGHT, None)["end"] == "2020-01-02"
    (key,) = lake.raw_index("raw/closes/")
    assert key == closes_key(date(2020, 1, 2))
    told = compared_closes(lake, ["finnhub"], [date(2020, 1, 2)])["finnhub"]
    assert "has no finnhub: store it with `papertape secret`" in told.failed
    assert compared_closes(lake, ["finnhub"], [date(2020, 1, 3)])["finnhub"].failed == "backfill_bars has not done so"
    closes = closes_of(lake.bars(symbols=["AAPL"], years=[2020]), date(2020, 1, 2))
    assert closes == {"AAPL": 300.35}


def test_a_source_twice_or_unknown_is_refused(settings: Settings) -> None:
    for wrong in (["finnhub", "finnhub"], ["yahoo"]):
        with pytest.raises(ValidationError, match="check_closes"):
            Settings.model_validate({**settings.model_dump(), "data": {"check_closes": wrong}})
