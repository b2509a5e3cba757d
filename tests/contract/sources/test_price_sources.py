"""What every source of prices now promises, asked over the socket of a server that answers as its vendor does."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sources.port import LastPrice, PriceSource, SourceError, SourceInvalid, SourceLimited, SourceRefused, SourceUnavailable
from tests.contract.sources.conftest import Vendor
from tests.price_vendors import KEY, LAST, LEAVES, Reply, bars, replaced

BOTH = ["AAPL", "BRK.B"]


def test_good(vendor: Vendor) -> None:
    """The newest price of each, in UTC, after the last session's start and not after its evening."""
    source: PriceSource = vendor.source
    prices = source.last_prices(BOTH)
    assert list(prices) == BOTH
    for symbol, price in prices.items():
        assert isinstance(price, LastPrice)
        assert price.symbol == symbol
        assert price.price == pytest.approx(bars(symbol, LAST, LAST, "raw")[0].close, abs=0.005)
        assert price.ts.utcoffset() is not None
        assert datetime(2020, 9, 2, 4, tzinfo=UTC) <= price.ts <= datetime(2020, 9, 3, tzinfo=UTC)


def test_a_side_that_is_empty_is_none(vendor: Vendor) -> None:
    """Alpaca says 0 and Interactive Brokers nothing for a side without an order."""
    price = vendor.source.last_prices(["AAPL"])["AAPL"]
    sides = {"alpaca": (None, pytest.approx(price.price + 0.01)), "ibkr": (pytest.approx(price.price - 0.01), None)}
    assert (price.bid, price.ask) == sides.get(vendor.name, (None, None))


def test_empty_and_a_symbol_that_it_does_not_know(vendor: Vendor) -> None:
    assert vendor.source.last_prices(["ZZZZ"]) == {}
    assert list(vendor.source.last_prices(["ZZZZ", "AAPL"])) == ["AAPL"]


def test_many_symbols(vendor: Vendor) -> None:
    """Each gets its own answer, however the vendor takes them: one request, or one each."""
    assert list(vendor.source.last_prices([*BOTH, "ZZZZ", "YYYY"])) == BOTH


def test_rate_limited(vendor: Vendor) -> None:
    vendor.server.limit(99, {"Retry-After": "60"})
    with pytest.raises(SourceLimited, match=vendor.name) as raised:
        vendor.source.last_prices(["AAPL"])
    assert len(vendor.server.requests) == 1
    assert KEY not in str(raised.value)


def test_a_revoked_key(vendor: Vendor) -> None:
    if not vendor.server.vendor.keyed:
        pytest.skip("has no key")
    vendor.server.revoke()
    with pytest.raises(SourceRefused, match=vendor.name) as raised:
        vendor.source.last_prices(["AAPL"])
    assert KEY not in str(raised.value)


def test_half_a_body(vendor: Vendor) -> None:
    def halved(reply: Reply) -> Reply:
        data = json.dumps(reply[1]).encode()
        return reply[0], data[: len(data) // 2], {}

    vendor.server.mend = halved
    with pytest.raises(SourceUnavailable, match=vendor.name):
        vendor.source.last_prices(["AAPL"])


@pytest.mark.parametrize("wrong", ["dear", [1], {"a": 1}, -3])
def test_a_wrong_type_names_the_field(vendor: Vendor, wrong: Any) -> None:
    """A last price that is none, in the vendor's own field."""
    if vendor.name == "yahoo" and not isinstance(wrong, str):
        pytest.skip("what its package makes of it is its own")
    fields = {"alpaca": "p", "alphavantage": "05. price", "finnhub": "c", "ibkr": "31", "yahoo": "Close"}
    field = fields[vendor.name]
    vendor.server.mend = lambda reply: (reply[0], _with(reply[1], field, wrong), reply[2])
    with pytest.raises(SourceInvalid, match=vendor.name) as raised:
        vendor.source.last_prices(["AAPL"])
    assert field in str(raised.value) or "dear" in str(raised.value)


def _with(body: Any, field: str, wrong: Any) -> Any:
    if isinstance(body, dict):
        return {
            key: ([wrong] * len(value) if field == "Close" else wrong) if key == field else _with(value, field, wrong)
            for key, value in body.items()
        }
    return [_with(value, field, wrong) for value in body] if isinstance(body, list) else body


def test_a_slow_server(vendor: Vendor) -> None:
    vendor.server.stall()
    hurried = vendor.hurried()
    with pytest.raises(SourceUnavailable, match=vendor.name):
        hurried.last_prices(["AAPL"])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(min_value=0), leaf=LEAVES)
def test_whatever_stands_anywhere_in_an_answer_the_outcome_is_the_ports(vendor: Vendor, at: int, leaf: Any) -> None:
    """One value of each answer is another: prices, or an error of the port, and no other."""
    if vendor.name == "yahoo":
        pytest.skip("its package reads the answer")
    vendor.server.mend = lambda reply: (reply[0], replaced(reply[1], at, leaf), reply[2])
    prices: dict[str, LastPrice] = {}
    with suppress(SourceError):
        prices = vendor.server.vendor.source(vendor.server.url, sleep=vendor.waited.append).last_prices(["AAPL"])
    assert all(isfinite(price.price) and price.price > 0 for price in prices.values())
