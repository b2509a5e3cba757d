"""An exchange that is told nothing begins where its data make sense, and says what it serves."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

import pandas as pd
import pytest

from local.exchange.http.listings import exchange_of, tape_of
from local.exchange.market.first_start import default_start, require_within
from local.exchange.recorded_market import RecordedMarket
from local.exchange.server import ROOT
from local.exchange.sessions import ExchangeCalendar

CALENDAR = ExchangeCalendar.xnys(start=date(2019, 1, 2), end=date(2021, 12, 31))
ACTIONS = pd.DataFrame([], columns=["symbol", "ex_date", "kind", "value"])


def market(first: str, last: str) -> RecordedMarket:
    days = [session.date for session in CALENDAR.between(date.fromisoformat(first), date.fromisoformat(last))]
    columns = ["symbol", "session", "open", "high", "low", "close", "volume"]
    bars = pd.DataFrame([("XYZ", pd.Timestamp(day), 10.0, 11.0, 9.0, 10.0, 100.0) for day in days], columns=columns)
    return RecordedMarket(calendar=CALENDAR, bars=bars, actions=ACTIONS)


@pytest.mark.parametrize(
    ("first", "last", "start"),
    [
        ("2019-01-02", "2020-12-31", "2020-01-02T14:35:00Z"),
        ("2019-07-05", "2020-12-31", "2020-07-06T13:35:00Z"),
        ("2019-12-02", "2020-06-30", "2020-06-30T13:35:00Z"),
        ("2020-01-02", "2020-01-02", "2020-01-02T14:35:00Z"),
    ],
)
def test_it_begins_with_a_year_behind_it_or_on_the_last_session(first: str, last: str, start: str) -> None:
    own = market(first, last)
    begins = default_start(own, bundled=False)
    assert begins == datetime.fromisoformat(start)
    require_within(own, begins)
    assert own.last_trade("XYZ", begins) is not None


def test_a_start_outside_the_data_is_refused() -> None:
    own = market("2019-07-05", "2020-01-02")
    for moment in ("2019-07-05T04:00:00Z", "2020-01-02T23:59:00Z"):
        require_within(own, datetime.fromisoformat(moment))
    for moment in ("2019-07-05T03:59:59Z", "2020-01-03T05:00:01Z"):
        with pytest.raises(ValueError, match="now must lie from 2019-07-05 to 2020-01-02, where the data have bars, was 20"):
            require_within(own, datetime.fromisoformat(moment))


def test_the_ready_line_says_what_is_served(tmp_path: Path) -> None:
    data = tmp_path / "mine.csv"
    rows = [f"NVDA,{day},10,11,9,10.5,1000" for day in ("2024-03-04", "2024-03-05")]
    data.write_text("\n".join(["symbol,date,open,high,low,close,volume", *rows]), encoding="utf-8")
    command = [sys.executable, "-m", "local.exchange", "--data", str(data), "--speed", "60", "--minutes", "made"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate()
    assert ready == {
        "port": ready["port"],
        "pid": process.pid,
        "url": f"http://127.0.0.1:{ready['port']}",
        "key_id": "local-key",
        "secret_key": "local-secret",
        "data": {"first": "2024-03-04", "last": "2024-03-05", "symbols": 1},
        "now": "2024-03-05T14:35:00Z",
        "clock": "runs, 60 market seconds per second",
        "minutes": "made from daily bars",
    }


@pytest.mark.parametrize(
    ("symbol", "exchange", "tape"),
    [
        ("F", "NYSE", "A"),
        ("BRK.B", "NYSE", "A"),
        ("NVDA", "NASDAQ", "C"),
        ("VOO", "ARCA", "B"),
        ("GOOG", "NASDAQ", "C"),
        ("SPY", "ARCA", "B"),
    ],
)
def test_a_symbol_of_one_s_own_has_the_exchange_that_is_usual(symbol: str, exchange: str, tape: str) -> None:
    assert (exchange_of(symbol), tape_of(symbol)) == (exchange, tape)
