"""What the vendor refuses by default, and this exchange with it: status, code and sentence at the wire."""

from __future__ import annotations

from decimal import Decimal

import pytest
import requests

from local.exchange.costs import TradingCosts
from local.exchange.faults.plan import FaultPlan
from local.exchange.orders import Side
from local.exchange.server import ExchangeConfig, ExchangeError, RunningExchange
from tests.exchanges import URL, ExchangeClient, refusal


@pytest.fixture
def client() -> ExchangeClient:
    """On 2020-01-02 at 09:35 in New York, AAPL at 100.06."""
    return ExchangeClient()


@pytest.mark.parametrize("price", ["100.123456", "1.001", "0.99991"])
@pytest.mark.parametrize(("kind", "name"), [("limit", "limit_price"), ("stop", "stop_price")])
def test_a_price_off_the_tick(client: ExchangeClient, kind: str, name: str, price: str) -> None:
    sentence = f"invalid {name} {price}. sub-penny increment does not fulfill minimum pricing criteria"
    assert refusal(client.send(kind=kind, **{name: price})) == (422, 42210000, sentence)


@pytest.mark.parametrize("price", ["100.12", "100.120000", "1", "0.9999"])
def test_a_price_on_the_tick(client: ExchangeClient, price: str) -> None:
    assert client.send(kind="limit", limit_price=price).status_code == 200


def test_a_replacement_keeps_the_tick(client: ExchangeClient) -> None:
    order = client.limit(90)
    assert refusal(client.http.patch(f"{URL}/v2/orders/{order['id']}", json={"limit_price": "90.005"}))[:2] == (422, 42210000)
    legs = {"order_class": "bracket", "take_profit": {"limit_price": "110.001"}, "stop_loss": {"stop_price": "90"}}
    assert "take_profit.limit_price 110.001" in refusal(client.send(**legs))[2]


@pytest.mark.parametrize("size", [{"qty": "0.009"}, {"notional": "0.99"}, {"qty": "0.01", "kind": "limit", "limit_price": "99"}])
def test_an_order_of_cents(client: ExchangeClient, size: dict[str, str]) -> None:
    assert refusal(client.send(**size)) == (403, 40310000, "cost basis must be >= minimal amount of order 1")


def test_the_last_cents_of_a_position_can_be_sold(client: ExchangeClient) -> None:
    client.send(qty="0.015")
    assert refusal(client.send(side="sell", qty="0.005"))[:2] == (403, 40310000)
    client.send(side="sell", qty="0.01")
    assert client.send(side="sell", qty="0.005").status_code == 200
    assert client.held() == 0


def test_a_trade_with_oneself(client: ExchangeClient) -> None:
    client.send(qty="10")
    resting = client.limit(105, side="sell")
    answer = client.send()
    assert refusal(answer) == (403, 40310000, "potential wash trade detected. use complex orders")
    assert answer.json() | {"code": 0, "message": ""} == {
        "code": 0,
        "message": "",
        "reject_reason": "opposite side limit order exists",
        "existing_order_id": resting["id"],
    }
    assert client.send(kind="limit", limit_price="104.99").status_code == 200, "two limits that keep apart"
    assert refusal(client.send(kind="limit", limit_price="105"))[0] == 403
    assert client.venue.book.refused == 2


def test_a_stop_stands_against_the_other_side_whatever_its_price(client: ExchangeClient) -> None:
    client.send(qty="10")
    client.send(side="sell", kind="stop", stop_price="50", tif="gtc")
    answer = client.send(kind="limit", limit_price="40")
    assert (answer.status_code, answer.json()["reject_reason"]) == (403, "opposite side market/stop order exists")
    exits = {"take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "90"}}
    assert client.send(order_class="bracket", **exits).status_code == 200, "complex orders may"


def test_a_replacement_that_would_trade_with_oneself(client: ExchangeClient) -> None:
    client.send(qty="10")
    resting = client.limit(105, side="sell")
    bid = client.limit(100)

    def replace(price: str, **more: str) -> requests.Response:
        return client.http.patch(f"{URL}/v2/orders/{bid['id']}", json={"limit_price": price, **more})

    answer = replace("105")
    assert refusal(answer) == (403, 40310000, "potential wash trade detected. use complex orders")
    assert answer.json()["existing_order_id"] == resting["id"]
    assert client.order(bid["id"])["status"] == "new", "it stays as it was"
    assert refusal(replace("105", client_order_id=resting["client_order_id"]))[2] == "client_order_id must be unique"
    client.venue.use_faults(FaultPlan.from_document({"faults": {"wash_trade": {"rate": 0}}}))
    assert replace("99").status_code == 200


def test_a_plan_decides_how_often_it_is_noticed(client: ExchangeClient) -> None:
    client.send(qty="10")
    client.limit(105, side="sell")
    client.venue.use_faults(FaultPlan.from_document({"faults": {"wash_trade": {"rate": 0}}}))
    assert client.send().status_code == 200


def test_a_repeated_id_is_a_repeated_id_whatever_else_is_wrong(client: ExchangeClient) -> None:
    client.send(qty="10", client_order_id="mine")
    client.limit(105, side="sell")
    assert refusal(client.send(client_order_id="mine"))[2] == "client_order_id must be unique"


# Digits


def test_an_amount_that_cannot_be_exact_is_refused(client: ExchangeClient) -> None:
    client.venue.book.costs = TradingCosts(fee=Decimal("0.000" + "123456789" * 10))
    sentence = "qty or price has too many digits: the amount cannot be exact"
    assert refusal(client.send(qty="0.123456789", kind="limit", limit_price="100.12")) == (422, 40010001, sentence)
    assert (client.venue.book.orders, client.venue.book.cash) == ({}, 100_000)


def test_a_sale_never_costs_money() -> None:
    with pytest.raises(ExchangeError, match=r"slippage_bps and half_spread_bps together must be below 10000, .*; was 20000"):
        RunningExchange(ExchangeConfig(now="2020-01-02T14:35:00Z", slippage_bps="20000")).start()
    with pytest.raises(ExchangeError, match=r"fee_bps must be below 10000, .*; was 10000"):
        RunningExchange(ExchangeConfig(now="2020-01-02T14:35:00Z", fee_bps="10000")).start()
    most = TradingCosts.from_basis_points(fee_bps=Decimal(0), slippage_bps=Decimal(9_999))
    assert most.price(Side.SELL, Decimal(100)) == Decimal("0.01")
