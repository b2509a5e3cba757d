"""Alpaca's words become the domain's: every status it documents, any other, and why an order was refused."""

from __future__ import annotations

from decimal import Decimal

import pytest

from lambdas.common.broker.alpaca_wire import _ENDS, WORKING, asset_of, rejection, status_of, trade_of
from lambdas.common.broker.port import AlreadyAccepted, Asset, BrokerUnavailable, Trade
from trading_env.orders.order_state import ENDED, ENDS, OURS

VENDOR_WORDS = {
    *("new", "accepted", "pending_new", "accepted_for_bidding", "partially_filled", "filled", "done_for_day", "canceled", "expired"),
    *("replaced", "pending_cancel", "pending_replace", "rejected", "suspended", "stopped", "calculated", "held"),
}


def test_every_word_of_the_vendor_is_known() -> None:
    assert _ENDS.keys() | WORKING.keys() == VENDOR_WORDS
    assert set(_ENDS.values()) == set(ENDS)


@pytest.mark.parametrize("word", sorted(VENDOR_WORDS - WORKING.keys()))
def test_an_end_of_the_vendor_s_is_the_domain_s(word: str) -> None:
    assert status_of(word, filled=Decimal(0)) == status_of(word, filled=Decimal(3)) == word


@pytest.mark.parametrize("word", [*sorted(WORKING), *sorted(OURS), "levitating", "Filled", ""])
def test_under_any_other_word_an_order_lives_at_the_broker(word: str) -> None:
    assert status_of(word, filled=Decimal(0)) == "new"
    assert status_of(word, filled=Decimal(3)) == "partially_filled"
    assert {"new", "partially_filled"}.isdisjoint(ENDED | OURS)


def test_a_used_id_is_an_acceptance() -> None:
    assert isinstance(rejection(422, 40010001, "client_order_id must be unique"), AlreadyAccepted)


@pytest.mark.parametrize(
    ("status", "message", "refusal"),
    [
        (403, "potential wash trade detected. use complex orders", "wash_trade"),
        (422, "Potential wash trade detected", "wash_trade"),
        (403, "insufficient buying power", "buying_power"),
        (403, "insufficient day trading buying power", "buying_power"),
        (403, "requested asset is not fractionable", "not_fractionable"),
        (422, "fractional orders must be market orders", "not_fractionable"),
        (422, 'asset "AIG" is not active', "inactive"),
        (403, "trading in this symbol is halted", "inactive"),
        (422, 'asset "AIG" not found', "inactive"),
        (403, "insufficient qty available for order (requested: 5, available: 0)", "other"),
        (403, "trade denied due to pattern day trading protection", "other"),
        (401, "", "other"),
    ],
)
def test_a_refusal_is_told_by_its_words_because_one_code_means_many(status: int, message: str, refusal: str) -> None:
    assert rejection(status, 40310000, message).refusal == refusal


def test_an_asset_says_whether_it_trades_and_nothing_is_made_up() -> None:
    row = {"symbol": "SPY", "status": "active", "tradable": True, "fractionable": False}
    assert asset_of(row) == Asset(symbol="SPY", tradable=True, fractionable=False)
    for wrong in ({"tradable": "yes"}, {"fractionable": None}):
        with pytest.raises(BrokerUnavailable, match="assets cannot be read"):
            asset_of({**row, **wrong})


def test_a_last_trade_has_a_price_or_is_none() -> None:
    at = "2020-01-02T14:35:00Z"
    assert trade_of("SPY", {"t": at, "p": 321.5}) == Trade(symbol="SPY", ts=at, price=321.5)
    assert [trade_of("SPY", {"t": at, "p": price}) for price in (0, -1.0, float("nan"), float("inf"))] == [None] * 4
    with pytest.raises(BrokerUnavailable, match="trade of SPY"):
        trade_of("SPY", {"t": at, "p": None})
