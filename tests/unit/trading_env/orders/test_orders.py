"""Identities that last, and the one bridge between float64 and Decimal."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_env.orders.orders import Intent, OrderError, client_order_id, propose, to_decimal, to_float
from trading_env.simulation.portfolio import Rules, plan_orders

INTENT = Intent(strategy="main", slot="2019-03-04/open+5", symbol="AAPL")


def test_the_identity_of_an_intent_never_changes():
    assert client_order_id(INTENT) == "pt1-q42ublv2f65km3kirwqlty3ldcud6xznpi3kd3nx"
    assert len(client_order_id(INTENT)) <= 48


def test_other_intents_have_other_identities():
    others = [
        INTENT,
        Intent("manual", INTENT.slot, "AAPL"),
        Intent("main", "2019-03-05/open+5", "AAPL"),
        Intent("main", INTENT.slot, "AIG"),
        Intent("main", INTENT.slot, "AAPL", attempt=1),
        Intent("main", INTENT.slot + ",AAPL", ""),
    ]
    assert len({client_order_id(intent) for intent in others}) == len(others)


@given(st.integers(0, 2 * 10**15))
def test_nine_decimals_survive_the_way_to_float_and_back(quanta):
    exact = Decimal(quanta).scaleb(-9)
    assert to_decimal(to_float(exact)) == exact
    assert to_decimal(-to_float(exact)) == -exact


@pytest.mark.parametrize("quantity", [0.1 + 0.2, 1e-10, float("nan"), float("inf")])
def test_a_quantity_of_more_decimals_or_none_is_refused(quantity):
    with pytest.raises(OrderError, match="quantity must"):
        to_decimal(quantity)


@pytest.mark.parametrize("quantity", ["0.0000000001", "NaN", "Infinity"])
def test_a_brokers_quantity_that_nine_decimals_cannot_hold_is_refused(quantity):
    with pytest.raises(OrderError, match="quantity must be finite with at most 9 decimals"):
        to_float(Decimal(quantity))


def test_sells_then_buys_in_symbol_order():
    orders = propose(
        strategy="main",
        slot=INTENT.slot,
        symbols=("SPY", "IBM", "AAPL", "QQQ", "AIG"),
        deltas=np.array([1.5, -2.0, 3.0, 0.0, -0.25]),
        prices=np.array([300.1, 130.0, 290.5, 210.0, 51.0]),
        attempts={"AAPL": 2},
    )
    assert [(order.side, order.symbol, order.quantity) for order in orders] == [
        ("sell", "AIG", Decimal("0.25")),
        ("sell", "IBM", Decimal(2)),
        ("buy", "AAPL", Decimal(3)),
        ("buy", "SPY", Decimal("1.5")),
    ]
    assert orders[3].price_reference == Decimal("300.1")
    assert orders[3].notional == Decimal("450.15")
    assert orders[3].client_order_id == client_order_id(Intent("main", INTENT.slot, "SPY"))
    assert orders[2].client_order_id == client_order_id(Intent("main", INTENT.slot, "AAPL", attempt=2))


def test_a_full_exit_asks_for_exactly_what_the_broker_holds():
    held = Decimal("12.345678901")
    deltas = plan_orders(
        cash=0.0,
        quantities=np.array([to_float(held)]),
        prices=np.array([17.3]),
        weights=np.array([0.0]),
        tradable=np.array([True]),
        rules=Rules(),
    )
    (order,) = propose(strategy="main", slot=INTENT.slot, symbols=("AIG",), deltas=deltas, prices=np.array([17.3]))
    assert (order.side, order.quantity) == ("sell", held)


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf")])
def test_an_order_without_a_price_is_refused(price):
    with pytest.raises(OrderError, match="AIG: sizing price"):
        propose(strategy="main", slot=INTENT.slot, symbols=("AIG",), deltas=np.array([1.0]), prices=np.array([price]))
