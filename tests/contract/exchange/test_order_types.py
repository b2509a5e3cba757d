"""Stops, trailing stops and orders with legs at the wire: what they show, when they fill, and what ends with them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from alpaca.trading.enums import OrderClass, OrderSide, OrderStatus, QueryOrderStatus, TimeInForce
from alpaca.trading.models import Order
from alpaca.trading.requests import (
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    ReplaceOrderRequest,
    StopLimitOrderRequest,
    StopLossRequest,
    StopOrderRequest,
    TakeProfitRequest,
    TrailingStopOrderRequest,
)

from local.exchange.faults.plan import FaultPlan
from local.exchange.journal import Journal
from tests.descriptions import TRADING
from tests.exchanges import EVE, URL, ExchangeClient, refusal

#: AAPL opened at 100.06; its recorded minutes end at 101 (09:39 in New York) and at 99 (09:40).
AT_101, AT_99 = "2020-01-02T14:39:00Z", "2020-01-02T14:40:00Z"
EXITS = {"take_profit": {"limit_price": "100.90"}, "stop_loss": {"stop_price": "99.50"}}
OF_A_SHORT = {"take_profit": {"limit_price": "99"}, "stop_loss": {"stop_price": "101"}}


@pytest.fixture
def client() -> ExchangeClient:
    """On 2020-01-02 at 09:35 in New York, AAPL at 100.06."""
    return ExchangeClient()


def sent(client: ExchangeClient, symbol: str = "AAPL", **order: Any) -> dict[str, Any]:
    answer = client.send(symbol, **order)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def status(client: ExchangeClient, order: dict[str, Any]) -> str:
    word: str = client.order(order["id"])["status"]
    return word


# Stops


def test_a_sell_stop_waits_until_the_market_has_fallen_to_it(client: ExchangeClient) -> None:
    client.send()
    stop = sent(client, side="sell", kind="stop", stop_price="99.50", tif="gtc")
    assert (stop["status"], stop["type"], stop["stop_price"], stop["limit_price"]) == ("new", "stop", "99.5", None)
    assert refusal(client.send(side="sell", qty="1"))[0] == 403, "its shares are promised"
    client.advance(AT_101)
    assert status(client, stop) == "new"
    client.advance(AT_99)
    filled = client.order(stop["id"])
    assert (filled["status"], filled["filled_avg_price"], filled["filled_at"]) == ("filled", "99", AT_99)


def test_a_buy_stop_keeps_the_cash_for_its_price(client: ExchangeClient) -> None:
    stop = sent(client, kind="stop", stop_price="100.80", qty="10")
    assert client.get("/v2/account").json()["buying_power"] == "98992"
    client.advance(AT_101)
    assert client.order(stop["id"])["filled_avg_price"] == "101"


def test_a_stop_that_is_reached_already_fills_at_once(client: ExchangeClient) -> None:
    assert sent(client, kind="stop", stop_price="100")["status"] == "filled"


def test_a_stop_limit_is_a_limit_once_it_was_triggered(client: ExchangeClient) -> None:
    order = sent(client, kind="stop_limit", stop_price="100.80", limit_price="100.90")
    client.advance(AT_101)
    assert status(client, order) == "new", "triggered at 101, and 101 is beyond its limit"
    client.advance(AT_99)
    assert client.order(order["id"])["filled_avg_price"] == "99"


@pytest.mark.parametrize(("trail", "stop"), [({"trail_price": "1.50"}, "99.5"), ({"trail_percent": "1"}, "99.99")])
def test_a_trailing_stop_follows_the_best_price(client: ExchangeClient, trail: dict[str, str], stop: str) -> None:
    client.send()
    order = sent(client, side="sell", kind="trailing_stop", tif="gtc", **trail)
    assert (order["status"], order["hwm"]) == ("new", "100.06")
    client.advance(AT_101)
    shown = client.order(order["id"])
    assert (shown["status"], shown["hwm"], shown["stop_price"]) == ("new", "101", stop)
    assert {name: shown[name] for name in trail} == {name: f"{Decimal(value):f}".rstrip("0") for name, value in trail.items()}
    client.advance(AT_99)
    assert client.order(order["id"])["filled_avg_price"] == "99"


def test_a_trailing_stop_of_the_night_starts_from_the_open() -> None:
    client = ExchangeClient(now=EVE)
    order = sent(client, kind="trailing_stop", trail_price="2", qty="1")
    assert (order["status"], order["hwm"], order["stop_price"]) == ("accepted", None, None)
    client.advance("2020-01-02T14:30:00Z")
    shown = client.order(order["id"])
    assert (shown["status"], shown["hwm"], shown["stop_price"]) == ("new", "100.06", "102.06")


def test_parts_of_a_share_have_limits_and_stops_for_the_day(client: ExchangeClient) -> None:
    assert sent(client, kind="limit", limit_price="100.10", qty="0.5")["filled_qty"] == "0.5"
    assert sent(client, kind="limit", limit_price="100.10", notional="50.03")["filled_qty"] == "0.5"
    assert sent(client, side="sell", kind="stop", stop_price="99.50", qty="0.75")["status"] == "new"
    assert sent(client, "IBM", kind="stop_limit", stop_price="51", limit_price="52", qty="0.5")["status"] == "new"
    assert refusal(client.send(kind="trailing_stop", trail_price="1", qty="0.5"))[:2] == (422, 42210000)


def test_stops_are_replaced(client: ExchangeClient) -> None:
    client.send(qty="4")
    stop = sent(client, side="sell", kind="stop", stop_price="90", tif="gtc")
    trailing = sent(client, side="sell", kind="trailing_stop", trail_price="5", tif="gtc")
    moved = client.http.patch(f"{URL}/v2/orders/{stop['id']}", json={"stop_price": "95"}).json()
    assert (moved["stop_price"], moved["replaces"], moved["status"]) == ("95", stop["id"], "new")
    tighter = client.http.patch(f"{URL}/v2/orders/{trailing['id']}", json={"trail": "4"}).json()
    assert (tighter["trail_price"], tighter["stop_price"]) == ("4", "96.06")
    assert refusal(client.http.patch(f"{URL}/v2/orders/{moved['id']}", json={"limit_price": "95"}))[0] == 422


# Orders with legs


def bracket(client: ExchangeClient, **more: Any) -> dict[str, Any]:
    return sent(client, **{"order_class": "bracket", "tif": "gtc", **EXITS, **more})


def legs_of(client: ExchangeClient, order: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/v2/orders/{order['id']}", nested="true").json()["legs"]
    return found


def test_a_bracket_takes_its_profit_and_cancels_its_stop(client: ExchangeClient) -> None:
    order = bracket(client)
    assert (order["status"], order["order_class"]) == ("filled", "bracket")
    profit, loss = order["legs"]
    assert [(leg["type"], leg["side"], leg["status"], leg["qty"]) for leg in (profit, loss)] == [
        ("limit", "sell", "new", "2"),
        ("stop", "sell", "held", "2"),
    ]
    client.advance(AT_101)
    assert [leg["status"] for leg in legs_of(client, order)] == ["filled", "canceled"]
    assert client.order(profit["id"])["filled_avg_price"] == "101"
    client.advance(AT_99)
    assert client.held() == 0


def test_a_bracket_stops_its_loss_and_cancels_its_profit(client: ExchangeClient) -> None:
    order = bracket(client, take_profit={"limit_price": "105"})
    client.advance(AT_99)
    profit, loss = legs_of(client, order)
    assert (profit["status"], loss["status"], loss["filled_avg_price"]) == ("canceled", "filled", "99")
    assert client.held() == 0


def test_the_legs_of_an_entry_that_waits_are_held(client: ExchangeClient) -> None:
    order = bracket(client, kind="limit", limit_price="99.60")
    assert [leg["status"] for leg in order["legs"]] == ["held", "held"]
    assert client.get("/v2/account").json()["buying_power"] == "99800.8"
    refused = client.http.patch(f"{URL}/v2/orders/{order['legs'][0]['id']}", json={"limit_price": "102"})
    assert refusal(refused) == (422, 42210000, "cannot replace order in held status")
    client.advance(AT_101)
    assert [leg["status"] for leg in legs_of(client, order)] == ["held", "held"], "nothing is sold that was not bought"
    client.advance(AT_99)
    assert status(client, order) == "filled"
    assert [leg["status"] for leg in legs_of(client, order)] == ["canceled", "filled"], "the entry's own price is beyond the stop"


@pytest.mark.parametrize("which", ["entry", "take profit", "stop loss"])
def test_what_is_canceled_takes_its_group_along(client: ExchangeClient, which: str) -> None:
    order = bracket(client, kind="limit", limit_price="99.60")
    ids = {"entry": order["id"], "take profit": order["legs"][0]["id"], "stop loss": order["legs"][1]["id"]}
    assert client.http.delete(f"{URL}/v2/orders/{ids[which]}").status_code == 204
    assert [order["status"] for order in client.get("/v2/orders", status="all").json()] == ["canceled"] * 3
    assert client.get("/v2/account").json()["buying_power"] == "100000"


def test_a_bracket_for_the_day_expires_whole(client: ExchangeClient) -> None:
    order = bracket(client, tif="day", take_profit={"limit_price": "200"}, stop_loss={"stop_price": "5"})
    client.advance("2020-01-02T21:00:00Z")
    assert [leg["status"] for leg in legs_of(client, order)] == ["expired", "expired"]
    assert client.held() == 2


def test_a_leg_is_moved_and_its_sibling_still_ends_with_it(client: ExchangeClient) -> None:
    order = bracket(client, take_profit={"limit_price": "105"})
    loss = client.http.patch(f"{URL}/v2/orders/{order['legs'][1]['id']}", json={"stop_price": "99.2"}).json()
    assert (loss["status"], loss["stop_price"]) == ("held", "99.2")
    assert [leg["id"] for leg in legs_of(client, order)] == [order["legs"][0]["id"], loss["id"]]
    more = client.http.patch(f"{URL}/v2/orders/{loss['id']}", json={"qty": "1"})
    assert refusal(more) == (422, 42210000, "only prices of bracket orders can be replaced")
    client.advance(AT_99)
    assert [leg["status"] for leg in legs_of(client, order)] == ["canceled", "filled"]


def test_an_entry_is_moved_and_keeps_its_legs(client: ExchangeClient) -> None:
    order = bracket(client, kind="limit", limit_price="99.60")
    moved = client.http.patch(f"{URL}/v2/orders/{order['id']}", json={"limit_price": "100.10"}).json()
    assert (moved["status"], moved["order_class"]) == ("filled", "bracket")
    assert [(leg["id"], leg["status"]) for leg in legs_of(client, moved)] == [
        (order["legs"][0]["id"], "new"),
        (order["legs"][1]["id"], "held"),
    ]
    client.http.delete(f"{URL}/v2/orders/{order['legs'][0]['id']}")
    assert {status(client, leg) for leg in order["legs"]} == {"canceled"}


def test_an_entry_that_is_filled_in_part_has_no_exits_yet(client: ExchangeClient) -> None:
    client.venue.use_faults(FaultPlan.from_document({"faults": {"partial_fill": {"rate": 1, "expires": 1}}}))
    order = bracket(client, qty="10", tif="day", take_profit={"limit_price": "100.50"}, stop_loss={"stop_price": "5"})
    client.advance(AT_101)
    assert (status(client, order), [leg["status"] for leg in legs_of(client, order)]) == ("partially_filled", ["held", "held"])
    client.advance("2020-01-02T21:00:00Z")
    assert (status(client, order), [leg["status"] for leg in legs_of(client, order)]) == ("expired", ["expired", "expired"])
    assert 0 < client.held() < 10


def test_exits_whose_shares_were_sold_meanwhile_are_canceled(client: ExchangeClient) -> None:
    client.venue.use_faults(
        FaultPlan.from_document({"seed": 1, "faults": {"partial_fill": {"rate": 1, "expires": 0}, "wash_trade": {"rate": 0}}})
    )
    order = bracket(client, qty="10", take_profit={"limit_price": "200"}, stop_loss={"stop_price": "5"})
    sold = int(client.held())
    client.venue.use_faults(FaultPlan.from_document({"faults": {"wash_trade": {"rate": 0}}}))
    assert client.send(side="sell", qty=str(sold)).json()["status"] == "filled"
    client.advance("2020-01-02T14:45:00Z")
    assert (status(client, order), client.held()) == ("filled", 10 - sold)
    assert [leg["status"] for leg in legs_of(client, order)] == ["canceled", "canceled"]


def test_of_two_exits_one_fills(client: ExchangeClient) -> None:
    client.send()
    order = sent(client, side="sell", kind="limit", tif="gtc", order_class="oco", **EXITS)
    assert (order["status"], order["limit_price"], [leg["status"] for leg in order["legs"]]) == ("new", "100.9", ["held"])
    assert client.get("/v2/positions/AAPL").json()["qty_available"] == "0", "promised once"
    client.advance(AT_101)
    assert (status(client, order), status(client, order["legs"][0]), client.held()) == ("filled", "canceled", 0)


def test_the_stop_of_an_oco_takes_the_shares_of_its_limit(client: ExchangeClient) -> None:
    client.send()
    order = sent(
        client, side="sell", kind="limit", limit_price="110", order_class="oco", stop_loss={"stop_price": "99.5", "limit_price": "98"}
    )
    client.advance(AT_99)
    assert (status(client, order), status(client, order["legs"][0]), client.held()) == ("canceled", "filled", 0)
    assert order["legs"][0]["type"] == "stop_limit"


def test_an_oto_has_one_exit(client: ExchangeClient) -> None:
    order = sent(client, order_class="oto", stop_loss={"stop_price": "99.50"})
    assert [(leg["type"], leg["status"]) for leg in order["legs"]] == [("stop", "new")]
    client.advance(AT_99)
    assert (status(client, order["legs"][0]), client.held()) == ("filled", 0)


def test_a_part_of_the_profit_cuts_the_stop(client: ExchangeClient) -> None:
    order = bracket(client, qty="10")
    client.venue.use_faults(FaultPlan.from_document({"faults": {"partial_fill": {"rate": 1, "expires": 1}}}))
    client.advance(AT_101)
    profit, loss = legs_of(client, order)
    left = 10 - Decimal(profit["filled_qty"])
    assert (profit["status"], loss["status"], Decimal(loss["qty"])) == ("partially_filled", "held", left)
    client.venue.use_faults(FaultPlan())
    client.advance(AT_99)
    assert [leg["status"] for leg in legs_of(client, order)] == ["canceled", "filled"]
    assert client.held() == 0


def test_orders_are_listed_with_their_legs_or_beside_them(client: ExchangeClient) -> None:
    order = bracket(client)
    plain = client.get("/v2/orders", status="all").json()
    assert ([one["legs"] for one in plain], len(plain)) == ([None] * 3, 3)
    (nested,) = client.get("/v2/orders", status="all", nested="true").json()
    assert [leg["id"] for leg in nested["legs"]] == [leg["id"] for leg in order["legs"]]
    alone = client.get("/v2/orders", status="open", nested="true").json()
    assert [one["type"] for one in alone] == ["stop", "limit"], "their entry is closed"
    canceled = client.http.delete(f"{URL}/v2/orders").json()
    assert {one["id"] for one in canceled} == {one["id"] for one in alone}
    assert client.get("/v2/orders").json() == []


@pytest.mark.parametrize("entry", [{"order_class": "bracket", **OF_A_SHORT}, {"order_class": "oto", "stop_loss": {"stop_price": "101"}}])
def test_an_entry_by_a_sale_is_a_short_sale_or_no_entry(client: ExchangeClient, entry: dict[str, Any]) -> None:
    refused = client.send(side="sell", **entry)
    assert (refused.status_code, refused.json()) == (403, {"code": 40310000, "message": "account is not allowed to short"})
    client.send()
    refused = client.send(side="sell", **entry)
    sentence = f"{entry['order_class']} orders must be entry orders"
    assert (refused.status_code, refused.json()) == (422, {"code": 42210000, "message": sentence})
    assert (client.held(), client.venue.book.refused) == (2, 2)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({"order_class": "bracket", "take_profit": {"limit_price": "110"}}, "bracket orders require stop_loss.stop_price"),
        ({"order_class": "bracket", "stop_loss": {"stop_price": "90"}}, "bracket orders require take_profit.limit_price"),
        ({"order_class": "oto", **EXITS}, "oto orders require either take_profit.limit_price or stop_loss.stop_price"),
        ({"order_class": "bracket", **EXITS, "tif": "ioc"}, "bracket orders must be DAY or GTC orders, was ioc"),
        ({"order_class": "oco", "kind": "limit", **OF_A_SHORT}, "oco orders must be exit orders"),
        ({"order_class": "oco", "kind": "limit", "side": "sell", **EXITS}, "oco orders must be exit orders"),
        ({"order_class": "bracket", **EXITS, "qty": "1.5"}, "fractional orders must be simple orders"),
        ({"order_class": "simple", **EXITS}, "simple orders have no take_profit and stop_loss"),
        ({"order_class": "oco", **EXITS}, "market orders require no stop or limit price"),
        (
            {"order_class": "bracket", **EXITS, "take_profit": {"limit_price": "100"}},
            "take_profit.limit_price must be >= base_price + 0.01",
        ),
        ({"order_class": "bracket", **EXITS, "stop_loss": {"stop_price": "100.06"}}, "stop_loss.stop_price must be <= base_price - 0.01"),
        ({"order_class": "bracket", **EXITS, "stop_loss": "99"}, "stop_loss must be an object with limit_price and stop_price, was '99'"),
        ({"kind": "stop"}, "stop orders require a stop price, and no limit price"),
        ({"kind": "stop_limit", "stop_price": "5"}, "stop limit orders require both stop and limit price"),
        ({"kind": "trailing_stop"}, "trailing stop orders must specify one of trail_price or trail_percent, and no other price"),
        ({"kind": "trailing_stop", "trail_percent": "100"}, "trail_percent must be above 0 and below 100, was 100"),
        ({"kind": "stop", "stop_price": "105", "tif": "opg"}, "stop orders must be DAY or GTC orders, was opg"),
        ({"extended_hours": True}, "extended hours order must be DAY or GTC limit orders"),
    ],
)
def test_what_does_not_fit_is_refused(client: ExchangeClient, order: dict[str, Any], message: str) -> None:
    code, _, said = refusal(client.send(**order))
    assert (code, said) == (422, message)
    assert client.venue.book.orders == {}


def test_extended_hours_are_taken_and_filled_in_the_session() -> None:
    client = ExchangeClient(now=datetime.fromisoformat("2020-01-02T13:00:00Z"))
    order = client.limit(101, extended_hours=True)
    assert (order["extended_hours"], order["status"]) == (True, "accepted")
    client.advance("2020-01-02T14:30:00Z")
    assert status(client, order) == "filled"


def test_every_kind_of_order_fits_the_vendors_description(client: ExchangeClient) -> None:
    from tests.contract.exchange.test_schema import validator

    client.send(qty="10")
    for order in (
        {"kind": "stop", "stop_price": "105"},
        {"kind": "stop_limit", "stop_price": "105", "limit_price": "106"},
        {"kind": "trailing_stop", "trail_percent": "0.5"},
        {"order_class": "bracket", **EXITS},
        {"order_class": "oto", "take_profit": {"limit_price": "110"}},
    ):
        validator(TRADING, "/v2/orders", "post", "200").validate(sent(client, **order))
    validator(TRADING, "/v2/orders", "get", "200").validate(client.get("/v2/orders", status="all", nested="true").json())


def test_a_journal_brings_stops_and_legs_back(tmp_path: Path) -> None:
    def begin() -> tuple[ExchangeClient, Journal]:
        client, journal = ExchangeClient(), Journal(tmp_path / "journal.jsonl")
        journal.attach(client.venue, terms={})
        return client, journal

    client, journal = begin()
    bracket(client, take_profit={"limit_price": "105"})
    sent(client, "SPY", kind="stop_limit", stop_price="300.50", limit_price="302")
    sent(client, "SPY", kind="trailing_stop", trail_percent="0.1", qty="1")
    client.advance(AT_99)
    orders = client.get("/v2/orders", status="all", nested="true").content
    journal.close()
    again, journal = begin()
    journal.close()
    assert again.get("/v2/orders", status="all", nested="true").content == orders
    assert again.get("/admin/books").content == client.get("/admin/books").content


def test_a_ticket_of_an_earlier_journal_is_read(tmp_path: Path) -> None:
    old = (
        '{"terms":{}}\n{"submit":{"symbol":"AAPL","side":"buy","kind":"market","quantity":"2","notional":null,"limit_price":null,'
        '"time_in_force":"day","client_order_id":"old"}}\n'
    )
    (tmp_path / "journal.jsonl").write_text(old, encoding="utf-8")
    client, journal = ExchangeClient(), Journal(tmp_path / "journal.jsonl")
    journal.attach(client.venue, terms={})
    journal.close()
    assert client.held() == 2


# The vendor's own client


def shown(order: Any) -> Order:
    assert isinstance(order, Order)
    return order


def test_the_orders_of_the_vendors_notebook() -> None:
    """The requests of alpaca-py's stocks-trading-basic notebook, each as it has them; one that stands against others is sent by itself."""
    spy = {"symbol": "SPY"}
    buy, gtc, day = OrderSide.BUY, TimeInForce.GTC, TimeInForce.DAY
    client = ExchangeClient()
    trading = client.trading
    for request in (
        MarketOrderRequest(**spy, qty=5.5, side=buy, time_in_force=day),
        MarketOrderRequest(**spy, notional=1.11, side=buy, time_in_force=day),
        LimitOrderRequest(**spy, qty=0.01, limit_price=550.25, side=buy, time_in_force=day),
    ):
        assert shown(trading.submit_order(request)).status is OrderStatus.FILLED
    for request in (
        StopOrderRequest(**spy, qty=1, side=buy, time_in_force=gtc, stop_price=600),
        StopLimitOrderRequest(**spy, qty=1, side=buy, time_in_force=gtc, limit_price=550, stop_price=600),
    ):
        assert shown(trading.submit_order(request)).status is OrderStatus.NEW
    exits = {"take_profit": TakeProfitRequest(limit_price=600), "stop_loss": StopLossRequest(stop_price=280)}
    order = shown(
        trading.submit_order(MarketOrderRequest(**spy, qty=5, side=buy, time_in_force=day, order_class=OrderClass.BRACKET, **exits))
    )
    assert [leg.status for leg in order.legs or []] == [OrderStatus.NEW, OrderStatus.HELD]
    loss = StopLossRequest(stop_price=280)
    oto = shown(trading.submit_order(LimitOrderRequest(**spy, qty=1, limit_price=500, side=buy, time_in_force=day, stop_loss=loss)))
    assert (oto.order_class, len(oto.legs or [])) == (OrderClass.OTO, 1)
    trading.cancel_orders()
    assert shown(trading.submit_order(LimitOrderRequest(**spy, qty=1, limit_price=500, side=buy, time_in_force=day))).status == "filled"
    trailing = TrailingStopOrderRequest(**spy, qty=1, side=OrderSide.SELL, time_in_force=gtc, trail_percent=0.20)
    last = shown(trading.submit_order(trailing))
    assert (last.status, last.hwm, last.trail_percent) == (OrderStatus.NEW, "300.06", "0.2")
    moved = shown(trading.replace_order_by_id(last.id, ReplaceOrderRequest(trail=0.5)))
    assert moved.trail_percent == "0.5"
    listed = trading.get_orders(GetOrdersRequest(status=QueryOrderStatus.ALL, symbols=["SPY"], nested=True))
    assert sum(len(shown(one).legs or []) for one in listed) == 3
    trading.cancel_orders()
    assert trading.get_orders(GetOrdersRequest(status=QueryOrderStatus.OPEN)) == []
