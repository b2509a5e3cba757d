"""The backfill with slot rows, from the real minutes of October 2013 at a real exchange into S3: gathered once, by months, and kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from types import SimpleNamespace
from typing import Any

import boto3
import pandas as pd
import pytest

from lambdas.backfill_bars import slots
from lambdas.backfill_bars.backfill import BackfillError
from lambdas.backfill_bars.handler import handler
from lambdas.common.broker.port import QueryRefused
from lambdas.common.lake import lake as lakes
from lambdas.common.lake.lake import Lake
from local.exchange.server import RunningExchange
from papertape.market_data.sessions import hours_between
from schema.lake_layout import bars_key, bars_prefix
from schema.settings import SETTINGS_FILE, Settings, deployed
from schema.slot import SlotRows
from tests.aws.proxy import running
from tests.settings_files import settings_file
from trading_env.data.raw_lines import bar_table
from trading_env.data.slot_bars import slot_bars

ROWS = SlotRows((5, 120), 30)
REAL = ("AIG", "BAC", "IBM", "SPY")
FRIDAY = "2013-10-11T22:00:00Z"
NIGHT = {"schedule": "backfill_bars", "time": FRIDAY}


@pytest.fixture
def by_slot(settings: Settings) -> Settings:
    training = settings.training.model_copy(update={"timeframe": "1Min"})
    schedule = settings.schedule.model_copy(update={"slots": ("open+5", "open+120")})
    return settings.model_copy(update={"training": training, "schedule": schedule})


@pytest.fixture
def lake(exchange: RunningExchange, buckets: SimpleNamespace, by_slot: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """The evening of a Friday of which minutes are recorded."""
    exchange.reset(now=FRIDAY, cash="100000")
    monkeypatch.setenv(SETTINGS_FILE, settings_file(by_slot))
    lakes.lake.cache_clear()
    yield Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw)
    lakes.lake.cache_clear()


def run(event: dict[str, Any], context: Any = None) -> dict[str, Any]:
    return handler(event, context)  # type: ignore[no-any-return]


def stored(lake: Lake, symbol: str = "SPY", year: int = 2013) -> list[dict[str, Any]]:
    key = bars_key(symbol, year, ROWS)
    return lake.read([key], prefix=bars_prefix(ROWS)).get(key, [])


def test_a_night_gathers_the_last_sessions_minutes_beside_their_daily_bars(lake: Lake) -> None:
    done = run(NIGHT)
    assert (done["start"], done["end"], done["silent"]) == ("2013-10-03", "2013-10-11", [])
    found = done["slots"]
    assert (found["rows"], found["restated"], found["quarantined"], found["late"]) == (4 * 6 * 2, 0, 0, 0)
    assert found["silent"] == ["QQQ", "IWM", "AAPL", "GOOG"], "minutes of four names are recorded"
    trades = pd.read_parquet("data/minute_trades.parquet")
    hours = hours_between(date(2013, 10, 3), date(2013, 10, 11))
    own = slot_bars(trades, hours=hours, slots=ROWS.slots, window=ROWS.window).bars
    lines = [line for symbol in REAL for line in stored(lake, symbol)]
    pd.testing.assert_frame_equal(bar_table(lines, by_slot=True), own, check_exact=True, check_dtype=False)
    assert lines[0]["ts"] == "2013-10-04T13:35:00Z"
    assert bars_key("SPY", 2013, ROWS) == "raw/bars/timeframe=1Min/feed=iex/slots=5-120/window=30/symbol=SPY/2013.jsonl.gz"
    assert len(lake.bars(symbols=["SPY"], years=[2013])) == 7

    before = lake.raw_index("raw/")
    again = run(NIGHT)
    assert (again["objects_written"], again["slots"]["objects_written"]) == (0, 0)
    assert lake.raw_index("raw/") == before


def test_a_restated_row_replaces_and_what_is_not_sent_stays(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    run(NIGHT)
    good = stored(lake)
    old = {**good[0], "ts": "2013-09-03T13:35:00Z"}
    key = bars_key("SPY", 2013, ROWS)
    lake.write({key: [old, *good[:-1], {**good[-1], "close": 1.0}]})
    assert run(NIGHT)["slots"]["restated"] == 1
    assert stored(lake) == [old, *good]
    (told,) = [record for record in caplog.records if record.message == "slot rows restated"]
    assert told.first == f"SPY 2013-10-11T15:30:00Z close 1.0 -> {good[-1]['close']}"  # type: ignore[attr-defined]


def test_with_daily_bars_nothing_is_different(lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings))
    assert "slots" not in run(NIGHT)
    assert not lake.raw_index("raw/bars/timeframe=1Min/")


def test_a_feed_that_is_silent_is_an_error_after_the_daily_bars_and_none_of_a_past_without_minutes(
    lake: Lake, exchange: RunningExchange
) -> None:
    assert run({"start": "2013-09-03", "end": "2013-09-30"})["slots"]["rows"] == 0
    exchange.reset(now="2013-10-31T22:00:00Z", cash="100000")
    with pytest.raises(BackfillError, match=r"no minute that the vendor's feed 'iex' sent from 2013-10-23 to 2013-10-31 .*minutes_feed"):
        run(NIGHT)
    assert lake.bars(symbols=["SPY"], years=[2013])[-1]["ts"].startswith("2013-10-31")


def test_without_time_for_another_month_it_says_where_to_go_on_and_a_second_run_does(lake: Lake) -> None:
    span = {"start": "2013-09-03", "end": "2013-10-11"}
    late = SimpleNamespace(aws_request_id="one", get_remaining_time_in_millis=lambda: 10_000)
    first = run(span, late)
    assert (first["slots"]["next"], first["slots"]["rows"]) == ("2013-10-01", 0)
    second = run({**span, "start": first["slots"]["next"]}, late)
    assert ("next" in second["slots"], second["slots"]["rows"]) == (False, 48)
    assert len(stored(lake)) == 12


def test_a_night_without_time_for_its_minutes_is_an_error(lake: Lake, exchange: RunningExchange) -> None:
    exchange.reset(now="2013-10-04T22:00:00Z", cash="100000")
    with pytest.raises(BackfillError, match="none from 2013-10-01 on is stored"):
        run(NIGHT, SimpleNamespace(aws_request_id="one", get_remaining_time_in_millis=lambda: 10_000))


def test_many_names_come_in_groups_that_memory_holds(lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    whole = run(NIGHT)["slots"]
    rows = {symbol: stored(lake, symbol) for symbol in REAL}
    for key in lake.raw_index("raw/bars/timeframe=1Min/"):
        lake.s3.delete_object(Bucket=lake.raw_bucket, Key=key)
    monkeypatch.setattr(slots, "MINUTES_PER_FETCH", 1)
    caplog.clear()
    assert run(NIGHT)["slots"] == whole
    universe = deployed().universe.symbols
    assert [record.message for record in caplog.records].count("minutes gathered") == len(universe), "one name at a time"
    assert {symbol: stored(lake, symbol) for symbol in REAL} == rows


def test_months_that_came_stay_when_a_later_one_is_refused(lake: Lake, exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange.reset(now="2013-11-29T22:00:00Z", cash="100000")

    def beyond_the_plan(_method: str, path: str, _body: bytes) -> tuple[int, bytes] | None:
        refused = "timeframe=1Min" in path and "start=2013-11" in path
        return (403, b'{"message": "subscription does not permit querying recent SIP data"}') if refused else None

    with running(exchange.url) as between:
        between.instead = beyond_the_plan
        monkeypatch.setenv("ALPACA_DATA_URL", between.url)
        with pytest.raises(QueryRefused, match=r"recent SIP data\); settings.data.minutes_feed is 'iex'"):
            run({"start": "2013-10-01"})
    assert [row["ts"][:10] for row in stored(lake)][::2] == ["2013-10-04", *(f"2013-10-{day:02}" for day in range(7, 12))]
    assert lake.bars(symbols=["SPY"], years=[2013])[-1]["ts"].startswith("2013-11-29"), "the daily bars were stored before"


def test_minutes_that_are_no_bars_and_slots_that_open_late_are_counted_and_logged(
    lake: Lake, exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def spoil(path: str, content: bytes) -> bytes:
        if "timeframe=1Min" not in path:
            return content
        body = json.loads(content)
        for bar in body["bars"].get("SPY", ()):
            bar["h"] = 0.01 if bar["t"] == "2013-10-08T15:00:00Z" else bar["h"]
        if "BAC" in body["bars"]:
            window = ("2013-10-07T13:35", "2013-10-07T14:05")
            body["bars"]["BAC"] = [bar for bar in body["bars"]["BAC"] if not window[0] <= bar["t"] < window[1]]
        return json.dumps(body).encode()

    with running(exchange.url) as between:
        between.rewrite = spoil
        monkeypatch.setenv("ALPACA_DATA_URL", between.url)
        found = run(NIGHT)["slots"]
    assert (found["rows"], found["quarantined"], found["late"], found["outside"] > 0) == (47, 1, 1, True)
    assert "2013-10-07T13:35:00Z" not in {row["ts"] for row in stored(lake, "BAC")}
    told = {record.message: record for record in caplog.records}
    assert told["minutes set aside"].minutes == 1  # type: ignore[attr-defined]
    assert told["slots without a minute in their window"].slots == {"BAC": 1}  # type: ignore[attr-defined]


def test_rows_around_a_split_are_as_they_were_traded(lake: Lake, exchange: RunningExchange) -> None:
    """AAPL's of 9 June 2014 was seven for one; the action is stored beside them, and applied when a market is built."""
    exchange.reset(now="2014-06-09T22:00:00Z", cash="100000")
    run({"schedule": "backfill_bars", "time": "2014-06-09T22:00:00Z"})
    closes = {row["ts"][:10]: row["close"] for row in stored(lake, "AAPL", 2014)}
    assert closes["2014-06-06"] == pytest.approx(7 * closes["2014-06-09"], rel=0.02)
    assert [row["value"] for row in lake.actions(symbols=["AAPL"]) if row["ex_date"] == "2014-06-09"] == [7.0]
