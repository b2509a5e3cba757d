"""A minute's quotes from a real exchange process into S3."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pandas as pd
import pyarrow.parquet as pq
import pytest

from glue_jobs.build_features import main
from glue_jobs.files import Bucket
from lambdas.common import telemetry
from lambdas.common.lake import lake as lakes
from lambdas.ingest_quotes.handler import handler
from lambdas.ingest_quotes.quotes import NoQuotesError
from local.exchange.server import RunningExchange
from papertape.market_data import bundled
from schema.settings import SETTINGS_FILE, Settings
from tests.settings_files import settings_file

MINUTE = {"schedule": "ingest_quotes", "time": "2020-01-02T14:35:00Z"}
KEY = "raw/quotes/date=2020-01-02/1435.jsonl.gz"


@pytest.fixture
def raw(exchange: RunningExchange, buckets: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(telemetry.metrics.provider, "namespace", "Papertape")
    lakes.lake.cache_clear()
    yield buckets.raw
    lakes.lake.cache_clear()


def run(event: dict[str, Any] = MINUTE) -> dict[str, Any]:
    return handler(event, None)  # type: ignore[no-any-return]


def stored(raw: str) -> list[dict[str, Any]]:
    body = boto3.client("s3").get_object(Bucket=raw, Key=KEY)["Body"].read()
    return [json.loads(line) for line in gzip.decompress(body).splitlines()]


def with_universe(settings: Settings, *symbols: str) -> str:
    universe = settings.universe.model_copy(update={"symbols": symbols, "benchmark": symbols[0]})
    return settings_file(settings.model_copy(update={"universe": universe}))


def test_one_object_a_minute_one_line_a_symbol(raw: str, settings: Settings) -> None:
    result = run()
    lines = stored(raw)
    assert (result["key"], result["quotes"], result["missing"]) == (KEY, 8, [])
    assert [line["symbol"] for line in lines] == list(settings.universe.symbols)
    assert set(lines[0]) == {"symbol", "ts", "bid", "bid_size", "ask", "ask_size", "received_at", "feed"}
    assert {line["received_at"] for line in lines} == {"2020-01-02T14:35:00Z"}
    assert all(0 < line["bid"] <= line["ask"] for line in lines)


def test_a_retry_overwrites_with_the_same_bytes(raw: str) -> None:
    run()
    before = boto3.client("s3").get_object(Bucket=raw, Key=KEY)["Body"].read()
    lakes.lake.cache_clear()
    run()
    assert boto3.client("s3").get_object(Bucket=raw, Key=KEY)["Body"].read() == before
    assert boto3.client("s3").list_objects_v2(Bucket=raw)["KeyCount"] == 1


def test_a_closed_market_writes_nothing_and_says_so(raw: str, exchange: RunningExchange) -> None:
    exchange.advance("2020-01-02T21:00:00Z")
    result = run()
    assert result["outcome"] == "skipped"
    assert "2020-01-03" in result["reason"]
    assert boto3.client("s3").list_objects_v2(Bucket=raw)["KeyCount"] == 0


def test_a_missing_symbol_is_counted_and_not_invented(
    raw: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SETTINGS_FILE, with_universe(settings, "SPY", "ZZZZ"))
    assert run()["missing"] == ["ZZZZ"]
    assert [line["symbol"] for line in stored(raw)] == ["SPY"]
    metrics = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"MissingQuotes"' in line]
    assert metrics[0]["MissingQuotes"] == [1.0]


def test_recorded_quotes_reach_the_minute_bars_and_agree_with_the_trades_within_the_spread(
    raw: str, buckets: SimpleNamespace, settings: Settings, exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session of 2013-10-04, minute by minute: feed, this function, raw, the job, bars; against the recorded trades."""
    monkeypatch.setenv(SETTINGS_FILE, with_universe(settings, "SPY", "AIG", "BAC", "IBM"))
    exchange.reset(now="2013-10-04T13:30:30Z", cash="100000")
    for scheduled in pd.date_range("2013-10-04T13:31Z", periods=389, freq="min"):
        exchange.advance(scheduled.to_pydatetime())
        assert run({"schedule": "ingest_quotes", "time": scheduled.isoformat()})["missing"] == []
    names = ["--raw-bucket", raw, "--processed-bucket", buckets.processed, "--time", "2013-10-04T22:30:00Z"]
    built = main([*names, "--mode", "quotes", "--engine", "pandas"])
    assert (built["objects"], built["bars"]) == (389, 4 * 389 - built["quarantined"])

    bars = pq.read_table(io.BytesIO(Bucket(buckets.processed).get(built["files"][0]) or b"")).to_pandas()
    both = bars.merge(bundled.minute_trades(), on=["symbol", "ts"], suffixes=("", "_trade"))
    assert len(both) > 1500
    beyond = (both["close"] - both["close_trade"]).abs() - both["spread"]
    # A minute's last trade may be older than its last quote: then the quote has moved on, by hundredths of a percent
    assert (beyond <= 1e-9).mean() > 0.95
    assert (beyond / both["close"]).max() < 1e-3


def test_a_feed_without_any_quote_is_an_error(raw: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTINGS_FILE, with_universe(settings, "ZZZZ", "YYYY"))
    with pytest.raises(NoQuotesError, match="ZZZZ, YYYY"):
        run()
