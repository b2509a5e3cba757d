"""The servers that stand for vendors, against what the vendors publish: their descriptions, and their own packages as clients."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import finnhub
import pytest
from alpaca.data.enums import Adjustment, DataFeed
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.requests import StockBarsRequest
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

from sources.port import SourceRefused
from tests.contract.exchange.test_schema import validator
from tests.price_vendors import (
    FIRST,
    KEY,
    LAST,
    SECRET,
    SPLIT_DAY,
    AlpacaVendor,
    AlphaVantageVendor,
    FinnhubVendor,
    InteractiveBrokersVendor,
    VendorServer,
    serving,
)

BOTH = ["AAPL", "BRK.B"]


@pytest.fixture
def alpaca() -> Iterator[VendorServer]:
    with serving(AlpacaVendor()) as server:
        yield server


@pytest.fixture
def finnhub_server() -> Iterator[VendorServer]:
    with serving(FinnhubVendor()) as server:
        yield server


@pytest.mark.parametrize("vendor", [AlpacaVendor, FinnhubVendor])
def test_each_answer_is_what_the_vendor_describes(vendor: type[AlpacaVendor | FinnhubVendor]) -> None:
    with serving(vendor()) as server:
        source = server.vendor.source(server.url)
        source.daily_bars(BOTH, FIRST, LAST)
        source.last_prices(BOTH)
        assert len({path for path, _ in server.replies}) >= 3
        for path, body in server.replies:
            validator(server.vendor.described, path, "get", "200").validate(body)


#: What Interactive Brokers' description, version 2.29, says of the fields that are read; written by hand.
IBKR_BAR = {"o": float, "h": float, "l": float, "c": float, "v": float, "t": int}


def test_interactive_brokers_answers_have_the_types_of_its_description() -> None:
    with serving(InteractiveBrokersVendor()) as server:
        server.vendor.source(server.url).daily_bars(["AAPL"], SPLIT_DAY, LAST)
        (_, listed), (_, history) = server.replies
    assert {type(own["conid"]) for own in listed["AAPL"][0]["contracts"]} == {int}
    assert [{name: type(value) for name, value in bar.items()} for bar in history["data"][-1:]] == [IBKR_BAR]


def test_alpacas_own_package_reads_the_same_bars(alpaca: VendorServer) -> None:
    client = StockHistoricalDataClient(api_key=KEY, secret_key=SECRET, url_override=alpaca.url, raw_data=True)
    request = StockBarsRequest(
        symbol_or_symbols=BOTH,
        timeframe=TimeFrame(1, TimeFrameUnit.Day),
        start=datetime(2019, 1, 2, tzinfo=UTC),
        end=datetime(2020, 9, 2, tzinfo=UTC),
        adjustment=Adjustment.RAW,
        feed=DataFeed.SIP,
    )
    theirs: Any = client.get_stock_bars(request)
    ours = alpaca.vendor.source(alpaca.url).daily_bars(BOTH, datetime(2019, 1, 2, tzinfo=UTC).date(), LAST)
    rows = [(symbol, bar["t"], bar["o"], bar["h"], bar["l"], bar["c"], bar["v"]) for symbol in BOTH for bar in theirs[symbol]]
    assert rows == [tuple(row[name] for name in ("symbol", "ts", "open", "high", "low", "close", "volume")) for row in ours.rows]


def test_finnhubs_own_package_reads_the_same_candles_and_quotes(finnhub_server: VendorServer) -> None:
    client = finnhub.Client(api_key=KEY)
    client.API_URL = finnhub_server.url
    client._session.trust_env = False
    with client:
        first, last = (int(datetime(2020, 9, day, tzinfo=UTC).timestamp()) for day in (1, 3))
        candles, quote = client.stock_candles("AAPL", "D", first, last - 1), client.quote("AAPL")
    source = finnhub_server.vendor.source(finnhub_server.url)
    ours = source.daily_bars(["AAPL"], datetime(2020, 9, 1, tzinfo=UTC).date(), LAST).rows
    assert (candles["c"], candles["v"]) == ([row["close"] for row in ours], [row["volume"] for row in ours])
    assert quote["c"] == source.last_prices(["AAPL"])["AAPL"].price


def test_finnhubs_candles_are_paid_for_and_the_refusal_says_so(finnhub_server: VendorServer) -> None:
    finnhub_server.mend = lambda _reply: (403, {"error": "You don't have access to this resource."}, {})
    with pytest.raises(SourceRefused, match="/stock/candle is a paid endpoint, a free key has quotes and news alone"):
        finnhub_server.vendor.source(finnhub_server.url).daily_bars(["AAPL"], SPLIT_DAY, LAST)


def test_finnhubs_dividends_are_left_out_and_said_where_only_they_are_refused(finnhub_server: VendorServer) -> None:
    finnhub_server.mend = lambda reply: reply if isinstance(reply[1], dict) else (403, {"error": "You don't have access."}, {})
    found = finnhub_server.vendor.source(finnhub_server.url).daily_bars(["AAPL"], FIRST, LAST)
    assert (len(found.actions), found.remarks) == (0, ("dividends are left out: this plan does not have them",))


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        ({"Note": "Our standard API call frequency is 5 calls per minute and 25 calls per day."}, "SourceLimited"),
        ({"Information": f"We have detected your API key as {KEY} and our rate limit is 25 requests per day. premium"}, "SourceLimited"),
        ({"Information": "Thank you for using Alpha Vantage! This is a premium endpoint."}, "SourceRefused"),
        ({"Information": "The outputsize=full parameter value is a premium feature"}, "SourceRefused"),
        ({"Error Message": f"the parameter apikey is invalid or missing: {KEY}"}, "SourceRefused"),
        ({"Information": "The weather is fine."}, "SourceInvalid"),
        ({"Note": ["unexpected"]}, "SourceInvalid"),
    ],
)
def test_alpha_vantages_errors_that_come_with_status_200(told: dict[str, Any], outcome: str) -> None:
    with serving(AlphaVantageVendor()) as server:
        server.mend = lambda _reply: (200, told, {})
        for call in ("daily_bars", "last_prices"):
            days = (SPLIT_DAY, LAST) if call == "daily_bars" else ()
            with pytest.raises(Exception, match="alphavantage") as raised:
                getattr(server.vendor.source(server.url), call)(["AAPL"], *days)
            assert type(raised.value).__name__ == outcome
            assert KEY not in str(raised.value)


def test_alpha_vantages_day_is_counted_before_anything_is_asked() -> None:
    with serving(AlphaVantageVendor()) as server:
        source = server.vendor.source(server.url, sleep=lambda _seconds: None)
        with pytest.raises(Exception, match=r"27 calls are needed, and 25 of a free key's 25 a day are left; ask for fewer symbols"):
            source.daily_bars([f"A{number}" for number in range(9)], SPLIT_DAY, LAST)
        assert server.requests == []
        source.daily_bars(BOTH, SPLIT_DAY, LAST)
        with pytest.raises(Exception, match="20 calls are needed, and 19 of"):
            source.last_prices([f"A{number}" for number in range(20)])


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, {}), (302, {}), (400, {"error": "Bad Request: no bridge"}), (500, {"error": "not authenticated"}), (403, {})],
)
def test_interactive_brokers_without_a_session_says_how_to_log_in(status: int, body: dict[str, str]) -> None:
    with serving(InteractiveBrokersVendor()) as server:
        server.mend = lambda _reply: (status, body, {})
        with pytest.raises(SourceRefused, match="log in: open the gateway's page in a browser, or renew IBKR_TOKEN"):
            server.vendor.source(server.url).last_prices(["AAPL"])
        assert len(server.requests) == 1


def test_a_young_listing_ends_the_years_of_interactive_brokers() -> None:
    """Nothing is asked before the first year that begins late, for the vendor answers that with an error."""
    with serving(InteractiveBrokersVendor()) as server:
        found = server.vendor.source(server.url).daily_bars(["AAPL"], datetime(2010, 1, 4, tzinfo=UTC).date(), LAST)
        assert found.rows[0]["ts"].startswith(str(FIRST))
        assert len([path for path, _ in server.requests if path.endswith("history")]) == 3
