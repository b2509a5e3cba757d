"""Bars of every timeframe and adjustment, on the wire: put together of what is recorded, and never of what is not known yet."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.exchanges import ExchangeClient, refusal


def bars(client: ExchangeClient, symbol: str = "AAPL", **query: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/v2/stocks/{symbol}/bars", **query)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["bars"]
    return rows


def shape(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("t", "o", "h", "l", "c", "v"))


@pytest.fixture(scope="module")
def client() -> ExchangeClient:
    return ExchangeClient(now=datetime.fromisoformat("2020-02-12T15:00:00Z"))


@pytest.mark.parametrize(
    ("timeframe", "begins"),
    [("2Min", "14:38"), ("7T", "14:34"), ("30Min", "14:30"), ("59Min", "13:51"), ("1Hour", "14:00"), ("4H", "13:00"), ("23Hour", "05:00")],
)
def test_minutes_are_put_together_from_midnight_in_new_york(client: ExchangeClient, timeframe: str, begins: str) -> None:
    (row,) = bars(client, timeframe=timeframe, start="2020-01-02", end="2020-01-02")
    assert shape(row) == (f"2020-01-02T{begins}:00Z", 100, 102, 98, 99, 1000)


@pytest.mark.parametrize(
    ("timeframe", "expected"),
    [
        ("1Week", [("2019-12-23", 4), ("2019-12-30", 4), ("2020-01-06", 5), ("2020-01-13", 5), ("2020-01-20", 4), ("2020-01-27", 5)]),
        ("1Month", [("2019-12-01", 6), ("2020-01-01", 21)]),
        ("12M", [("2019-01-01", 6), ("2020-01-01", 21)]),
    ],
)
def test_days_are_put_together(timeframe: str, expected: list[tuple[str, int]]) -> None:
    client = ExchangeClient(now=datetime.fromisoformat("2020-02-02T15:00:00Z"))
    rows = bars(client, timeframe=timeframe, start="2019-01-01")
    assert [(row["t"], row["v"]) for row in rows] == [(f"{day}T05:00:00Z", sessions * 1_000_000) for day, sessions in expected]
    days = bars(client, timeframe="1Day", start="2019-01-01")
    assert (rows[0]["o"], rows[-1]["c"]) == (days[0]["o"], days[-1]["c"])
    assert (max(row["h"] for row in rows), min(row["l"] for row in rows)) == (max(d["h"] for d in days), min(d["l"] for d in days))


def test_a_bar_begins_in_the_span_that_was_asked_for_and_is_whole(client: ExchangeClient) -> None:
    span = {"start": "2020-01-02T14:37:00Z", "end": "2020-01-02T14:38:00Z"}
    (row,) = bars(client, timeframe="2Min", **span)
    assert (row["t"], row["c"], row["v"]) == ("2020-01-02T14:38:00Z", 99, 1000)
    assert bars(client, timeframe="5Min", **span) == []
    (week,) = bars(client, timeframe="1Week", start="2020-01-06", end="2020-01-07")
    assert week["v"] == 5_000_000


@pytest.mark.parametrize("timeframe", ["1Week", "1Day", "1Min"])
def test_pages_of_adjusted_bars_hold_every_row_once(client: ExchangeClient, timeframe: str) -> None:
    query = {"symbols": "SPY,AAPL", "timeframe": timeframe, "start": "2019-12-01", "adjustment": "all"}
    for sort in ("asc", "desc"):
        whole = client.get("/v2/stocks/bars", sort=sort, **query).json()["bars"]
        seen: dict[str, list[Any]] = {}
        token, pages = None, 0
        while pages == 0 or token is not None:
            page = client.get("/v2/stocks/bars", sort=sort, limit=3, page_token=token, **query).json()
            for symbol, rows in page["bars"].items():
                seen.setdefault(symbol, []).extend(rows)
            token, pages = page["next_page_token"], pages + 1
        assert seen == whole
        assert pages == -(-sum(map(len, whole.values())) // 3)


def test_a_split_halves_the_prices_before_it_and_a_dividend_takes_its_share() -> None:
    span = {"timeframe": "1Day", "start": "2020-01-31", "end": "2020-02-07"}
    client = ExchangeClient(now=datetime.fromisoformat("2020-02-01T15:00:00Z"))
    assert bars(client, adjustment="all", **span) == bars(client, **span), "no action is known yet"
    client.advance("2020-02-12T15:00:00Z")
    raw, split, every = (bars(client, adjustment=kind, **span) for kind in ("raw", "split", "dividend,split"))
    assert shape(raw[0])[1:] == (100.26, 105.26, 99.26, 104.26, 1_000_000)
    assert shape(split[0])[1:] == (50.13, 52.63, 49.63, 52.13, 2_000_000)
    assert split[1:] == raw[1:]
    assert every == split == bars(client, adjustment="all", **span)
    assert bars(client, adjustment="dividend", **span) == bars(client, adjustment="spin-off", **span) == raw
    before, paid = bars(client, "IBM", **span), bars(client, "IBM", adjustment="all", **span)
    factor = 1 - Decimal("0.5") / Decimal(str(before[-2]["c"]))
    assert [row["c"] for row in paid[:-1]] == [float(round(Decimal(str(row["c"])) * factor, 4)) for row in before[:-1]]
    assert (paid[-1], paid[0]["v"]) == (before[-1], before[0]["v"])
    minutes = bars(client, timeframe="1Min", start="2020-01-02", end="2020-01-02", adjustment="split")
    assert shape(minutes[0])[1:] == (50, 51, 49, 50.5, 1000)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"timeframe": "60Min"}, "was '60Min'"),
        ({"timeframe": "24Hour"}, "was '24Hour'"),
        ({"timeframe": "2Day"}, "was '2Day'"),
        ({"timeframe": "5Month"}, "timeframe must be 1-59Min, 1-23Hour, 1Day, 1Week, or 1, 2, 3, 4, 6 or 12Month, was '5Month'"),
        ({}, "was None"),
        ({"timeframe": "1Day", "adjustment": "both"}, "adjustment must be all, or some of split, dividend, spin-off, raw with commas"),
    ],
)
def test_what_is_no_timeframe_is_refused(client: ExchangeClient, query: dict[str, str], message: str) -> None:
    status, code, said = refusal(client.get("/v2/stocks/AAPL/bars", **query))
    assert (status, code) == (400, 40010000)
    assert message in said


def test_the_latest_bar_is_that_of_the_last_trade_s_minute_whatever_its_day() -> None:
    def latest(symbol: str = "AAPL") -> tuple[Any, ...]:
        return shape(client.get(f"/v2/stocks/{symbol}/bars/latest").json()["bar"])

    client = ExchangeClient(now=datetime.fromisoformat("2020-01-02T14:30:30Z"))
    assert latest() == ("2019-12-31T21:00:00Z", *[104.05] * 4, 0)
    client.advance("2020-01-02T14:31:00Z")
    assert latest() == ("2020-01-02T14:30:00Z", *[100.06] * 4, 0)
    client.advance("2020-01-02T14:39:00Z")
    assert latest() == ("2020-01-02T14:38:00Z", 100, 102, 98, 101, 500)
    assert latest("IBM") == ("2020-01-02T14:30:00Z", *[50.06] * 4, 0)
    client.advance("2020-01-04T14:39:00Z")
    assert latest() == ("2020-01-03T21:00:00Z", *[104.07] * 4, 0)
