"""The nightly table and `decide` read the same scored posts and hold the same bits of sentiment; without it, nothing of it is there."""

from __future__ import annotations

import json
from datetime import date
from types import SimpleNamespace
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest

from glue_jobs.build_features import main
from glue_jobs.features_job import find_inputs, with_scores
from glue_jobs.files import Bucket, read_features
from glue_jobs.spark import _with_sentiment
from lambdas.common.lake.lake import Lake, LakeError
from lambdas.decide.data import ScoredSources, market_snapshot
from lambdas.decide.decision import AccountAtClose, observe_state
from schema.lake_layout import features_manifest, sentiment_run
from schema.news import flagged
from schema.settings import SETTINGS_FILE, Settings
from tests.lakes import calendar_objects, fill_raw
from tests.scored_posts import SOURCES, fill_scores, objects
from tests.settings_files import settings_file
from trading_env.data.features import FEATURE_HASH, FEATURES
from trading_env.data.market import TABLE_COLUMNS, from_table, table_within, to_table
from trading_env.data.sentiment import SENTIMENT, SENTIMENT_NAMES, TABLES, SentimentError

BEGIN, DAYS = date(2014, 10, 20), 73  # to the year's end
AS_OF = (date(2014, 11, 28), date(2014, 12, 31))  # a half day, the newest


@pytest.fixture(scope="module")
def daily(settings: Settings) -> Settings:
    changes = {"features": {"sentiment": "daily"}, "news": {"sources": SOURCES}}
    return Settings.model_validate(settings.model_dump() | changes)


@pytest.fixture
def lake(buckets: SimpleNamespace, settings: Settings) -> Lake:
    lake = Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw, processed_bucket=buckets.processed)
    fill_raw(lake, symbols=settings.universe.symbols, start="2013-10-01", end="2014-12-31")
    return lake


def built(lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings))
    names = ["--RAW_BUCKET", lake.raw_bucket, "--PROCESSED_BUCKET", lake.processed_bucket]
    return main([*names, "--EVENT_TIME", "2014-12-31T23:30:00Z", "--ENGINE", "pandas"])


def snapshot(lake: Lake, settings: Settings, as_of: date, *, sentiment: bool = True) -> Any:
    """As a function sees it that has read nothing yet."""
    calendar = Lake(s3=lake.s3, raw_bucket=lake.raw_bucket).calendar(years=range(2010, 2016))
    scored = ScoredSources(SOURCES, dict(zip(calendar.sessions, calendar.closes, strict=True)))
    fresh = Lake(s3=lake.s3, raw_bucket=lake.raw_bucket, processed_bucket=lake.processed_bucket)
    return market_snapshot(
        lake=fresh,
        symbols=settings.universe.symbols,
        sessions=calendar.sessions,
        as_of=as_of,
        sentiment=scored if sentiment else None,
    )


def test_the_table_s_row_is_the_decision_s(lake: Lake, daily: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    lines = objects(symbols=daily.universe.symbols, first=BEGIN, days=DAYS)
    fill_scores(lake, lines)
    manifest = built(lake, daily, monkeypatch)
    assert manifest["feature_hash"] == TABLES["daily"].hash
    market = from_table(read_features(Bucket(lake.processed_bucket), feature_hash=TABLES["daily"].hash))
    assert market.features.shape[-1] == len(FEATURES) + len(SENTIMENT)
    assert market.tradable[-1].all()
    for as_of in AS_OF:
        live, row = snapshot(lake, daily, as_of), market.index_of(as_of)
        sentiment = live.market.features[-1, :, len(FEATURES) :]
        assert sentiment.tobytes() == np.ascontiguousarray(market.features[row, :, len(FEATURES) :]).tobytes()
        np.testing.assert_allclose(live.market.features[-1], market.features[row], rtol=0, atol=1e-9)
        assert (sentiment[:, 0] != 0).any()
        state = observe_state(market=live.market, account=AccountAtClose(cash=1e5, quantities={}, closes={}))
        assert state.feature_hash == TABLES["daily"].hash
    assert live.inputs_sha256 != snapshot(lake, daily, as_of, sentiment=False).inputs_sha256
    # The flags are the outages that were planted
    known = market.features[:, 0, -1]
    assert set(known[market.sessions > np.datetime64(BEGIN)]) == {0.0, 0.5, 1.0}
    assert (known[market.sessions < np.datetime64(BEGIN)] == 0).all()

    # A year's task of Spark, which reads the posts that its own rows can see, has the same table
    raw, processed = Bucket(lake.raw_bucket), Bucket(lake.processed_bucket)
    inputs = with_scores(find_inputs(raw, daily.universe.symbols), raw=raw, processed=processed, sources=SOURCES)
    assert inputs.scores is not None
    table, halo = to_table(market), market.sessions[market.sessions >= np.datetime64("2014-01-01")][0]
    year = table[table["session"] >= pd.Timestamp(halo)].reset_index(drop=True)
    plain = year.drop(columns=list(SENTIMENT_NAMES))
    told = _with_sentiment(plain, days=market.sessions, scores=inputs.scores, processed=processed, symbols=market.symbols)
    pd.testing.assert_frame_equal(told, year, check_exact=True)

    # What comes in after a close changes no bit of a decision that is made again
    before = snapshot(lake, daily, AS_OF[0]).market.features[-1].tobytes()
    fill_scores(lake, {key: rows * 3 for key, rows in lines.items() if 0 < (sentiment_run(key)[1].date() - AS_OF[0]).days < 4})
    assert snapshot(lake, daily, AS_OF[0]).market.features[-1].tobytes() == before


def test_without_sentiment_the_table_is_the_one_it_was(
    lake: Lake, settings: Settings, daily: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    built(lake, settings, monkeypatch)
    before = json.loads(Bucket(lake.processed_bucket).get(features_manifest()) or b"")
    fill_scores(lake, objects(symbols=settings.universe.symbols, first=date(2014, 12, 20), days=5))
    built(lake, daily, monkeypatch)
    with_posts = json.loads(Bucket(lake.processed_bucket).get(features_manifest()) or b"")
    built(lake, settings, monkeypatch)
    after = json.loads(Bucket(lake.processed_bucket).get(features_manifest()) or b"")
    assert after == before
    assert (before["feature_hash"], tuple(before["columns"])) == (FEATURE_HASH, TABLE_COLUMNS)
    assert with_posts["inputs_sha256"] != before["inputs_sha256"]
    assert set(with_posts["columns"]) - set(before["columns"]) == set(SENTIMENT_NAMES)
    assert table_within(snapshot(lake, settings, AS_OF[0], sentiment=False).market) == TABLES["none"]


def test_a_lake_without_a_post_is_neutral_and_not_known(lake: Lake, daily: Settings) -> None:
    assert (snapshot(lake, daily, AS_OF[1]).market.features[-1, :, len(FEATURES) :] == 0).all()


def test_posts_that_nobody_could_score_are_no_answer(lake: Lake, daily: Settings) -> None:
    lines = objects(symbols=daily.universe.symbols, first=date(2014, 12, 30), days=2)
    down = flagged("budget_spent", model="bedrock", version="1").model_dump(mode="json")
    fill_scores(lake, {key: [{**row, "sentiment": down} for row in rows] for key, rows in lines.items() if rows})
    assert (snapshot(lake, daily, AS_OF[1]).market.features[-1, :, len(FEATURES) :] == 0).all()


def test_an_object_that_cannot_be_read_stops_the_decision_with_its_key(lake: Lake, daily: Settings) -> None:
    key = "processed/sentiment/source=x/date=2014-12-31/2000.jsonl.gz"
    lake.s3.put_object(Bucket=lake.processed_bucket, Key=key, Body=b"half a bo")
    with pytest.raises(LakeError, match=f"{key}: is not gzipped JSON lines"):
        snapshot(lake, daily, AS_OF[1])
    line = objects(symbols=daily.universe.symbols, first=date(2014, 12, 30), days=9)
    good = next(rows[0] for rows in line.values() if rows)
    fill_scores(lake, {key: [good | {"received": "yesterday"}]})
    with pytest.raises(SentimentError, match=rf"{key}: received is not allowed: .*, was 'yesterday'"):
        snapshot(lake, daily, AS_OF[1])
    with pytest.raises(LakeError, match="this function was given none"):
        Lake(s3=lake.s3).scores(sources=SOURCES, since=sentiment_run(key)[1], until=sentiment_run(key)[1])


def test_the_calendar_of_the_test_closes_early_on_a_half_day() -> None:
    (half,) = [row for rows in calendar_objects().values() for row in rows if row["session"] == AS_OF[0].isoformat()]
    assert half["close"] == "2014-11-28T18:00:00Z"
