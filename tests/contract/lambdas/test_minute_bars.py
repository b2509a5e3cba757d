"""The vendor's one-minute bars through the app's adapter, beside what the vendor's own client gets of the same exchange."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from alpaca.data.enums import Adjustment, DataFeed
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.requests import StockBarsRequest
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

from lambdas.common.broker.alpaca import AlpacaBroker, Credentials
from local.exchange.server import RunningExchange
from tests.exchanges import ExchangeClient

NAMES = ("SPY", "AAPL", "IBM")
OPEN, CLOSE = datetime(2013, 10, 4, 13, 30, tzinfo=UTC), datetime(2013, 10, 4, 20, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def own(exchange: RunningExchange) -> AlpacaBroker:
    keys = Credentials(key_id=exchange.config.key_id, secret_key=exchange.config.secret_key)
    return AlpacaBroker(credentials=keys, trading_url=exchange.url, data_url=exchange.url)


def question(start: datetime, end: datetime) -> StockBarsRequest:
    return StockBarsRequest(
        symbol_or_symbols=list(NAMES),
        timeframe=TimeFrame(1, TimeFrameUnit.Minute),
        start=start,
        end=end,
        adjustment=Adjustment.RAW,
        feed=DataFeed.IEX,
    )


def test_rows_are_what_the_vendors_client_gets_by_name_and_minute(own: AlpacaBroker, exchange: RunningExchange) -> None:
    rows = own.minute_bars(NAMES, OPEN, CLOSE, feed="iex")
    client = StockHistoricalDataClient(exchange.config.key_id, exchange.config.secret_key, url_override=exchange.url)
    theirs = client.get_stock_bars(question(OPEN, CLOSE)).data  # type: ignore[union-attr]
    assert [
        (row["symbol"], datetime.fromisoformat(row["ts"]), row["open"], row["high"], row["low"], row["close"], row["volume"])
        for row in rows
    ] == [
        (bar.symbol, bar.timestamp, bar.open, bar.high, bar.low, bar.close, bar.volume)
        for symbol in sorted(theirs)
        for bar in theirs[symbol]
    ]
    assert {row["symbol"] for row in rows} == {"IBM", "SPY"}, "a name without minutes has no rows, and hides no other"
    assert rows[0]["ts"] == "2013-10-04T13:30:00Z"


def test_both_ends_are_included_and_a_minute_is_named_after_its_start(own: AlpacaBroker) -> None:
    rows = own.minute_bars(["SPY"], OPEN + 5 * MINUTE, OPEN + 7 * MINUTE, feed="sip")
    assert [row["ts"][11:16] for row in rows] == ["13:35", "13:36", "13:37"]
    assert own.minute_bars(["AAPL"], OPEN, CLOSE, feed="iex") == []


def test_a_minute_is_there_when_it_has_ended_and_not_before() -> None:
    made = ExchangeClient(now=datetime(2020, 1, 3, 16, 30, tzinfo=UTC), minutes="made")
    opened = datetime(2020, 1, 3, 14, 30, tzinfo=UTC)
    assert made.broker.minute_bars(["IBM"], opened, opened + timedelta(hours=6), feed="iex")[-1]["ts"] == "2020-01-03T16:29:00Z"


def test_a_month_comes_in_several_pages_each_minute_once() -> None:
    client = ExchangeClient(now=datetime(2020, 2, 3, 22, tzinfo=UTC), minutes="made")
    asked: list[str] = []
    client.broker._stocks._session.hooks["response"].append(lambda answer, *_, **__: asked.append(answer.url))
    rows = client.broker.minute_bars(["IBM", "AAPL"], datetime(2020, 1, 3, tzinfo=UTC), datetime(2020, 1, 31, 21, tzinfo=UTC), feed="iex")
    assert len(asked) == 2
    assert all("limit=10000" in url for url in asked)
    keys = [(row["symbol"], row["ts"]) for row in rows]
    assert keys == sorted(set(keys))
    assert len(keys) == 2 * 20 * 390


def test_prices_are_raw_where_a_split_lies_between() -> None:
    client = ExchangeClient(now=datetime(2020, 2, 4, 22, tzinfo=UTC), minutes="made")
    rows = client.broker.minute_bars(["AAPL"], datetime(2020, 1, 31, tzinfo=UTC), datetime(2020, 2, 3, 22, tzinfo=UTC), feed="iex")
    closes = {row["ts"][:10]: row["close"] for row in rows}
    assert closes["2020-01-31"] == pytest.approx(2 * closes["2020-02-03"], rel=0.01)
