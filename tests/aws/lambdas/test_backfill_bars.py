"""Backfilling from a real exchange process into S3: all history once, then nights that change only what is new."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from lambdas.backfill_bars.backfill import BackfillError
from lambdas.backfill_bars.handler import handler
from lambdas.common.lake import lake as lakes
from lambdas.common.lake.lake import Lake
from local.exchange.server import RunningExchange
from schema.lake_layout import actions_key, bars_key
from schema.settings import SETTINGS_FILE, Settings
from tests.settings_files import settings_file

ALL = {"start": "2005-01-03", "end": "2019-12-31"}
NIGHT = {"schedule": "backfill_bars", "time": "2020-01-02T23:00:00Z"}


@pytest.fixture
def lake(exchange: RunningExchange, buckets: SimpleNamespace) -> Iterator[Lake]:
    lakes.lake.cache_clear()
    yield Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw)
    lakes.lake.cache_clear()


def run(event: dict[str, Any]) -> dict[str, Any]:
    return handler(event, None)  # type: ignore[no-any-return]


def versions(lake: Lake) -> dict[str, str]:
    return lake.raw_index("raw/")


def test_all_history_is_filled_and_nothing_twice(lake: Lake, settings: Settings) -> None:
    done = run(ALL)
    assert (done["start"], done["end"], done["silent"], done["restated"]) == ("2005-01-03", "2019-12-31", [], 0)
    spy = lake.bars(symbols=["SPY"], years=range(2005, 2020))
    assert len(spy) == 3775
    assert [row["ts"] for row in spy] == sorted({row["ts"] for row in spy})
    assert {row["symbol"] for row in lake.bars(symbols=settings.universe.symbols, years=[2019])} == set(settings.universe.symbols)
    splits = [(row["ex_date"], row["action"], row["value"]) for row in lake.actions(symbols=["AAPL"]) if row["kind"] == "split"]
    assert splits == [("2005-02-28", "forward_split", 2.0), ("2014-06-09", "forward_split", 7.0)]
    assert lake.calendar(years=[2020]).is_session(lakes.date(2020, 12, 31))

    before = versions(lake)
    assert run(ALL)["objects_written"] == 0
    assert versions(lake) == before


def test_a_night_adds_the_completed_session_only(lake: Lake, exchange: RunningExchange) -> None:
    run({"start": "2019-12-02"})
    exchange.advance("2020-01-02T20:59:00Z")
    assert run(NIGHT)["end"] == "2019-12-31"
    assert lake.bars(symbols=["AAPL"], years=[2020]) == [], "the vendor tells the running day, and the lake does not ask"
    exchange.advance("2020-01-02T23:00:00Z")
    done = run(NIGHT)
    assert (done["start"], done["end"]) == ("2019-12-23", "2020-01-02")
    assert [row["ts"] for row in lake.bars(symbols=["AAPL"], years=[2020])] == ["2020-01-02T05:00:00Z"]
    assert run(NIGHT)["objects_written"] == 0


def test_a_restated_bar_replaces_and_is_logged(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    run({"start": "2019-12-02"})
    key = bars_key("IBM", 2019)
    good = lake.read([key], prefix=lakes.BARS)[key]
    lake.write({key: [*good[:-1], {**good[-1], "close": 1.0}]})
    done = run(NIGHT)
    assert done["restated"] == 1
    assert lake.read([key], prefix=lakes.BARS)[key] == good
    told = [record.bar for record in caplog.records if record.message == "restated"]  # type: ignore[attr-defined]
    assert told == [f"IBM 2019-12-31 close 1.0 -> {good[-1]['close']}"]


def test_a_withdrawn_action_leaves_and_an_older_one_stays(lake: Lake) -> None:
    run({"start": "2019-12-02"})
    stored = lake.actions(symbols=["SPY"])
    wrong = {"symbol": "SPY", "ex_date": "2019-12-24", "kind": "dividend", "value": 99.0}
    old = {"symbol": "SPY", "ex_date": "2015-03-20", "kind": "dividend", "value": 0.93}
    lake.write({actions_key("SPY"): [old, *stored, wrong]})
    run(NIGHT)
    assert lake.actions(symbols=["SPY"]) == [old, *stored]


def test_a_silent_vendor_is_an_error_and_changes_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    run({"start": "2019-12-02"})
    before = versions(lake)
    unknown = settings.model_copy(
        update={"universe": settings.universe.model_copy(update={"symbols": ("ZZZZ", "YYYY"), "benchmark": "ZZZZ"})}
    )
    monkeypatch.setenv(SETTINGS_FILE, settings_file(unknown))
    with pytest.raises(BackfillError, match="no bar of 2 symbols"):
        run(NIGHT)
    assert versions(lake) == before


def test_a_start_after_the_last_session_is_refused(lake: Lake) -> None:
    with pytest.raises(ValueError, match="start must not be after 2019-12-31"):
        run({"start": "2020-01-02"})
    assert versions(lake) == {}
