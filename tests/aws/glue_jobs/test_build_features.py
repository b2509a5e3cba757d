"""The features job in process: raw objects in, Parquet and manifest out, for real bars and for broken ones."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest

from glue_jobs.build_features import main
from glue_jobs.features_job import SOURCES, NothingToBuildError
from glue_jobs.files import Bucket, FeaturesUnreadableError, read_features
from lambdas.common.lake.lake import Lake, pack
from papertape.market_data import bundled
from schema.feature_table import parquet
from schema.lake_layout import BARS, bars_key, features_manifest, features_prefix, training_prefix
from schema.settings import SETTINGS_FILE, Settings
from tests.lakes import fill_raw
from tests.settings_files import settings_file
from trading_env.data.features import FEATURE_HASH
from trading_env.data.market import build_market, from_table

START, NIGHT = "2012-01-03", "2014-12-31T23:30:00Z"
FEATURES, TRAINING, FEATURES_MANIFEST = features_prefix(), training_prefix(), features_manifest()


@pytest.fixture
def lake(buckets: SimpleNamespace, settings: Settings) -> Lake:
    lake = Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw, processed_bucket=buckets.processed)
    fill_raw(lake, symbols=settings.universe.symbols, start=START, end="2014-12-31")
    return lake


def arguments(buckets: SimpleNamespace, *more: str, time: str = NIGHT) -> list[str]:
    names = ["--RAW_BUCKET", buckets.raw, "--PROCESSED_BUCKET", buckets.processed]
    return [*names, "--EVENT_TIME", time, "--ENGINE", "pandas", "--JOB_NAME", "added-by-glue", *more]


@pytest.fixture
def build(buckets: SimpleNamespace, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*more: str, time: str = NIGHT, under: Settings = settings) -> dict[str, Any]:
        monkeypatch.setenv(SETTINGS_FILE, settings_file(under))
        return main(arguments(buckets, *more, time=time))

    return run


def versions(lake: Lake) -> dict[str, tuple[str, str]]:
    found = lake.s3.list_objects_v2(Bucket=lake.processed_bucket, Prefix=FEATURES).get("Contents", ())
    return {item["Key"]: (item["ETag"], str(item["LastModified"])) for item in found}


def test_the_table_is_the_market(lake: Lake, build: Any, settings: Settings) -> None:
    manifest = build()
    market = from_table(read_features(Bucket(lake.processed_bucket)))
    bars = bundled.daily_bars()
    own = bars[(bars["session"] >= START) & (bars["session"] <= "2014-12-31")]
    whole = build_market(own, bundled.corporate_actions(), symbols=settings.universe.symbols)
    for name in ("sessions", "open", "close", "split", "dividend", "tradable", "features", "context"):
        assert getattr(market, name).tobytes() == getattr(whole, name).tobytes(), name
    assert market.symbols == whole.symbols
    assert (manifest["start"], manifest["end"]) == (START, "2014-12-31")
    assert manifest["rows"] == len(whole.sessions) * 8
    assert (manifest["feature_hash"], manifest["quarantined"], manifest["built_for"]) == (FEATURE_HASH, 0, NIGHT)


def test_the_same_input_writes_nothing_but_the_manifest(lake: Lake, build: Any) -> None:
    build()
    before = versions(lake)
    build()
    after = versions(lake)
    assert {key: etag for key, (etag, _) in after.items()} == {key: etag for key, (etag, _) in before.items()}
    assert {key for key in after if key != FEATURES_MANIFEST and after[key] != before[key]} == set()


def test_a_new_session_rewrites_its_year_alone(lake: Lake, build: Any, settings: Settings) -> None:
    build()
    before = versions(lake)
    fill_raw(lake, symbols=settings.universe.symbols, start=START, end="2015-01-02")
    build(time="2015-01-02T23:30:00Z")
    assert {key[len(FEATURES) :][:9] for key in versions(lake).keys() - before.keys()} == {"year=2015"}
    fill_raw(lake, symbols=settings.universe.symbols, start=START, end="2015-01-05")
    build(time="2015-01-05T23:30:00Z")
    years = [key.split("/")[3] for key in versions(lake) if "part-" in key]
    assert len(years) == len(set(years)) == 4


def test_a_broken_bar_is_set_aside_with_its_reason_and_never_filled(lake: Lake, build: Any) -> None:
    key = bars_key("IBM", 2013)
    rows = lake.read([key], prefix=BARS)[key]
    lake.write({key: [*rows[:99], {**rows[99], "high": rows[99]["low"] - 1}, *rows[100:]]})
    manifest = build()
    assert (manifest["quarantined"], manifest["gaps"]) == (1, 1)
    body = boto3.client("s3").get_object(Bucket=lake.processed_bucket, Key="processed/quarantine/bars/2014-12-31.jsonl.gz")["Body"].read()
    (line,) = [json.loads(line) for line in gzip.decompress(body).splitlines()]
    assert (line["symbol"], line["session"]) == ("IBM", rows[99]["ts"][:10] + "T00:00:00")
    assert line["reason"]
    market = from_table(read_features(Bucket(lake.processed_bucket)))
    row = market.index_of(rows[99]["ts"][:10])
    assert np.isnan(market.close[row, market.symbols.index("IBM")])
    assert not market.tradable[row, market.symbols.index("IBM")]


def test_a_reader_trusts_nothing_but_the_manifest(lake: Lake, build: Any) -> None:
    bucket = Bucket(lake.processed_bucket)
    with pytest.raises(FeaturesUnreadableError, match="does not exist; run the build_features job"):
        read_features(bucket)
    build()
    manifest = json.loads(bucket.get(FEATURES_MANIFEST) or b"")
    lake.s3.put_object(Bucket=bucket.name, Key=f"{FEATURES}year=2014/part-orphan.parquet", Body=b"half")
    assert len(read_features(bucket)) == manifest["rows"]

    victim = FEATURES + manifest["files"][0]["key"]
    body = bucket.get(victim)
    assert body is not None
    lake.s3.put_object(Bucket=bucket.name, Key=victim, Body=body[:-1] + b"x")
    with pytest.raises(FeaturesUnreadableError, match=f"{victim}: sha256 must be"):
        read_features(bucket)
    lake.s3.delete_object(Bucket=bucket.name, Key=victim)
    with pytest.raises(FeaturesUnreadableError, match="was absent"):
        read_features(bucket)
    with pytest.raises(FeaturesUnreadableError, match="feature_hash must be other"):
        read_features(bucket, feature_hash="other")


def test_superseded_files_leave_after_the_manifest(lake: Lake, build: Any) -> None:
    lake.s3.put_object(Bucket=lake.processed_bucket, Key=f"{FEATURES}year=2014/part-old.parquet", Body=b"old")
    build()
    listed = {FEATURES + entry["key"] for entry in json.loads(Bucket(lake.processed_bucket).get(FEATURES_MANIFEST) or b"")["files"]}
    assert versions(lake).keys() == listed | {FEATURES_MANIFEST}


def test_a_build_that_fails_leaves_the_last_one_readable(lake: Lake, build: Any, buckets: SimpleNamespace) -> None:
    build()
    rows = len(read_features(Bucket(lake.processed_bucket)))
    lake.s3.put_object(Bucket=buckets.raw, Key=bars_key("SPY", 2014), Body=pack([{"symbol": "SPY"}]))
    with pytest.raises(ValueError, match="a raw line needs"):
        build()
    assert len(read_features(Bucket(lake.processed_bucket))) == rows


def test_an_empty_lake_is_an_error_with_its_remedy(build: Any) -> None:
    with pytest.raises(NothingToBuildError, match="run backfill_bars with a start date first"):
        build()


def test_equal_tables_are_equal_bytes_however_they_came_together() -> None:
    table = pd.DataFrame({"symbol": ["A", "B", "C"], "close": [1.0, float("nan"), 3.0]})
    pieces = pd.concat([table[:1], table[1:]], ignore_index=True)
    assert parquet(table) == parquet(pieces)


def test_an_hour_of_quotes_is_built_again_as_it_was_and_a_day_without_any_is_an_error(
    lake: Lake, build: Any, buckets: SimpleNamespace
) -> None:
    """Real quotes, as ingest_quotes stores them; that its bars agree with the trades is a whole session of test_ingest_quotes."""
    quotes, trades = bundled.minute_quotes(), bundled.minute_trades()
    first = trades["ts"].min()
    day, hour = first.date(), quotes[(quotes["ts"] >= first) & (quotes["ts"] < first + pd.Timedelta(hours=1))]
    for minute, rows in hour.groupby(hour["ts"].dt.floor("min")):
        received = {"received_at": f"{minute.isoformat()}", "feed": "iex"}
        lines = [{**row, "ts": row["ts"].isoformat(), **received} for row in rows.to_dict("records")]
        lake.s3.put_object(Bucket=buckets.raw, Key=f"raw/quotes/date={day}/{minute:%H%M}.jsonl.gz", Body=pack(lines))
    result = build("--MODE", "quotes", "--DATE", str(day))
    body = Bucket(buckets.processed).get(result["files"][0])
    bars = pd.read_parquet(io.BytesIO(body or b""))
    both = bars.merge(trades, on=["symbol", "ts"], suffixes=("", "_trade"))
    assert len(bars) == result["bars"]
    assert len(both) > 20
    assert ((both["close"] - both["close_trade"]).abs() <= both["spread"] + 0.01).mean() > 0.9
    (again,) = build("--MODE", "quotes", "--DATE", str(day))["files"]
    assert Bucket(buckets.processed).get(again) == body
    with pytest.raises(NothingToBuildError, match="has no quotes"):
        build("--MODE", "quotes", "--DATE", "2013-01-05")


def moved(settings: Settings, live_start: str) -> Settings:
    document = settings.model_dump(mode="json")
    document["training"] |= {"start": "2012-01-03", "test_start": "2012-12-31", "live_start": live_start}
    return Settings.model_validate(document)


def test_the_training_view_ends_before_the_live_period(lake: Lake, build: Any, settings: Settings) -> None:
    build(under=moved(settings, "2013-07-01"))
    bucket = Bucket(lake.processed_bucket)
    table, view = read_features(bucket), read_features(bucket, prefix=TRAINING)
    assert view["session"].max() == pd.Timestamp("2013-06-28")
    pd.testing.assert_frame_equal(view, table[table["session"] < "2013-07-01"].reset_index(drop=True))
    manifest = json.loads(bucket.get(TRAINING + "manifest.json") or b"")
    assert (manifest["end"], manifest["rows"]) == ("2013-06-28", len(view))
    same = {key.removeprefix(TRAINING) for key in bucket.index(TRAINING)} & {key.removeprefix(FEATURES) for key in bucket.index(FEATURES)}
    assert {name.split("/")[0] for name in same if name != "manifest.json"} == {"year=2012"}


def test_an_automatic_live_start_gives_training_every_session_of_each_night(lake: Lake, build: Any, settings: Settings) -> None:
    bucket, automatic = Bucket(lake.processed_bucket), moved(settings, "auto")
    build(under=automatic)
    assert read_features(bucket, prefix=TRAINING)["session"].max() == pd.Timestamp("2014-12-31")
    fill_raw(lake, symbols=settings.universe.symbols, start=START, end="2015-01-02")
    build(time="2015-01-02T23:30:00Z", under=automatic)
    assert read_features(bucket, prefix=TRAINING)["session"].max() == pd.Timestamp("2015-01-02")
    assert json.loads(bucket.get(TRAINING + "manifest.json") or b"")["end"] == "2015-01-02"


def test_moving_the_live_period_back_takes_rows_out_of_the_view(lake: Lake, build: Any, settings: Settings) -> None:
    build(under=moved(settings, "2014-07-01"))
    build(under=moved(settings, "2013-07-01"))
    bucket = Bucket(lake.processed_bucket)
    assert read_features(bucket, prefix=TRAINING)["session"].max() == pd.Timestamp("2013-06-28")
    assert not [key for key in bucket.index(TRAINING) if "year=2014" in key]


def test_the_hash_of_the_code_covers_every_module_that_computes_a_column() -> None:
    """One that it missed could change a formula and leave the years before as they were."""
    program = (
        "import sys, trading_env.data.features, trading_env.data.sentiment; print(*(m for m in sys.modules if 'trading_env.data.' in m))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    hashed = {f"{package}.{name.removesuffix('.py').replace('/', '.')}" for package, name in SOURCES}
    assert set(loaded) <= hashed
