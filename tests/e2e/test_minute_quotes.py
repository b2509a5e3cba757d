"""Real minute quotes of 2013 through the deployed schedule, the raw lake and the deployed Glue job, against the recorded trades."""

from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime, timedelta

import pandas as pd

from papertape.market_data import bundled
from tests.e2e.conftest import App
from tests.e2e.test_triggers import until

DAY = "2013-10-08"
OPEN, CLOSE = datetime(2013, 10, 8, 13, 30, tzinfo=UTC), datetime(2013, 10, 8, 20, 0, tzinfo=UTC)
RECORDED = ["SPY", "AIG", "BAC", "IBM"]  # of the universe, those with quotes in those days
MINUTE = timedelta(minutes=1)


def test_a_session_of_real_quotes_becomes_minute_bars_that_agree_with_the_trades(app: App) -> None:
    """The schedule fires each minute of a session; tests/unit/trading_env/data/test_bars.py measures the bounds over six of them."""
    app.begin(f"{DAY}T13:00:00Z")
    minutes = [OPEN + n * MINUTE for n in range(1, int((CLOSE - OPEN) / MINUTE))]
    assert app.succeed("ingest_quotes", f"{DAY}T13:29:00Z")["outcome"] == "skipped"
    for minute in minutes:
        assert app.succeed("ingest_quotes", f"{minute:%Y-%m-%dT%H:%M:%SZ}")["outcome"] == "written"
    assert app.succeed("ingest_quotes", f"{DAY}T20:00:00Z")["outcome"] == "skipped"

    s3 = app.deployment.client("s3")
    raw, prefix = app.deployment.output("RawBucket"), f"raw/quotes/date={DAY}/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=raw, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page["Contents"]]
    assert keys == [f"{prefix}{minute:%H%M}.jsonl.gz" for minute in minutes]
    lines = [json.loads(line) for line in gzip.decompress(app.deployment.object("raw", keys[0])).splitlines()]
    assert [line["symbol"] for line in lines] == list(app.settings.universe.symbols)
    assert {line["received_at"] for line in lines} == {f"{minutes[0]:%Y-%m-%dT%H:%M:%SZ}"}
    assert all(line["ts"] < line["received_at"] for line in lines if line["symbol"] in RECORDED)

    glue, job = app.deployment.client("glue"), app.deployment.output("GlueJobName")
    arguments = {"--MODE": "quotes", "--DATE": DAY, "--EVENT_TIME": f"{DAY}T22:30:00Z"}
    run = glue.start_job_run(JobName=job, Arguments=arguments)["JobRunId"]
    ended = until(lambda: (r := glue.get_job_run(JobName=job, RunId=run)["JobRun"])["JobRunState"] in {"SUCCEEDED", "FAILED"} and r)
    assert ended["JobRunState"] == "SUCCEEDED", ended["ErrorMessage"]

    processed, table = app.deployment.output("ProcessedBucket"), f"processed/bars/timeframe=1Min/date={DAY}/"
    (file,) = s3.list_objects_v2(Bucket=processed, Prefix=table)["Contents"]
    bars = pd.read_parquet(io.BytesIO(app.deployment.object("processed", file["Key"])))
    bars["ts"] = pd.to_datetime(bars["ts"], utc=True)
    trades = bundled.minute_trades()
    both = bars[bars["symbol"].isin(RECORDED)].merge(trades, on=["symbol", "ts"], suffixes=("", "_of_trades"))
    assert both.groupby("symbol").size().min() >= len(minutes) - 5
    assert both["spread"].gt(0).mean() > 0.99, "real quotes have two sides"
    assert both["spread"].median() <= 0.02, "and lie close to each other"
    within = (both["close"] - both["close_of_trades"]).abs() <= both["spread"] + 0.01 + 1e-9
    assert within.mean() >= 0.99
    assert within.groupby(both["symbol"]).mean().min() >= 0.985

    shifted = trades.assign(ts=trades["ts"] + MINUTE)
    late = bars[bars["symbol"].isin(RECORDED)].merge(shifted, on=["symbol", "ts"], suffixes=("", "_of_trades"))
    assert ((late["close"] - late["close_of_trades"]).abs() <= late["spread"] + 0.01 + 1e-9).mean() < 0.8, "a minute off would show"
