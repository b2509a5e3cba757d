"""Market data of the exchange, as the vendor's client reads them: series with pages and both directions, the latest, snapshots."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.requests import (
    NewsRequest,
    StockBarsRequest,
    StockQuotesRequest,
    StockSnapshotRequest,
    StockTradesRequest,
)
from alpaca.data.timeframe import TimeFrame

from tests.exchanges import ExchangeClient, refusal

START = datetime(2020, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def client() -> ExchangeClient:
    """On 2020-01-03 at noon: two recorded minutes of AAPL and SPY on the day before, and nine sessions' bars."""
    return ExchangeClient(now=datetime.fromisoformat("2020-01-03T17:00:00Z"))


def test_quotes_and_trades_are_the_last_of_each_recorded_minute(client: ExchangeClient) -> None:
    quotes = client.stocks.get_stock_quotes(StockQuotesRequest(symbol_or_symbols=["AAPL", "SPY", "IBM"], start=START)).data
    assert {symbol: len(rows) for symbol, rows in quotes.items()} == {"AAPL": 2, "SPY": 2}
    assert [(q.timestamp, q.bid_price, q.ask_price, q.bid_size, q.ask_size) for q in quotes["AAPL"]] == [
        (datetime(2020, 1, 2, 14, 38, 59, 999000, tzinfo=UTC), 100.99, 101.01, 200, 300),
        (datetime(2020, 1, 2, 14, 39, 59, 999000, tzinfo=UTC), 98.99, 99.01, 200, 300),
    ]
    trades = client.stocks.get_stock_trades(StockTradesRequest(symbol_or_symbols="AAPL", start=START)).data["AAPL"]
    assert [trade.timestamp for trade in trades] == [quote.timestamp for quote in quotes["AAPL"]]
    assert [trade.price for trade in trades] == [101, 99]


def test_nothing_is_told_before_it_was() -> None:
    client = ExchangeClient(now=datetime.fromisoformat("2020-01-02T14:38:59.998Z"))
    for name in ("quotes", "trades", "bars"):
        assert client.get("/v2/stocks/AAPL/" + name, timeframe="1Min").json()[name] == []
    client.advance("2020-01-02T14:39:00Z")
    for name in ("quotes", "trades", "bars"):
        assert len(client.get("/v2/stocks/AAPL/" + name, timeframe="1Min").json()[name]) == 1


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v2/stocks/bars", {"symbols": "SPY,IBM,AAPL", "timeframe": "1Day", "start": "2019-12-23"}),
        ("/v2/stocks/bars", {"symbols": "SPY,AAPL,IBM", "timeframe": "1Min", "start": "2020-01-02"}),
        ("/v2/stocks/quotes", {"symbols": "SPY,AAPL", "start": "2020-01-02"}),
        ("/v2/stocks/trades", {"symbols": "SPY,AAPL", "start": "2020-01-02"}),
    ],
)
def test_pages_hold_every_row_once_in_both_directions(client: ExchangeClient, path: str, query: dict[str, str]) -> None:
    name = path.rsplit("/", 1)[1]
    wholes = {sort: client.get(path, sort=sort, **query).json()[name] for sort in ("asc", "desc")}
    assert wholes["desc"] == {symbol: rows[::-1] for symbol, rows in wholes["asc"].items()}
    rows = sum(len(rows) for rows in wholes["asc"].values())
    assert rows >= 4
    for sort, whole in wholes.items():
        for limit in (1, 3, rows - 1, rows):
            seen: dict[str, list[Any]] = {}
            token, pages = None, 0
            while pages == 0 or token is not None:
                page = client.get(path, sort=sort, limit=limit, page_token=token, **query).json()
                assert 0 < sum(len(rows) for rows in page[name].values()) <= limit
                for symbol, part in page[name].items():
                    seen.setdefault(symbol, []).extend(part)
                token, pages = page["next_page_token"], pages + 1
            assert (seen, pages) == (whole, -(-rows // limit))


def test_one_symbol_is_asked_for_by_its_path(client: ExchangeClient) -> None:
    for name, query in (("bars", {"timeframe": "1Day"}), ("quotes", {}), ("trades", {})):
        query |= {"start": "2020-01-02", "limit": "1"}
        one = client.get(f"/v2/stocks/AAPL/{name}", **query).json()
        many = client.get(f"/v2/stocks/{name}", symbols="AAPL", **query).json()
        assert one == {name: many[name]["AAPL"], "symbol": "AAPL", "next_page_token": many["next_page_token"]}
        assert client.get(f"/v2/stocks/ZZZZ/{name}", **query).json() == {name: [], "symbol": "ZZZZ", "next_page_token": None}


def test_the_latest_of_one_symbol(client: ExchangeClient) -> None:
    for name in ("quote", "trade"):
        many = client.get(f"/v2/stocks/{name}s/latest", symbols="AAPL,ZZZZ").json()[name + "s"]
        assert client.get(f"/v2/stocks/AAPL/{name}s/latest").json() == {"symbol": "AAPL", name: many["AAPL"]}
        assert refusal(client.get(f"/v2/stocks/ZZZZ/{name}s/latest")) == (404, 40410000, f"no {name} found for ZZZZ")
    assert refusal(client.get("/v2/stocks/ZZZZ/bars/latest")) == (404, 40410000, "no bar found for ZZZZ")
    during = ExchangeClient(now=datetime.fromisoformat("2020-01-02T14:40:00Z"))
    assert during.get("/v2/stocks/AAPL/bars/latest").json()["bar"]["c"] == 99


def test_a_snapshot_has_what_is_known_of_the_running_session() -> None:
    client = ExchangeClient(now=datetime.fromisoformat("2020-01-02T14:40:00Z"))
    found = client.stocks.get_stock_snapshot(StockSnapshotRequest(symbol_or_symbols=["AAPL", "IBM", "ZZZZ"]))
    assert found.keys() == {"AAPL", "IBM"}
    snapshot = found["AAPL"]
    assert (snapshot.latest_trade.price, snapshot.latest_quote.ask_price, snapshot.minute_bar.close) == (99, 99.01, 99)
    day = snapshot.daily_bar
    assert (day.timestamp, day.open, day.high, day.low, day.close, day.volume) == (
        datetime(2020, 1, 2, 5, tzinfo=UTC),
        100.06,
        102,
        98,
        99,
        1000,
    )
    assert (snapshot.previous_daily_bar.timestamp, snapshot.previous_daily_bar.close) == (datetime(2019, 12, 31, 5, tzinfo=UTC), 104.05)
    without = found["IBM"]
    assert without.minute_bar.timestamp == datetime(2020, 1, 2, 14, 30, tzinfo=UTC)
    assert {without.daily_bar.open, without.daily_bar.high, without.daily_bar.low, without.daily_bar.close} == {50.06}
    many = client.get("/v2/stocks/snapshots", symbols="AAPL").json()
    assert client.get("/v2/stocks/AAPL/snapshot").json() == {"symbol": "AAPL", **many["AAPL"]}


def test_a_snapshot_after_the_close_has_the_whole_session() -> None:
    client = ExchangeClient(now=datetime.fromisoformat("2020-01-02T21:00:00Z"))
    day = client.stocks.get_stock_snapshot(StockSnapshotRequest(symbol_or_symbols="AAPL"))["AAPL"].daily_bar
    (bar,) = client.stocks.get_stock_bars(StockBarsRequest(symbol_or_symbols="AAPL", timeframe=TimeFrame.Day, start=START)).data["AAPL"]
    assert (day, day.volume) == (bar, 1_000_000)
    client.advance("2020-01-03T12:00:00Z")
    assert client.stocks.get_stock_snapshot(StockSnapshotRequest(symbol_or_symbols="AAPL"))["AAPL"].daily_bar == bar


def test_before_its_first_session_a_symbol_has_no_snapshot() -> None:
    client = ExchangeClient(now=datetime.fromisoformat("2019-12-20T15:00:00Z"))
    assert client.get("/v2/stocks/snapshots", symbols="AAPL").json() == {}
    assert refusal(client.get("/v2/stocks/AAPL/snapshot")) == (404, 40410000, "no snapshot found for AAPL")


def test_what_was_not_recorded_is_not_answered(client: ExchangeClient) -> None:
    for path, query in [
        ("/v2/stocks/quotes", {"symbols": "AAPL", "currency": "EUR"}),
        ("/v2/stocks/quotes", {"symbols": "AAPL", "feed": "rumour"}),
        ("/v2/stocks/AAPL/quotes/latest", {"currency": "EUR"}),
        ("/v2/stocks/snapshots", {"symbols": "AAPL", "feed": "rumour"}),
        ("/v2/stocks/snapshots", {}),
        ("/v2/stocks/bars", {"symbols": "AAPL", "timeframe": "1Day", "limit": "9" * 5000}),
    ]:
        assert client.get(path, **query).status_code == 400
    assert client.get("/v2/stocks/quotes", symbols="AAPL", feed="iex", currency="USD").status_code == 200
    with pytest.raises(APIError, match="feed must be one of"):
        client.stocks.get("/stocks/quotes", {"symbols": "AAPL", "feed": "rumour"})


def test_corporate_actions_by_id_kind_and_region() -> None:
    client = ExchangeClient(now=datetime.fromisoformat("2020-02-10T15:00:00Z"))
    query = {"start": "2020-01-01", "end": "2020-03-31"}
    both = client.get("/v1/corporate-actions", **query).json()["corporate_actions"]
    assert both.keys() == {"forward_splits", "cash_dividends"}
    split_id = both["forward_splits"][0]["id"]
    assert client.get("/v1/corporate-actions", **query, ids=split_id).json()["corporate_actions"].keys() == {"forward_splits"}
    assert client.get("/v1/corporate-actions", **query, types="cash_dividend").json()["corporate_actions"].keys() == {"cash_dividends"}
    for nothing in ({"region": "non_us"}, {"cusips": "037833100"}, {"ids": "none"}):
        assert client.get("/v1/corporate-actions", **query, **nothing).json()["corporate_actions"] == {}
    assert client.get("/v1/corporate-actions", region="moon").status_code == 422


def test_corporate_actions_are_filtered_and_sorted_by_their_process_date() -> None:
    """AAPL's split of 2020-02-03 is processed at once, IBM's dividend of 2020-02-07 on the day it is paid, 2020-03-20."""

    def listed(**query: str) -> list[tuple[str, str]]:
        found = client.get("/v1/corporate-actions", **query).json()["corporate_actions"]
        return [(row["ex_date"], row["process_date"]) for rows in found.values() for row in rows]

    split, dividend = ("2020-02-03", "2020-02-03"), ("2020-02-07", "2020-03-20")
    client = ExchangeClient(now=datetime.fromisoformat("2020-02-06T15:00:00Z"))
    assert listed(start="2020-01-01", end="2020-06-01") == [split], "nothing is listed before its ex-date"
    client.advance("2020-02-07T15:00:00Z")
    assert listed(start="2020-01-01") == [split], "without an end it is today, and the dividend's process date lies ahead"
    assert listed(start="2020-01-01", end="2020-06-01") == [split, dividend]
    assert listed(start="2020-02-04", end="2020-06-01", symbols="IBM") == [dividend]
    assert listed(start="2020-01-01", end="2020-03-19") == [split]


def test_an_exchange_may_list_only_what_is_processed() -> None:
    client = ExchangeClient(now=datetime.fromisoformat("2020-03-19T15:00:00Z"), lists_announced=False)
    query = {"start": "2020-01-01", "end": "2020-06-01", "types": "cash_dividend"}
    assert client.get("/v1/corporate-actions", **query).json()["corporate_actions"] == {}
    client.advance("2020-03-20T04:00:00Z")
    (paid,) = client.get("/v1/corporate-actions", **query).json()["corporate_actions"]["cash_dividends"]
    assert (paid["ex_date"], paid["payable_date"], paid["rate"]) == ("2020-02-07", "2020-03-20", 0.5)


def test_over_prices_of_one_s_own_news_is_an_empty_list(client: ExchangeClient) -> None:
    assert client.news.get_news(NewsRequest(symbols="AAPL", limit=5)).data == {"news": []}
    assert client.get("/v1beta1/news", limit="51").status_code == 400
    assert client.get("/v1beta1/news", start="then").status_code == 400


def test_settlement_dates(client: ExchangeClient) -> None:
    days = {"start": "2020-01-06", "end": "2020-01-07"}
    assert [row["date"] for row in client.get("/v2/calendar", **days).json()] == ["2020-01-06", "2020-01-07"]
    settling = client.get("/v2/calendar", **days, date_type="SETTLEMENT").json()
    assert [(row["date"], row["settlement_date"]) for row in settling] == [("2020-01-02", "2020-01-06"), ("2020-01-03", "2020-01-07")]
    assert client.get("/v2/calendar", date_type="WEEKLY").status_code == 422
