"""What every source of daily bars promises, asked over the socket of a server that answers as its vendor does."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from itertools import count
from math import isfinite
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from papertape.market_data.vendors import write_bars
from sources.port import BarSource, SourceError, SourceInvalid, SourceLimited, SourceRefused, SourceUnavailable
from tests.contract.sources.conftest import Vendor
from tests.price_vendors import (
    DAYS,
    DIVIDENDS,
    EX_DATE,
    FIRST,
    KEY,
    LAST,
    LEAVES,
    NOW,
    SECRET,
    SPLIT_DAY,
    AlpacaVendor,
    Reply,
    bars,
    replaced,
    serving,
    stamp,
)

BOTH = ["AAPL", "BRK.B"]
YEAR = date(2020, 1, 2)
WEEK = (date(2020, 8, 27), date(2020, 9, 2))


def test_good(vendor: Vendor) -> None:
    source: BarSource = vendor.source
    found = source.daily_bars(BOTH, *WEEK)
    assert found.missing == ()
    expected = [
        {"symbol": symbol, "ts": stamp(bar.day)} | {name: getattr(bar, name) for name in ("open", "high", "low", "close", "volume")}
        for symbol in BOTH
        for bar in bars(symbol, *WEEK, found.prices)
    ]
    assert list(found.rows) == expected
    assert not vendor.server.vendor.keyed or all(KEY in head or KEY.replace("+", "%2B") in head for head in vendor.server.heads)


def test_empty(vendor: Vendor) -> None:
    """A weekend has no bars, and a source without one says so, by name."""
    found = vendor.source.daily_bars(["AAPL"], date(2020, 8, 29), date(2020, 8, 30))
    assert not found.rows
    assert vendor.name == "alphavantage" or found.missing == ("AAPL",)


def test_paged(vendor: Vendor) -> None:
    """All pages and years come, each session once, in order."""
    found = vendor.source.daily_bars(BOTH, FIRST, LAST)
    assert [(row["symbol"], row["ts"]) for row in found.rows] == [(symbol, stamp(day)) for symbol in BOTH for day in DAYS]
    if vendor.name in {"alpaca", "ibkr"}:
        assert len(vendor.server.requests) > 4


@pytest.mark.parametrize("token", [{"page": 2}, 7, ["x"]])
@pytest.mark.parametrize("path", ["/v2/stocks/bars", "/v1/corporate-actions"])
def test_a_token_of_another_type_is_invalid(path: str, token: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(AlpacaVendor()) as server:
        source = AlpacaVendor().source(server.url, sleep=lambda _: None)
        honest = server.vendor.respond

        def respond(asked: str, query: dict[str, str]) -> Reply:
            status, body, headers = honest(asked, query)
            return status, body | {"next_page_token": token} if asked == path else body, headers

        monkeypatch.setattr(server.vendor, "respond", respond)
        with pytest.raises(SourceInvalid, match="next_page_token"):
            source.daily_bars(["AAPL"], *WEEK)


def test_pages_that_never_end_are_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(AlpacaVendor()) as server:
        numbers = count()
        monkeypatch.setattr(server.vendor, "respond", lambda *_: (200, {"bars": {}, "next_page_token": f"page {next(numbers)}"}, {}))
        with pytest.raises(SourceInvalid, match="alpaca: 1,000 pages were read, and another is announced"):
            AlpacaVendor().source(server.url, sleep=lambda _: None).daily_bars(["AAPL"], *WEEK)


def test_a_split_day(vendor: Vendor) -> None:
    """Raw prices fall to a quarter and the split is told; adjusted ones go on, and it is not told again."""
    found = vendor.source.daily_bars(["AAPL"], date(2020, 8, 3), LAST)
    closes = {row["ts"]: row["close"] for row in found.rows}
    fall = closes[stamp(SPLIT_DAY)] / closes[stamp(date(2020, 8, 28))]
    assert fall == pytest.approx(0.25 if found.prices == "raw" else 1.0, rel=0.01)
    splits = [(action["ex_date"], action["value"]) for action in found.actions if action["kind"] == "split"]
    assert splits == ([(str(SPLIT_DAY), 4.0)] if found.prices == "raw" else [])
    paid = [(action["symbol"], action["ex_date"], action["value"]) for action in found.actions if action["kind"] == "dividend"]
    scale = {"raw": 1, "split": 4}
    if found.prices == "adjusted" or vendor.name == "ibkr":
        assert paid == []
    else:
        assert paid == [("AAPL", str(EX_DATE), DIVIDENDS["AAPL"][1] / scale[found.prices])]
    assert vendor.name != "ibkr" or "dividends are left out" in found.remarks[0]


def test_a_symbol_that_it_does_not_know(vendor: Vendor) -> None:
    found = vendor.source.daily_bars(["AAPL", "ZZZZ"], *WEEK)
    assert found.missing == ("ZZZZ",)
    assert {row["symbol"] for row in found.rows} == {"AAPL"}


def test_rate_limited_for_a_moment(vendor: Vendor) -> None:
    """Two seconds are waited out; where the vendor says no time, or says it with status 200, it is the caller's to wait."""
    vendor.server.limit(1, {"Retry-After": "2"})
    if vendor.name in {"alphavantage", "yahoo"}:
        with pytest.raises(SourceLimited):
            vendor.source.daily_bars(["AAPL"], *WEEK)
        return
    assert len(vendor.source.daily_bars(["AAPL"], *WEEK).rows) == 5
    assert vendor.waited[0] == 2.0


@pytest.mark.parametrize("header", ["Retry-After", "X-RateLimit-Reset", ""])
def test_rate_limited_for_long(vendor: Vendor, header: str) -> None:
    """With a reset a minute away nothing more is asked; without one, twice more."""
    value = str(int(time.time()) + 60) if "Reset" in header else "60"
    vendor.server.limit(99, {header: value} if header else {})
    with pytest.raises(SourceLimited, match=vendor.name) as raised:
        vendor.source.daily_bars(["AAPL"], *WEEK)
    assert len(vendor.server.requests) == (1 if header or vendor.name in {"alphavantage", "yahoo"} else 3)
    assert KEY not in str(raised.value)


def test_a_revoked_key(vendor: Vendor) -> None:
    if not vendor.server.vendor.keyed:
        pytest.skip("has no key")
    vendor.server.revoke()
    with pytest.raises(SourceRefused) as raised:
        vendor.source.daily_bars(["AAPL"], *WEEK)
    assert vendor.name in str(raised.value)
    assert "_KEY" in str(raised.value) or "log in: open the gateway's page" in str(raised.value)
    assert KEY not in str(raised.value)
    assert len(vendor.server.requests) == 1


@pytest.mark.parametrize("length", ["promised", "sent"])
def test_half_a_body(vendor: Vendor, length: str) -> None:
    def halved(reply: Reply) -> Reply:
        data = json.dumps(reply[1]).encode()
        return reply[0], data[: len(data) // 2], {"Content-Length": str(len(data))} if length == "promised" else {}

    vendor.server.mend = halved
    with pytest.raises(SourceUnavailable, match=vendor.name):
        vendor.source.daily_bars(["AAPL"], *WEEK)


@pytest.mark.parametrize("wrong", ["dear", None, True, [1], float("nan"), float("inf")])
def test_a_wrong_type_names_the_field(vendor: Vendor, wrong: Any) -> None:
    """A close that is no number; the field is named as the vendor calls it, the key never."""
    vendor.server.mend = lambda reply: (reply[0], _with(reply[1], wrong), reply[2])
    if vendor.name == "yahoo" and not isinstance(wrong, str | list):
        pytest.skip("what its package makes of it is its own")
    with pytest.raises(SourceInvalid) as raised:
        vendor.source.daily_bars(["AAPL"], *WEEK)
    assert vendor.name in str(raised.value)
    assert any(field in str(raised.value) for field in (".c", "c.", "4. close", "dear", "Setting", "sequence")), str(raised.value)
    assert "\n" not in str(raised.value)


def _with(body: Any, wrong: Any) -> Any:
    """`body` with its last close replaced."""
    if isinstance(body, dict):
        for name in ("c", "4. close", "Close"):
            if name in body:
                return {**body, name: [*body[name][:-1], wrong] if isinstance(body[name], list) else wrong}
        return {key: _with(value, wrong) for key, value in body.items()}
    return [_with(value, wrong) for value in body] if isinstance(body, list) else body


@pytest.mark.parametrize("body", [[], "words", 7, None, {}, b"<html>log in</html>", b"[" * 200_000, b"9" * 5000, b"\xff\xfe"])
def test_what_is_not_an_answer_at_all_is_one_line(vendor: Vendor, body: Any) -> None:
    vendor.server.mend = lambda _reply: (200, body, {})
    if vendor.name == "ibkr" and body == {}:  # it knows no contract of that name
        assert vendor.source.daily_bars(["AAPL"], *WEEK).missing == ("AAPL",)
        return
    with pytest.raises((SourceInvalid, SourceUnavailable)) as raised:
        vendor.source.daily_bars(["AAPL"], *WEEK)
    assert "\n" not in str(raised.value)


def test_a_slow_server(vendor: Vendor) -> None:
    vendor.server.stall()
    hurried = vendor.hurried()
    with pytest.raises(SourceUnavailable, match=vendor.name):
        hurried.daily_bars(["AAPL"], *WEEK)


def test_a_redirect_is_not_followed(vendor: Vendor) -> None:
    if vendor.name == "yahoo":
        pytest.skip("its package follows them")
    vendor.server.mend = lambda _reply: (302, {}, {"Location": f"{vendor.server.url}/elsewhere"})
    with pytest.raises((SourceInvalid, SourceRefused)):
        vendor.source.daily_bars(["AAPL"], *WEEK)
    assert "/elsewhere" not in {path for path, _ in vendor.server.requests}


@pytest.mark.parametrize("trouble", ["none", "revoked", "limited", "half", "500"])
def test_a_key_is_neither_logged_nor_shown(vendor: Vendor, trouble: str, caplog: pytest.LogCaptureFixture) -> None:
    echoed = f"{KEY} {SECRET}" if vendor.name == "alpaca" else KEY
    mends = {"half": lambda reply: (200, json.dumps(reply[1]).encode()[:9], {}), "500": lambda _reply: (500, {"error": echoed}, {})}
    if trouble in mends:
        vendor.server.mend = mends[trouble]
    if trouble == "revoked":
        vendor.server.revoke()
    if trouble == "limited":
        vendor.server.limit(99)
    shown = ""
    with caplog.at_level(logging.DEBUG):
        try:
            vendor.source.daily_bars(["AAPL"], *WEEK)
        except SourceError as error:
            shown = f"{error} {error.__cause__} {error!r}"
    for secret in (KEY, SECRET, "7f3a%2B91%2Fbd"):
        assert secret not in caplog.text + shown


def test_what_it_sends_is_read_by_evaluate(vendor: Vendor, tmp_path: Any) -> None:
    """The file needs no flag where prices are adjusted or nothing happened, `--raw` where dividends or splits stand beside them."""
    out = tmp_path / "mine.parquet"
    written = write_bars(vendor.source, ["aapl", "brk-b", "AAPL"], start=YEAR, end=None, out=out, now=NOW)
    held = written.held  # of the file's own reader
    assert held.symbols == ("AAPL", "BRK.B")
    assert (len(held.bars), held.set_aside, held.gaps) == (2 * len([day for day in DAYS if day >= YEAR]), {}, {})
    kinds = {"raw": {"split", "dividend"}, "split": {"dividend"}, "adjusted": set()}
    prices = vendor.source.daily_bars(["AAPL"], *WEEK).prices
    assert set(held.actions["kind"]) == (set() if vendor.name == "ibkr" else kinds[prices])
    assert held.remarks == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.parquet"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(min_value=0), leaf=LEAVES)
def test_whatever_stands_anywhere_in_an_answer_the_outcome_is_the_ports(vendor: Vendor, at: int, leaf: Any) -> None:
    """One value of each answer is another: bars, or an error of the port, and no other."""
    if vendor.name == "yahoo":
        pytest.skip("its package reads the answer")
    vendor.server.mend = lambda reply: (reply[0], replaced(reply[1], at, leaf), reply[2])
    source = vendor.server.vendor.source(vendor.server.url, sleep=vendor.waited.append)
    rows: Sequence[dict[str, Any]] = ()
    with suppress(SourceError):
        rows = source.daily_bars(["AAPL"], *WEEK).rows
    assert all(isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
