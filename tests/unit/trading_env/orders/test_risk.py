"""Each rule of risk by its numbers; NaN denies wherever it appears."""

from __future__ import annotations

from dataclasses import fields, replace
from decimal import Decimal

import pytest

from schema import settings
from trading_env.orders.order_state import Side
from trading_env.orders.orders import ProposedOrder
from trading_env.orders.risk import RULES, Limits, OpenOrder, Situation, breakers, check_batch, check_order, ended, latch, without, working

LIMITS = Limits(
    max_weight=0.5,
    max_gross=1.0,
    max_order_notional=40_000.0,
    max_turnover_per_day=1.0,
    max_orders_per_day=10,
    price_collar=0.1,
    max_drawdown=0.3,
    max_daily_loss=0.1,
    max_bar_age_sessions=1,
    max_model_age_days=100,
    restricted=("AIG",),
)
CALM = Situation(
    equity=100_000.0,
    positions={"SPY": 100.0, "IBM": 50.0},
    prices={"SPY": 300.0, "IBM": 100.0, "AAPL": 200.0, "AIG": 50.0},
    peak_equity=110_000.0,
    last_close_equity=101_000.0,
    state="active",
    bar_age_sessions=1,
    model_age_days=30.0,
    quote_ages={"SPY": 0.0, "IBM": 10.0, "AAPL": 9.0, "AIG": 0.5},
)
NAN = float("nan")


def order(symbol: str = "AAPL", side: Side = "buy", quantity: str = "100", price: str = "200") -> ProposedOrder:
    return ProposedOrder(symbol=symbol, side=side, quantity=Decimal(quantity), client_order_id="x", price_reference=Decimal(price))


SELL = order("SPY", "sell", "10", "300")


def test_a_sensible_order_passes():
    verdict = check_order(order(), CALM, LIMITS)
    assert (verdict.allowed, verdict.rule) == (True, "none")
    assert check_order(SELL, CALM, LIMITS).allowed


def test_the_limits_are_the_settings():
    assert {field.name for field in fields(Limits)} == set(settings.Risk.model_fields)


DENIALS = [
    ("trading_state", order(), {"state": "halted"}, "trading state is halted"),
    ("trading_state", order(), {"state": "reduce_only"}, "trading state is reduce_only"),
    ("account_pin", order(), {"account": "PA2", "pinned_account": "PA1"}, "account must be PA1, was PA2"),
    ("account_pin", order(), {"pinned_account": "PA1"}, "account must be PA1, was None"),
    ("breaker", order(), {"latched": frozenset({"max_drawdown"})}, "max_drawdown is latched"),
    ("breaker", order(), {"peak_equity": 143_000.0}, "drawdown 0.3007 from 143000.00, at most 0.3"),
    ("breaker", order(), {"last_close_equity": 111_200.0}, "loss 0.1007 since the close at 111200.00, at most 0.1"),
    ("stale_data", order(), {"bar_age_sessions": 2}, "newest bar is 2 sessions old, at most 1"),
    ("stale_model", order(), {"model_age_days": 101.0}, "model is 101.0 days old, at most 100"),
    ("stale_quote", order(), {"quote_ages": {"AAPL": 10.1}}, "the quote of AAPL is 10.1 minutes old, at most 10.0"),
    ("stale_quote", order(), {"quote_ages": {"AAPL": -10.1}}, "the quote of AAPL is 10.1 minutes old"),
    ("stale_quote", SELL, {"quote_ages": {"AAPL": 1.0}}, "the quote of SPY is nan minutes old"),
    ("restricted", order("AIG", price="50"), {}, "AIG is restricted"),
    ("price_collar", order(price="221"), {}, "0.1050 from the last trade 200.0, at most 0.1"),
    ("price_collar", order(price="179"), {}, "0.1050 from the last trade 200.0, at most 0.1"),
    ("price_collar", order("XYZ"), {"quote_ages": None}, "from the last trade nan"),
    ("order_notional", order(quantity="201"), {}, "at most 40000.00, was 40200.00"),
    ("order_notional", order(quantity="0"), {}, "must be above 0"),
    ("long_only", order("SPY", "sell", "100.000000001", "300"), {}, "100.0 shares are free to sell"),
    ("long_only", order("SPY", "sell", "51", "300"), {"open_orders": (OpenOrder("SPY", "sell", 50.0),)}, "50.0 shares are free to sell"),
    ("orders_per_day", order(), {"orders_today": 10}, "order 11 of the day, at most 10"),
    ("turnover_per_day", order(), {"traded_today": 80_001.0}, "turnover of the day would be 1.0000 of equity, at most 1.0"),
    ("max_weight", order("SPY", quantity="67", price="300"), {}, "weight would be 0.5010 of equity, at most 0.5"),
    ("max_weight", order(quantity="200"), {"open_orders": (OpenOrder("AAPL", "buy", 51.0),)}, "weight would be 0.5020"),
    ("max_gross", order(), {"positions": {"SPY": 200.0, "IBM": 201.0}}, "gross would be 1.0010 of equity, at most 1.0"),
    ("max_gross", order(), {"open_orders": (OpenOrder("IBM", "buy", 460.0),)}, "gross would be 1.0100 of equity, at most 1.0"),
]


@pytest.mark.parametrize(("rule", "proposed", "change", "detail"), DENIALS)
def test_a_rule_denies_by_name_and_number(rule, proposed, change, detail):
    verdict = check_order(proposed, replace(CALM, **change), LIMITS)
    assert (verdict.allowed, verdict.rule) == (False, rule)
    assert detail in verdict.detail
    assert f"{proposed.side} {proposed.quantity} {proposed.symbol}" in verdict.detail


def test_every_rule_has_a_denial_above():
    assert {rule for rule, *_ in DENIALS} == set(RULES)


@pytest.mark.parametrize(
    ("proposed", "change"),
    [
        (order(price="219"), {}),
        (order(quantity="200"), {}),
        (order("SPY", quantity="66", price="300"), {}),
        (order(), {"traded_today": 79_999.0}),
        (order(), {"orders_today": 9}),
        (order(), {"positions": {"SPY": 200.0, "IBM": 200.0}}),
        (order(), {"model_age_days": None}),
        (order(), {"quote_ages": {"AAPL": 10.0}}),
        (order(), {"quote_ages": None}),
        (order(), {"peak_equity": 142_000.0}),
        (order(), {"last_close_equity": 111_000.0}),
        (order(), {"account": "PA1", "pinned_account": "PA1"}),
    ],
)
def test_up_to_the_limit_is_allowed(proposed, change):
    assert check_order(proposed, replace(CALM, **change), LIMITS).allowed


@pytest.mark.parametrize(
    "change",
    [
        {"state": "reduce_only"},
        {"latched": frozenset({"max_daily_loss"})},
        {"peak_equity": 1e6},
        {"positions": {"SPY": 400.0}},
    ],
)
def test_what_reduces_risk_passes_where_buys_do_not(change):
    situation = replace(CALM, **change)
    assert check_order(SELL, situation, LIMITS).allowed
    assert not check_order(order(), situation, LIMITS).allowed


def test_a_restricted_name_can_be_sold():
    assert check_order(order("AIG", "sell", "1", "50"), replace(CALM, positions={"AIG": 5.0}), LIMITS).allowed


@pytest.mark.parametrize(
    ("sell", "change"),
    [
        (order("SPY", "sell", "200", "300"), {"positions": {"SPY": 200.0}}),
        (SELL, {"orders_today": 10}),
        (SELL, {"traded_today": 100_000.0}),
        (order("SPY", "sell", "10", "400"), {}),
    ],
)
def test_no_size_count_turnover_or_price_limit_holds_back_a_flatten(sell, change):
    situation = replace(CALM, **change)
    assert not check_order(sell, situation, LIMITS).allowed
    assert check_order(sell, replace(situation, leaving=True), LIMITS).allowed
    assert not check_order(order(quantity="201"), replace(situation, leaving=True), LIMITS).allowed


@pytest.mark.parametrize(
    ("sell", "change", "rule"),
    [
        (SELL, {"state": "halted"}, "trading_state"),
        (SELL, {"account": "PA2", "pinned_account": "PA1"}, "account_pin"),
        (order("SPY", "sell", "101", "300"), {}, "long_only"),
        (order("SPY", "sell", "0", "300"), {}, "order_notional"),
        (SELL, {"prices": {"SPY": float("nan")}}, "price_collar"),
    ],
)
def test_a_flatten_still_sells_only_what_is_held_in_this_account(sell, change, rule):
    assert check_order(sell, replace(CALM, leaving=True, **change), LIMITS).rule == rule


SITUATION_NUMBERS = ["equity", "peak_equity", "last_close_equity", "bar_age_sessions", "traded_today", "orders_today", "model_age_days"]
LIMIT_NUMBERS = [field.name for field in fields(Limits) if field.name != "restricted"]


@pytest.mark.parametrize("name", SITUATION_NUMBERS)
def test_nan_in_what_is_known_denies(name):
    assert not check_order(order(), replace(CALM, **{name: NAN}), LIMITS).allowed


@pytest.mark.parametrize("name", LIMIT_NUMBERS)
def test_nan_in_a_limit_denies(name):
    assert not check_order(order(), CALM, replace(LIMITS, **{name: NAN})).allowed


@pytest.mark.parametrize("equity", [0.0, -1.0])
def test_no_equity_allows_no_buy(equity):
    assert not check_order(order(), replace(CALM, equity=equity), LIMITS).allowed


@pytest.mark.parametrize(
    "change",
    [
        {"prices": {**CALM.prices, "AAPL": NAN}},
        {"prices": {**CALM.prices, "IBM": NAN}},
        {"prices": {"AAPL": 200.0}},
        {"positions": {"AAPL": NAN}},
        {"open_orders": (OpenOrder("AAPL", "buy", NAN),)},
        {"quote_ages": {"AAPL": NAN}},
    ],
)
def test_a_book_that_cannot_be_valued_allows_no_buy(change):
    assert not check_order(order(), replace(CALM, **change), LIMITS).allowed


def test_a_batch_is_judged_in_sequence_and_sells_make_room():
    full = replace(CALM, positions={"SPY": 100.0, "IBM": 650.0})
    sell, buy = order("IBM", "sell", "200", "100"), order(quantity="100")
    assert [v.allowed for v in check_batch([sell, buy], full, LIMITS)] == [True, True]
    assert [v.rule for v in check_batch([buy, sell], full, LIMITS)] == ["max_gross", "none"]
    assert [v.rule for v in check_batch([order("IBM", "sell", "999", "100"), buy], full, LIMITS)] == ["order_notional", "max_gross"]


def test_a_batch_counts_its_own_orders_and_turnover():
    small = [order("SPY", "sell", "1", "300")] * 12
    assert [v.rule for v in check_batch(small, CALM, LIMITS)][9:] == ["none", "orders_per_day", "orders_per_day"]
    sell, buy = order("SPY", "sell", "100", "300"), order("SPY", "buy", "100", "300")
    churn = [sell, buy, sell, order(quantity="60")]
    assert [v.rule for v in check_batch(churn, CALM, LIMITS)] == ["none", "none", "none", "turnover_per_day"]


def test_breakers_latch_until_the_ledger_forgets_them():
    assert latch(CALM, LIMITS) == frozenset()
    fallen = replace(CALM, equity=70_000.0, last_close_equity=70_000.0)
    assert breakers(fallen, LIMITS).keys() == {"max_drawdown"}
    latched = latch(fallen, LIMITS)
    recovered = replace(CALM, latched=latched)
    assert breakers(recovered, LIMITS) == {}
    assert latch(recovered, LIMITS) == {"max_drawdown"}
    assert check_order(order(), recovered, LIMITS).rule == "breaker"


def test_an_order_that_may_be_at_the_broker_counts_whole_and_a_sale_makes_no_room_before_it_has_filled():
    full = replace(CALM, positions={"SPY": 100.0, "IBM": 650.0})
    sell, buy = replace(order("IBM", "sell", "200", "100"), client_order_id="s"), order(quantity="100")
    sent = working(sell, full)
    assert (sent.orders_today, sent.traded_today) == (1, 20_000.0)
    assert sent.sellable("IBM") == 450.0
    assert check_order(buy, sent, LIMITS).rule == "max_gross"
    assert check_order(buy, ended("s", "IBM", "sell", sent, filled=0.0), LIMITS).rule == "max_gross"
    done = ended("s", "IBM", "sell", sent, filled=200.0)
    assert (done.positions["IBM"], done.sellable("IBM"), done.orders_today) == (450.0, 450.0, 1)
    assert check_order(buy, done, LIMITS).allowed
    bought = ended("b", "AAPL", "buy", working(replace(buy, client_order_id="b"), done), filled=100.0)
    assert (bought.exposure("AAPL"), bought.open_orders) == (20_000.0, ())


def test_an_order_does_not_stand_in_its_own_way():
    buy = replace(order(quantity="200"), client_order_id="b")
    sent = working(buy, replace(CALM, orders_today=9))
    assert check_order(buy, sent, LIMITS).rule == "orders_per_day"
    assert check_order(buy, replace(sent, orders_today=0), LIMITS).rule == "max_weight"
    assert without(buy, sent) == replace(CALM, orders_today=9)
    assert check_order(buy, without(buy, sent), LIMITS).allowed
    assert check_order(buy, without(replace(buy, client_order_id="another"), replace(sent, orders_today=0)), LIMITS).rule == "max_weight"
