"""The exchange that misbehaves: each kind of fault as an unmodified client meets it, the same faults for the same seed, and true books."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import MarketOrderRequest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from local.exchange.book import AccountBook
from local.exchange.costs import TradingCosts
from local.exchange.faults.plan import KINDS, PROFILES, FaultPlan, FaultPlanError, brutal, realistic
from local.exchange.http.app import Keys, create_app
from local.exchange.http.wire import dumps
from local.exchange.in_process import InProcess
from local.exchange.journal import Journal
from local.exchange.orders import Side, Status, Ticket
from local.exchange.recorded_market import RecordedMarket
from local.exchange.server import ROOT, RunningExchange
from local.exchange.sessions import ExchangeCalendar
from local.exchange.venue import Venue
from papertape import command_line

KEYS = {"APCA-API-KEY-ID": "local-key", "APCA-API-SECRET-KEY": "local-secret"}
URL = "http://exchange.test"
SLOT = datetime(2020, 1, 2, 14, 35, tzinfo=UTC)
CLOSE = datetime(2020, 1, 2, 21, 0, tzinfo=UTC)
PRICES = {"AAPL": (100.0, 104.0), "IBM": (50.0, 51.0), "SPY": (300.0, 290.0)}

REQUIRED = {"not_fractionable": {"symbols": ["IBM"]}, "account_reset": {"at": "2020-01-02T15:00:00Z"}}


def small_market() -> RecordedMarket:
    """Three names over five sessions; AAPL has a minute that ends at 14:40 at 101 on the first."""
    calendar = ExchangeCalendar.xnys(start=date(2019, 12, 30), end=date(2020, 1, 31))
    days = [session.date for session in calendar.sessions if session.date <= date(2020, 1, 8)]
    rows = [
        (symbol, pd.Timestamp(day), opens, max(opens, closes), min(opens, closes), closes, 1e6)
        for symbol, (opens, closes) in PRICES.items()
        for day in days
    ]
    bars = pd.DataFrame(rows, columns=["symbol", "session", "open", "high", "low", "close", "volume"])
    minutes = [("AAPL", pd.Timestamp("2020-01-02T14:39:00Z"), 100.0, 101.0, 100.0, 101.0, 500.0)]
    trades = pd.DataFrame(minutes, columns=["symbol", "ts", "open", "high", "low", "close", "volume"])
    actions = pd.DataFrame([], columns=["symbol", "ex_date", "kind", "value"])
    return RecordedMarket(calendar=calendar, bars=bars, actions=actions, minute_trades=trades)


@pytest.fixture(scope="module")
def market() -> RecordedMarket:
    return small_market()


@dataclass
class ExchangeClient:
    """A client at an exchange in process, on 2020-01-02 at 09:35 in New York."""

    venue: Venue
    http: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.http.headers.update(KEYS)
        self.http.mount(URL, InProcess(create_app(venue=self.venue, keys=Keys())))

    def misbehave(self, seed: int = 0, **faults: Mapping[str, Any]) -> None:
        answer = self.http.post(f"{URL}/admin/faults", json={"seed": seed, "faults": faults})
        assert answer.status_code == 200, answer.text

    def post(self, name: str, *, side: str = "buy", qty: str | None = "10", symbol: str = "AAPL", **more: str | None) -> requests.Response:
        order = {"symbol": symbol, "side": side, "type": "market", "time_in_force": "day", "qty": qty, "client_order_id": name}
        return self.http.post(f"{URL}/v2/orders", json={**order, **more})

    def get(self, path: str, **query: str) -> requests.Response:
        return self.http.get(URL + path, params=query)

    def order(self, name: str) -> dict[str, Any]:
        answer = self.get("/v2/orders:by_client_order_id", client_order_id=name)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def held(self, symbol: str = "AAPL") -> str:
        """Shares shown."""
        return next((row["qty"] for row in self.get("/v2/positions").json() if row["symbol"] == symbol), "0")

    def books(self) -> dict[str, Any]:
        books: dict[str, Any] = self.get("/admin/books").json()
        return books

    def after(self, seconds: float) -> None:
        self.advance(self.venue.now + timedelta(seconds=seconds))

    def advance(self, now: datetime) -> None:
        answer = self.http.post(f"{URL}/admin/clock", json={"now": now.isoformat()})
        assert answer.status_code == 200, answer.text


def new_venue(market: RecordedMarket, *, cash: str = "100000", slippage: str = "0.001") -> Venue:
    return Venue(market=market, now=SLOT, cash=Decimal(cash), costs=TradingCosts(slippage=Decimal(slippage)))


@pytest.fixture
def client(market: RecordedMarket) -> ExchangeClient:
    return ExchangeClient(new_venue(market))


# What a client meets on the socket


@pytest.fixture
def socket_exchange(exchange: RunningExchange) -> Iterator[RunningExchange]:
    exchange.advance(SLOT)
    yield exchange
    exchange.use_faults({})


def test_an_answer_that_is_lost_leaves_an_order_that_was_accepted(socket_exchange: RunningExchange, http: requests.Session) -> None:
    def post(name: str) -> requests.Response:
        order = {"symbol": "AAPL", "side": "buy", "type": "market", "time_in_force": "day", "qty": "1", "client_order_id": name}
        return http.post(f"{socket_exchange.url}/v2/orders", json=order, timeout=0.2)

    socket_exchange.use_faults({"faults": {"post_timeout_accepted": {"rate": 1}}})
    with pytest.raises(requests.ReadTimeout):
        post("hangs")
    socket_exchange.use_faults({"faults": {"post_timeout_accepted": {"rate": 1, "hold_seconds": 0.05}}})
    with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
        post("hangs, then ends")
    socket_exchange.use_faults({"faults": {"post_reset_unaccepted": {"rate": 1}}})
    with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
        post("lost")
    socket_exchange.use_faults({"faults": {"post_garbled": {"rate": 1}}})
    garbled = post("garbled")
    assert (garbled.status_code, garbled.headers["content-type"]) == (200, "application/json")
    with pytest.raises(requests.JSONDecodeError):
        garbled.json()
    socket_exchange.use_faults({"faults": {"get_timeout": {"rate": 1}}})
    with pytest.raises(requests.ReadTimeout):
        http.get(f"{socket_exchange.url}/v2/account", timeout=0.2)
    books = socket_exchange.books()
    assert books["accepted"] == {"hangs": 1, "hangs, then ends": 1, "garbled": 1}
    assert books["faults"] == {"get_timeout": 1, "post_garbled": 1, "post_reset_unaccepted": 1, "post_timeout_accepted": 2}


def test_alpaca_py_repeats_a_504_and_its_id_saves_it(socket_exchange: RunningExchange) -> None:
    client = TradingClient("local-key", "local-secret", url_override=socket_exchange.url)
    client._retry_wait = 0
    socket_exchange.use_faults({"faults": {"post_504_accepted": {"rate": 1}}})
    request = MarketOrderRequest(symbol="AAPL", qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.DAY, client_order_id="mine")
    with pytest.raises(APIError, match="client_order_id must be unique"):
        client.submit_order(request)
    assert socket_exchange.books()["accepted"] == {"mine": 1}
    with pytest.raises(APIError, match="client_order_id must be unique"):
        client.submit_order(request)
    assert socket_exchange.books()["positions"] == {"AAPL": "1"}


def test_a_plan_that_is_wrong_is_refused_with_its_key(socket_exchange: RunningExchange, http: requests.Session) -> None:
    refused = http.post(f"{socket_exchange.url}/admin/faults", json={"faults": {"partial_fill": {"rate": 1.5}}})
    assert refused.status_code == 400
    assert "faults.partial_fill.rate = 1.5 is not allowed" in refused.json()["message"]
    past = {"faults": {"account_reset": {"at": "2020-01-02T14:00:00Z"}}}
    assert "must lie after the clock" in http.post(f"{socket_exchange.url}/admin/faults", json=past).json()["message"]
    assert http.get(f"{socket_exchange.url}/admin/faults").json()["plan"] == {"seed": 0, "faults": {}}


# On the way


def test_504_after_the_order_was_accepted(client: ExchangeClient) -> None:
    client.misbehave(post_504_accepted={"rate": 1})
    answer = client.post("a")
    assert (answer.status_code, answer.headers["content-type"]) == (504, "text/html")
    assert client.order("a")["status"] == "filled"
    repeated = client.post("a")
    assert (repeated.status_code, repeated.json()) == (422, {"code": 40010001, "message": "client_order_id must be unique"})
    assert client.books()["accepted"] == {"a": 1}


def test_without_a_socket_silence_is_the_clients_own_exception(client: ExchangeClient) -> None:
    client.misbehave(post_timeout_accepted={"rate": 1}, get_timeout={"rate": 1, "requests": ["GET /v2/account"]})
    with pytest.raises(requests.ReadTimeout):
        client.post("held")
    with pytest.raises(requests.ReadTimeout):
        client.get("/v2/account")
    assert client.order("held")["status"] == "filled"
    client.misbehave(post_reset_unaccepted={"rate": 1, "first": 1})
    with pytest.raises(requests.ConnectionError):
        client.post("lost")
    assert client.get("/v2/orders:by_client_order_id", client_order_id="lost").status_code == 404
    assert client.post("lost").status_code == 200


def test_a_refused_order_is_always_answered(client: ExchangeClient) -> None:
    lost = {"rate": 1}
    client.misbehave(post_504_accepted=lost, post_timeout_accepted=lost, post_garbled=lost)
    assert client.post("a", side="sell").status_code == 403
    assert client.books()["faults"] == {}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("[" * 100_000, 400),
        ('{"symbol":"AAPL","qty":"1","side":"buy","type":"market","time_in_force":"day","client_order_id":"\\ud800"}', 422),
    ],
    ids=["deep", "no text"],
)
def test_what_cannot_be_read_is_refused_under_a_plan_as_without_one(client: ExchangeClient, body: str, status: int) -> None:
    client.misbehave(post_reset_unaccepted={"rate": 0.0001})
    assert client.http.post(f"{URL}/v2/orders", data=body).status_code == status


@pytest.mark.parametrize(("with_reset", "told"), [(True, {True}), (False, {False}), (None, {True, False})])
def test_too_many_requests(client: ExchangeClient, with_reset: bool | None, told: set[bool]) -> None:
    chance = {"rate": 1} if with_reset is None else {"rate": 1, "with_reset": with_reset}
    client.misbehave(too_many_requests=chance, budget={})
    answers = [client.post(f"order {n}") for n in range(20)]
    assert {answer.status_code for answer in answers} == {429}
    assert answers[0].json() == {"code": 42910000, "message": "rate limit exceeded"}
    assert {"X-RateLimit-Reset" in answer.headers for answer in answers} == told
    resets = {answer.headers.get("X-RateLimit-Reset") for answer in answers} - {None}
    assert resets <= {str(int(SLOT.timestamp()) + 1)}, "the UNIX time at which it may be asked again, on the exchange's clock"
    assert client.books()["accepted"] == {}


def test_the_budget_is_counted_on_the_exchanges_clock(client: ExchangeClient) -> None:
    client.misbehave(budget={"per_minute": 3})
    answers = [client.get("/v2/clock") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0", "0"]
    assert {answer.headers["X-RateLimit-Reset"] for answer in answers} == {str(int(SLOT.timestamp()) + 60)}
    assert client.get("/v2/stocks/trades/latest", symbols="AAPL").status_code == 200, "market data has a budget of its own"
    client.after(59)
    assert client.get("/v2/clock").status_code == 429
    client.after(1)
    assert client.get("/v2/clock").status_code == 200
    assert client.books()["faults"] == {"budget": 3}


def test_reads_fail_and_succeed_when_repeated(client: ExchangeClient) -> None:
    client.misbehave(get_5xx={"rate": 0.5})
    statuses = [client.get("/v2/account").status_code for _ in range(40)]
    assert set(statuses) <= {200, 500, 502, 503}
    assert 10 <= statuses.count(200) <= 30
    assert client.post("a").status_code == 200, "an order's POST is not a read"
    client.misbehave(get_5xx={"rate": 1, "requests": ["GET /v2/positions"], "first": 2})
    assert [client.get("/v2/positions").status_code >= 500 for _ in range(3)] == [True, True, False]
    assert client.get("/v2/account").status_code == 200
    client.after(1)
    assert client.get("/v2/positions").status_code >= 500, "at another moment it is another read"


# In the book


def test_partial_fills_go_on_later_and_their_price_is_the_weighted_average(client: ExchangeClient) -> None:
    client.misbehave(partial_fill={"rate": 1, "expires": 0, "drift_bps": 0, "seconds": 310})
    seen = [client.post("a", qty="9.5").json()]
    assert seen[0]["status"] == "partially_filled"
    for _ in range(5):
        client.after(150)
        seen.append(client.order("a"))
    assert seen[-1]["status"] == "filled"
    filled = [Decimal(order["filled_qty"]) for order in seen]
    assert filled == sorted(filled)
    assert (0 < filled[0] < Decimal("9.5"), filled[-1]) == (True, Decimal("9.5"))
    books = client.books()
    prices = {fill["price"] for fill in books["fills"]}
    assert prices == {"100.1", "101.101"}, "the price moved in between"
    amount = sum(Decimal(fill["quantity"]) * Decimal(fill["price"]) for fill in books["fills"])
    assert abs(Decimal(seen[-1]["filled_avg_price"]) - amount / Decimal("9.5")) < Decimal("1e-10")
    assert Decimal(books["cash"]) == 100_000 - amount
    assert books["positions"] == {"AAPL": "9.5"}


@pytest.mark.parametrize("word", ["expired", "done_for_day", "canceled"])
def test_a_rest_that_is_never_filled_ends_at_the_close(client: ExchangeClient, word: str) -> None:
    client.misbehave(partial_fill={"rate": 1, "expires": 1, "ends_as": word})
    part = client.post("a").json()
    assert part["status"] == "partially_filled"
    client.advance(CLOSE - timedelta(seconds=1))
    assert client.order("a")["filled_qty"] == part["filled_qty"]
    account = client.get("/v2/account").json()
    assert Decimal(account["buying_power"]) < Decimal(account["cash"]), "the rest keeps its cash"
    client.advance(CLOSE)
    ended = client.order("a")
    assert (ended["status"], ended["filled_qty"]) == (word, part["filled_qty"])
    assert client.held() == part["filled_qty"]
    account = client.get("/v2/account").json()
    assert account["buying_power"] == account["cash"]


def test_later_parts_meet_a_worse_price_and_whole_shares_stay_whole(client: ExchangeClient) -> None:
    client.misbehave(partial_fill={"rate": 1, "expires": 0, "drift_bps": 100, "seconds": 1})
    client.post("a", qty="7", symbol="IBM")
    client.after(5)
    first, *later = client.books()["fills"]
    assert first["price"] == "50.05"
    assert {fill["price"] for fill in later} == {"50.5505"}
    assert all("." not in fill["quantity"] for fill in [first, *later])
    assert client.post("one share cannot be split", qty="1").json()["status"] == "filled"


def test_a_sale_in_parts_promises_what_is_left_of_it(client: ExchangeClient) -> None:
    client.post("a", qty="10")
    client.misbehave(partial_fill={"rate": 1, "expires": 1})
    sold = Decimal(client.post("b", side="sell", qty="6").json()["filled_qty"])
    (position,) = client.get("/v2/positions").json()
    assert (Decimal(position["qty"]), position["qty_available"]) == (10 - sold, "4")


def test_a_buy_for_a_notional_is_filled_in_parts(client: ExchangeClient) -> None:
    client.misbehave(partial_fill={"rate": 1, "expires": 0, "seconds": 10})
    part = client.post("a", qty=None, notional="1000").json()
    assert (part["status"], part["notional"]) == ("partially_filled", "1000")
    client.after(60)
    spent = 100_000 - Decimal(client.books()["cash"])
    assert (client.order("a")["status"], Decimal("999.9999") < spent <= 1000) == ("filled", True)


def test_an_overfill_stays_within_cash_and_shares(client: ExchangeClient) -> None:
    client.misbehave(overfill={"rate": 1, "share": 0.5})
    assert client.post("a", qty="4").json()["filled_qty"] == "6"
    assert client.post("too dear", qty="900").json()["filled_qty"] == "900"
    sold = client.post("b", side="sell", qty="2").json()
    assert (sold["qty"], sold["filled_qty"]) == ("2", "3")
    assert client.post("all", side="sell", qty="903").json()["filled_qty"] == "903"
    assert client.books()["faults"] == {"overfill": 2}


def test_an_unknown_word_stands_for_some_seconds(client: ExchangeClient) -> None:
    client.misbehave(unknown_status={"rate": 1, "seconds": 10, "status": "pending_review"})
    assert client.post("a").json()["status"] == "pending_review"
    client.after(9)
    assert (client.order("a")["status"], client.held()) == ("pending_review", "0")
    assert [order["status"] for order in client.get("/v2/orders").json()] == ["pending_review"], "it is open"
    client.after(1)
    assert (client.order("a")["status"], client.held()) == ("filled", "10")


def test_an_unknown_status_before_the_open_gives_way_to_accepted(market: RecordedMarket) -> None:
    client = ExchangeClient(Venue(market=market, now=SLOT - timedelta(hours=1), cash=Decimal(1000), costs=TradingCosts()))
    client.misbehave(unknown_status={"rate": 1, "seconds": 10})
    assert client.post("a", qty="1").json()["status"] == "under_review"
    client.after(10)
    assert client.order("a")["status"] == "accepted"
    client.after(3600)
    assert client.order("a")["status"] == "filled"


def test_a_wash_trade_is_refused_until_the_opposite_order_is_gone(client: ExchangeClient) -> None:
    client.post("held")
    client.misbehave(wash_trade={})
    resting = client.post("resting", type="limit", limit_price="90", qty="1").json()
    refused = client.post("sale", side="sell")
    assert refused.status_code == 403
    assert refused.json() == {
        "code": 40310000,
        "message": "potential wash trade detected. use complex orders",
        "reject_reason": "opposite side limit order exists",
        "existing_order_id": resting["id"],
    }
    apart = client.post("kept apart", side="sell", type="limit", limit_price="120", qty="1")
    assert apart.status_code == 200, "two limits that cannot meet"
    client.http.delete(f"{URL}/v2/orders/{resting['id']}")
    assert client.post("sale", side="sell", qty="9").status_code == 200
    assert client.books()["faults"] == {"wash_trade": 1}
    client.misbehave(wash_trade={"false_positive_rate": 1})
    assert client.post("nothing is open against it", symbol="IBM").status_code == 403


def test_buying_power_that_does_not_suffice(client: ExchangeClient) -> None:
    client.misbehave(insufficient_buying_power={"rate": 1, "first": 1})
    refused = client.post("a")
    assert refused.status_code == 403
    assert refused.json() == {
        "code": 40310000,
        "message": "insufficient buying power",
        "buying_power": "100000",
        "cost_basis": "102000",
    }
    assert client.post("a").status_code == 200, "the first time only"
    assert client.post("b", side="sell").status_code == 200, "a sale needs none"


def test_a_halted_asset(client: ExchangeClient) -> None:
    client.post("held")
    resting = {"type": "limit", "limit_price": "100.5", "qty": "1", "side": "sell"}
    client.post("waits", **resting)
    client.misbehave(halted_asset={"symbols": ["AAPL"]})
    refused = client.post("a")
    assert (refused.status_code, refused.json()) == (422, {"code": 42210000, "message": 'asset "AAPL" is not tradable'})
    assert [client.get(f"/v2/assets/{symbol}").json()["tradable"] for symbol in ("AAPL", "IBM")] == [False, True]
    assert client.post("b", symbol="IBM").status_code == 200
    assert client.post("held").json()["message"] == "client_order_id must be unique", "what was accepted is never called refused"
    client.after(600)
    assert client.order("waits")["status"] == "new", "at 101 it would have been filled"
    client.misbehave()
    client.advance(CLOSE - timedelta(minutes=1))
    client.advance(CLOSE)
    assert client.order("waits")["status"] == "expired"


def test_halts_by_rate_last_a_day(market: RecordedMarket, client: ExchangeClient) -> None:
    client.misbehave(halted_asset={"rate": 0.5})
    seen = set()
    for day in (2, 3, 6, 7, 8):
        client.advance(datetime(2020, 1, day, 15, 0, tzinfo=UTC))
        halted = [symbol for symbol in market.symbols if not client.get(f"/v2/assets/{symbol}").json()["tradable"]]
        for symbol in market.symbols:
            assert (client.post(f"{day} {symbol}", symbol=symbol, qty="1").status_code == 422) == (symbol in halted)
        seen.add(tuple(halted))
    assert len(seen) > 1


def test_an_asset_that_is_not_fractionable(client: ExchangeClient) -> None:
    client.post("held", qty="2.5")
    client.misbehave(not_fractionable={"symbols": ["AAPL"]})
    refused = client.post("a", qty="0.5")
    assert (refused.status_code, refused.json()) == (403, {"code": 40310000, "message": "requested asset is not fractionable"})
    assert client.post("b", qty=None, notional="100").status_code == 403
    assert client.post("c", qty="2").status_code == 200
    assert client.post("all of it", side="sell", qty="4.5").status_code == 200
    assert [client.get(f"/v2/assets/{symbol}").json()["fractionable"] for symbol in ("AAPL", "IBM")] == [False, True]


def test_prices_and_cash_are_rounded_as_the_vendor_does(market: RecordedMarket) -> None:
    client = ExchangeClient(new_venue(market, slippage="0.000123"))
    client.misbehave(vendor_rounding={})
    order = client.post("a", qty="0.123456789", symbol="IBM").json()
    assert (order["filled_qty"], order["filled_avg_price"]) == ("0.123456789", "50.0062")
    books = client.books()
    assert books["cash"] == "99993.82", "6.173605 paid as 6.18"
    (fill,) = books["fills"]
    assert Decimal(fill["quantity"]) * Decimal(fill["price"]) + Decimal(fill["fee"]) == Decimal("6.18")
    account = client.get("/v2/account").json()
    assert (account["cash"], account["equity"], account["long_market_value"]) == ("99993.82", "99999.99", "6.17")
    assert client.get("/v2/positions").json()[0]["market_value"] == "6.17"
    assert books["faults"] == {"vendor_rounding": 1}


def test_an_account_reset_is_a_new_account_with_nothing_in_it(client: ExchangeClient) -> None:
    before = client.get("/v2/account").json()
    first = client.post("a").json()
    client.misbehave(account_reset={"at": (SLOT + timedelta(minutes=1)).isoformat()})
    client.after(59)
    assert client.held() == "10"
    client.after(2)
    after = client.get("/v2/account").json()
    assert after["id"] != before["id"]
    assert after["account_number"] != before["account_number"]
    assert (after["cash"], client.get("/v2/positions").json(), client.get("/v2/orders", status="all").json()) == ("100000", [], [])
    again = client.post("a").json()
    assert again["id"] != first["id"]
    assert client.books()["accepted"] == {"a": 2}, "once in each account"
    client.misbehave(account_reset={"at": (client.venue.now + timedelta(minutes=1)).isoformat(), "revokes_keys": True})
    assert client.get("/v2/account").status_code == 200
    client.after(61)
    assert (client.get("/v2/account").status_code, client.post("b").status_code) == (401, 401)


# In what is shown


def test_positions_lag_behind_orders(client: ExchangeClient) -> None:
    client.post("held", qty="10")
    client.misbehave(view_skew={"rate": 1, "seconds": 5})
    assert client.post("sale", side="sell", qty="4").json()["status"] == "filled"
    assert client.post("second", side="sell", qty="1").json()["status"] == "filled"
    assert client.post("new", symbol="IBM").json()["status"] == "filled"
    assert (client.held(), client.held("IBM")) == ("10", "0")
    assert client.get("/v2/positions/AAPL").json()["qty"] == "10"
    assert client.get("/v2/positions/IBM").status_code == 404
    assert client.books()["positions"] == {"AAPL": "5", "IBM": "10"}
    client.after(5)
    assert (client.held(), client.held("IBM")) == ("5", "10")


def test_an_order_is_hidden_and_then_found(client: ExchangeClient) -> None:
    client.misbehave(hidden_order={"rate": 1, "seconds": 5})
    assert client.post("a").status_code == 200
    missing = client.get("/v2/orders:by_client_order_id", client_order_id="a")
    assert (missing.status_code, missing.json()["code"]) == (404, 40410000)
    assert client.get("/v2/orders", status="all").json() == []
    assert client.post("a").json()["message"] == "client_order_id must be unique"
    client.misbehave()
    assert client.get("/v2/orders", status="all").json() == [], "what has begun goes on without the plan"
    client.after(5)
    assert client.order("a")["status"] == "filled"
    assert len(client.get("/v2/orders", status="all").json()) == 1


def test_older_states_of_an_order_come_back_for_a_while(client: ExchangeClient) -> None:
    client.misbehave(stale_order_view={"rate": 0.5, "seconds": 60})
    client.post("a")
    seen = [client.order("a") for _ in range(30)]
    assert {(order["status"], order["filled_qty"]) for order in seen} == {("new", "0"), ("filled", "10")}
    assert any(one["status"] == "filled" and then["status"] == "new" for one, then in pairwise(seen)), "out of order"
    shown_open = [len(client.get("/v2/orders").json()) for _ in range(30)]
    assert set(shown_open) == {0, 1}
    assert client.books()["orders"][0]["status"] == "filled", "the books tell the truth"
    client.after(61)
    assert {client.order("a")["status"] for _ in range(20)} == {"filled"}


# Seeds


def a_day(venue: Venue, names: list[str]) -> list[bytes]:
    """Orders and reads of one day, one after the other; every answer's bytes, missing responses included."""
    client, answers = ExchangeClient(venue), []

    def ask(call: Callable[[], requests.Response]) -> None:
        try:
            answer = call()
            answers.append(str(answer.status_code).encode() + answer.content)
        except requests.RequestException as error:
            answers.append(type(error).__name__.encode())

    for number, name in enumerate(names):
        ask(partial(client.post, name, qty="2.5", symbol=("AAPL", "IBM", "SPY")[len(name) % 3]))
        for path in ("/v2/account", "/v2/positions", "/v2/orders?status=all"):
            ask(partial(client.get, path))
        ask(partial(client.get, "/v2/orders:by_client_order_id", client_order_id=name))
        client.after(7 if number % 3 == 0 else 0)
    client.advance(max(CLOSE, venue.now))
    return [*answers, client.get("/admin/books").content]


def test_the_same_seed_is_the_same_day(market: RecordedMarket) -> None:
    names = [f"order {n}" for n in range(25)]

    def run(seed: int) -> list[bytes]:
        venue = new_venue(market)
        venue.use_faults(brutal(seed))
        return a_day(venue, names)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_the_faults_of_one_order_do_not_depend_on_the_others(market: RecordedMarket) -> None:
    plan = {kind: PROFILES["brutal"][kind] for kind in ("partial_fill", "unknown_status", "hidden_order", "insufficient_buying_power")}
    names = [f"order {n}" for n in range(60)]

    def outcomes(order: list[str]) -> dict[str, tuple[int, str | None, str | None]]:
        client = ExchangeClient(new_venue(market))
        client.misbehave(seed=3, **plan)
        found = {}
        for name in order:
            answer = client.post(name, qty="3.5", symbol="IBM")
            found[name] = (answer.status_code, answer.json().get("status"), answer.json().get("filled_qty"))
        return found

    straight = outcomes(names)
    assert straight == outcomes(names[::-1])
    assert {status for _, status, _ in straight.values()} == {"filled", "partially_filled", "under_review", None}


def test_the_journal_replays_the_faults(market: RecordedMarket, tmp_path: Path) -> None:
    path = tmp_path / "exchange.jsonl"
    first, second = new_venue(market), new_venue(market)
    journal = Journal(path)
    journal.attach(first, terms={})
    first.use_faults(brutal(5))
    a_day(first, [f"order {n}" for n in range(20)])
    journal.close()
    journal = Journal(path)
    journal.attach(second, terms={})
    books = [json.loads(ExchangeClient(venue).get("/admin/books").content) for venue in (first, second)]
    assert books[0]["faults"].keys() > {"partial_fill", "post_504_accepted", "get_5xx"}
    assert [{**book, "counts": None} for book in books] == [{**books[0], "counts": None}] * 2
    assert second.plan == brutal(5)
    first.record = second.record
    assert a_day(first, ["more"])[:-1] == a_day(second, ["more"])[:-1]
    journal.close()


def test_rates_are_what_they_say(market: RecordedMarket) -> None:
    kinds = ("partial_fill", "unknown_status", "hidden_order", "view_skew")
    venue = new_venue(market, cash="1e9")
    venue.use_faults(FaultPlan.from_document({"seed": 11, "faults": {kind: {"rate": 0.1} for kind in kinds}}))
    for n in range(1000):
        venue.submit(Ticket(symbol="IBM", side=Side.BUY, quantity=Decimal(2), client_order_id=f"order {n}"))
    assert {kind: 70 <= venue.fault_sampler.counts[kind] <= 130 for kind in kinds} == dict.fromkeys(kinds, True)


def test_rates_on_the_way_are_what_they_say(market: RecordedMarket) -> None:
    """Each kind at 0.1 of the requests that those before it have left over."""
    kinds = ("too_many_requests", "post_reset_unaccepted", "insufficient_buying_power", "post_504_accepted", "post_timeout_accepted")
    client, orders = ExchangeClient(new_venue(market, cash="1e9")), 500
    client.misbehave(seed=12, **{kind: {"rate": 0.1} for kind in (*kinds, "post_garbled")})
    lost = 0
    for n in range(orders):
        try:
            answer = client.post(f"order {n}", qty="1", symbol="IBM")
            lost += answer.status_code != 200 or not answer.text.endswith("}")
        except requests.RequestException:
            lost += 1
    books = client.books()
    assert lost == sum(books["faults"].values())
    for place, kind in enumerate((*kinds, "post_garbled")):
        expected = orders * 0.9**place * 0.1
        assert expected * 0.5 <= books["faults"][kind] <= expected * 1.5, kind
    unanswered = sum(books["faults"][kind] for kind in ("post_504_accepted", "post_timeout_accepted", "post_garbled"))
    assert len(books["accepted"]) == orders - lost + unanswered


def test_a_plan_that_was_taken_back_leaves_the_exchange_as_it_was(market: RecordedMarket) -> None:
    names = [f"order {n}" for n in range(10)]
    never, briefly = new_venue(market), new_venue(market)
    briefly.use_faults(brutal(1))
    briefly.use_faults(FaultPlan())
    answers = a_day(never, names)
    assert answers == a_day(briefly, names)
    assert {"faults", "accepted"}.isdisjoint(json.loads(answers[-1]))


# The plan


def test_profiles_and_files(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('seed = 7\nprofile = "realistic"\n[faults.partial_fill]\nrate = 0.3\n[faults.halted_asset]\nsymbols = ["IBM"]\n')
    plan = FaultPlan.load(path)
    assert plan.faults.partial_fill is not None
    assert (plan.seed, plan.faults.partial_fill.rate, plan.faults.post_504_accepted) == (7, 0.3, realistic(0).faults.post_504_accepted)
    assert FaultPlan.from_document(json.loads(dumps(plan.document()))) == plan
    unasked = {"overfill", "not_fractionable", "account_reset"} | {kind for kind in KINDS if kind.startswith(("event_", "stream_"))}
    for profile in (realistic(1), brutal(1)):
        assert {kind for kind in KINDS if getattr(profile.faults, kind) is None} == unasked
    assert FaultPlan().empty
    assert not realistic(0).empty


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"profile": "mild"}, "profile must be one of realistic, brutal, was 'mild'"),
        ({"sed": 1}, "sed = 1 is not a key; the keys are seed, profile, faults"),
        ({"faults": {"partial": {}}}, "faults.partial is not a kind of fault; the kinds are post_504_accepted,"),
        ({"faults": {"partial_fill": {"rat": 1}}}, "faults.partial_fill.rat = 1 is not a key; the keys of partial_fill are rate, symbols,"),
        ({"faults": {"get_5xx": {"rate": -0.1}}}, "faults.get_5xx.rate = -0.1 is not allowed: Input should be greater than or equal to 0"),
        ({"faults": {"get_5xx": {"rate": float("nan")}}}, "faults.get_5xx.rate = nan is not allowed"),
        ({"faults": {"not_fractionable": {}}}, "faults.not_fractionable.symbols is missing"),
        ({"faults": {"account_reset": {"at": "2020-01-01T00:00:00"}}}, "faults.account_reset.at = '2020-01-01T00:00:00' is not allowed"),
    ],
)
def test_a_wrong_plan_names_the_key_and_what_is_allowed(document: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FaultPlanError) as error:
        FaultPlan.from_document(document)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_the_page_says_what_the_schema_says() -> None:
    lines = (ROOT / "docs" / "exchange.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:4]] for line in lines if line.startswith("| `")]
    told = {kind: said for kind, *said in rows if kind in KINDS}
    assert list(told) == list(KINDS)
    for kind, said in told.items():
        schema = getattr(FaultPlan.from_document({"faults": {kind: REQUIRED.get(kind, {})}}).faults, kind)
        worst = getattr(brutal(0).faults, kind)
        shown = [f"{table.rate:g}" if hasattr(table, "rate") else "" for table in (schema, worst)]
        assert said == shown, kind


# The command


def test_the_command_serves_bars_of_your_own_under_a_plan(tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_text(
        "symbol,date,open,high,low,close,volume\nXYZ,2024-03-04,10,12,9,11,1000\nXYZ,2024-03-05,11,12,9,12,1000\n"
    )
    (tmp_path / "plan.toml").write_text("seed = 3\n[faults.post_504_accepted]\nrate = 1\n")
    command = [sys.executable, "-m", "papertape", "exchange", "--data", str(tmp_path / "bars.csv"), "--faults", str(tmp_path / "plan.toml")]
    with subprocess.Popen(
        [*command, "--now", "2024-03-04T15:00:00Z", "--cash", "500"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = process.stdout.readline()
        assert ready, process.stderr.read()
        url = f"http://127.0.0.1:{json.loads(ready)['port']}"
        order = {"symbol": "XYZ", "side": "buy", "type": "market", "time_in_force": "day", "qty": "10"}
        assert requests.post(f"{url}/v2/orders", json=order, headers=KEYS, timeout=5).status_code == 504
        account = requests.get(f"{url}/v2/account", headers=KEYS, timeout=5).json()
        process.send_signal(signal.SIGINT)
        assert (account["cash"], process.wait(10)) == ("400", 130)
        assert process.stderr.read() == "papertape: interrupted; what was started has been stopped\n"


def test_a_wrong_plan_ends_the_command_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("[faults.partial_fill]\nrate = 2\n")
    result = CliRunner().invoke(command_line.app, ["exchange", "--faults", str(tmp_path / "plan.toml")])
    assert result.exit_code == 1
    assert "plan.toml: faults.partial_fill.rate = 2 is not allowed: Input should be less than or equal to 1" in result.stderr
    assert result.stderr.count("\n") == 1


# Whatever the plan, the books add up

rates = st.sampled_from([0.0, 0.3, 1.0])
plans = st.fixed_dictionaries(
    {},
    optional={
        "partial_fill": st.fixed_dictionaries({"rate": rates, "expires": rates, "seconds": st.sampled_from([1, 400, 80_000])}),
        "overfill": st.fixed_dictionaries({"rate": rates, "share": st.sampled_from([0.01, 1.0])}),
        "unknown_status": st.fixed_dictionaries({"rate": rates, "seconds": st.sampled_from([5, 3_000])}),
        "halted_asset": st.fixed_dictionaries({"rate": rates}),
        "insufficient_buying_power": st.fixed_dictionaries({"rate": rates}),
        "wash_trade": st.just({"false_positive_rate": 0.1}),
        "vendor_rounding": st.just({}),
    },
)
orders = st.tuples(
    st.sampled_from(["buy", "sell"]),
    st.sampled_from(["AAPL", "IBM"]),
    st.sampled_from(["1", "7", "0.000000001", "12.123456789", "600", "$2500.01"]),
    st.sampled_from([None, "100", "103", "49.5"]),
)
steps = st.lists(st.one_of(orders, st.integers(1, 30_000), st.just("cancel")), max_size=25)


def live(venue: Venue, actions: list[Any], *, cut: int) -> AccountBook:
    """Orders, clock moves (each in `cut` steps) and cancels, one after the other."""
    for number, action in enumerate(actions):
        if isinstance(action, int):
            start = venue.now
            for part in range(1, cut + 1):
                venue.advance(start + timedelta(seconds=action * part / cut))
        elif action == "cancel":
            for order in venue.book.open_orders[:1]:
                venue.cancel(order.id)
        else:
            side, symbol, size, limit = action
            client = ExchangeClient(venue)
            terms = {"qty": None, "notional": size[1:]} if size.startswith("$") else {"qty": size}
            if limit is not None and not size.startswith("$") and "." not in size:
                terms |= {"type": "limit", "limit_price": limit}
            client.post(str(number), side=side, symbol=symbol, **terms)
    venue.advance(venue.now + timedelta(days=2))
    return venue.book


@settings(max_examples=40, deadline=None)
@given(faults=plans, actions=steps, seed=st.integers(0, 5))
def test_the_books_add_up_under_any_plan(faults: dict[str, Any], actions: list[Any], seed: int) -> None:
    plan = FaultPlan.from_document({"seed": seed, "faults": faults})
    venues = [new_venue(MARKET, slippage="0.00123"), new_venue(MARKET, slippage="0.00123")]
    for venue, cut in zip(venues, (1, 3), strict=True):
        venue.use_faults(plan)
        live(venue, actions, cut=cut)
    venue, book = venues[0], venues[0].book
    assert (book.cash, book.positions, book.orders, book.fills) == (
        venues[1].book.cash,
        venues[1].book.positions,
        venues[1].book.orders,
        venues[1].book.fills,
    ), "however the clock is moved"
    cash, shares = Decimal(100_000), dict.fromkeys(PRICES, Decimal(0))
    for fill in book.fills:
        sign = 1 if fill.side is Side.BUY else -1
        cash -= sign * fill.quantity * fill.price + fill.fee
        shares[fill.symbol] += sign * fill.quantity
        assert min(cash, *shares.values()) >= 0
        assert fill.fee >= 0
    assert cash == book.cash
    assert {symbol: quantity for symbol, quantity in shares.items() if quantity} == {s: p.quantity for s, p in book.positions.items()}
    assert max(venue.accepted.values(), default=1) == 1
    for order in book.orders.values():
        fills = [fill for fill in book.fills if fill.order_id == order.id]
        assert order.filled_quantity == sum(fill.quantity for fill in fills)
        assert order.filled_amount == sum(fill.quantity * fill.price for fill in fills)
        states = [state.filled_quantity for state in book.history[order.id]]
        assert states == sorted(states)
        assert order.status is not Status.FILLED or order.ticket.quantity is None or order.filled_quantity >= order.ticket.quantity


MARKET = small_market()
