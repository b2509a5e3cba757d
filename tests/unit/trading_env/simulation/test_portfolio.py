"""The step by hand-computed numbers, and sizing at its edges."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_FLOOR, Decimal

import numpy as np
import pytest

from tests.markets import market_of
from trading_env.simulation.portfolio import (
    Book,
    Costs,
    ExecutionPrices,
    PortfolioError,
    Rules,
    bill,
    floor_quantity,
    plan_orders,
    scale_buys,
    split_quantity,
    step,
)

FREE = Rules(cash_buffer=0.0, min_notional=0.0, costs=Costs(slippage_bps=0.0))
nan = float("nan")


def plan(*, cash: float, quantities: list[float], prices: list[float], weights: list[float], tradable=None, rules=FREE):
    return plan_orders(
        cash=cash,
        quantities=np.array(quantities),
        prices=np.array(prices),
        weights=np.array(weights),
        tradable=np.array([True] * len(prices) if tradable is None else tradable),
        rules=rules,
    )


class TestFloorQuantity:
    def test_floors_to_nine_decimals(self):
        assert floor_quantity(np.array([1.23456789099, 0.0000000019, 3.0])).tolist() == [1.23456789, 1e-9, 3.0]

    def test_keeps_every_quantity_that_has_nine_decimals(self):
        quanta = np.random.default_rng(0).integers(0, 2 * 10**15, 200_000)
        quantities = quanta / 1e9
        # the naive floor loses a quantum on some of these
        assert (np.floor(quantities * 1e9) / 1e9 != quantities).any()
        np.testing.assert_array_equal(floor_quantity(quantities), quantities)

    def test_never_rounds_up(self):
        just_below = np.nextafter(np.random.default_rng(1).integers(1, 10**14, 100_000) / 1e9, 0)
        assert (floor_quantity(just_below) <= just_below).all()


class TestSplitQuantity:
    @pytest.mark.parametrize("ratio", ["4", "0.05", "1.5", "7", "0.1", "20", "2.002"])
    def test_equals_the_floor_of_the_exact_product(self, ratio):
        quanta = [20_000_000_000, 1, 19, 20, 123_456_789_012, 999_999_999_999, 40_000_000_020]
        exact = [(Decimal(k).scaleb(-9) * Decimal(ratio)).quantize(Decimal("1e-9"), rounding=ROUND_FLOOR) for k in quanta]
        ours = split_quantity(np.array(quanta) / 1e9, np.full(len(quanta), float(ratio)))
        assert ours.tolist() == [float(e) for e in exact]

    def test_no_split_leaves_huge_holdings_alone(self):
        huge = np.array([8e6 + 1e-9, 1e9])
        np.testing.assert_array_equal(split_quantity(huge, np.ones(2)), huge)


class TestPlanOrders:
    def test_sizes_from_equity_at_the_open_after_the_buffer(self):
        deltas = plan(cash=1000.0, quantities=[10.0, 0.0], prices=[100.0, 50.0], weights=[0.25, 0.75], rules=Rules(cash_buffer=0.01))
        # E = 2000: 0.99 * 0.25 * 2000 / 100 = 4.95 shares and 0.99 * 0.75 * 2000 / 50 = 29.7
        np.testing.assert_allclose(deltas, [-5.05, 29.7], atol=1e-9)

    def test_a_name_without_an_open_counts_in_equity_and_is_not_traded(self):
        deltas = plan(cash=0.0, quantities=[1.0, 1.0], prices=[100.0, 300.0], weights=[1.0, 0.0], tradable=[True, False])
        np.testing.assert_allclose(deltas, [3.0, 0.0])

    def test_an_unlisted_name_has_no_price_and_is_not_traded(self):
        assert plan(cash=100.0, quantities=[0.0, 0.0], prices=[10.0, nan], weights=[0.5, 0.5]).tolist() == [5.0, 0.0]

    def test_a_position_without_a_price_is_refused(self):
        with pytest.raises(PortfolioError, match="column 1"):
            plan(cash=100.0, quantities=[0.0, 1.0], prices=[10.0, nan], weights=[0.5, 0.5])

    @pytest.mark.parametrize("weight", [nan, -0.1, 1.2, float("inf")])
    def test_a_weight_that_is_none_is_refused(self, weight):
        with pytest.raises(PortfolioError, match=r"weights must lie in \[0, 1\]"):
            plan(cash=100.0, quantities=[0.0], prices=[10.0], weights=[weight])

    def test_orders_below_the_minimum_or_the_band_are_skipped(self):
        small = {"cash": 990.0, "quantities": [0.1], "prices": [100.0], "weights": [0.02]}
        assert plan(**small).tolist() == [0.1]
        assert plan(**small, rules=Rules(cash_buffer=0.0, min_notional=10.5)).tolist() == [0.0]
        assert plan(**small, rules=Rules(cash_buffer=0.0, band=0.0105)).tolist() == [0.0]
        assert plan(**small, rules=Rules(cash_buffer=0.0, band=0.0095)).tolist() == [0.1]

    def test_weight_zero_sells_the_exact_holding_whatever_the_band(self):
        held = 0.000000003
        assert plan(cash=1e5, quantities=[held], prices=[100.0], weights=[0.0], rules=Rules(band=0.4)).tolist() == [-held]

    def test_one_book_and_many_are_planned_alike(self):
        rng = np.random.default_rng(0)
        cash, quantities = rng.uniform(0, 1e5, 50), floor_quantity(rng.uniform(0, 100, (50, 7)))
        prices, weights = rng.uniform(1, 500, (50, 7)), rng.dirichlet(np.ones(7), 50)
        tradable = rng.random((50, 7)) < 0.8
        together = plan_orders(cash=cash, quantities=quantities, prices=prices, weights=weights, tradable=tradable, rules=Rules())
        for n in range(50):
            alone = plan_orders(
                cash=float(cash[n]),
                quantities=quantities[n],
                prices=prices[n],
                weights=weights[n],
                tradable=tradable[n],
                rules=Rules(),
            )
            np.testing.assert_array_equal(together[n], alone)


class TestWholeShares:
    rules = Rules(cash_buffer=0.0, min_notional=0.0, whole_shares=True)

    def test_orders_are_whole_and_an_exit_sells_the_fraction_too(self):
        book = {"cash": 55.0, "quantities": [2.5, 1.5, 1.5], "prices": [10.0, 10.0, 10.0], "rules": self.rules}
        # of 110 dollars: 6.6 shares wanted of the first, 2.2 of the second
        assert plan(**book, weights=[0.6, 0.2, 0.0]).tolist() == [3.0, 0.0, -1.5]
        assert plan(**book, weights=[0.1, 0.0, 0.2]).tolist() == [-1.0, -1.5, 0.0]

    def test_buys_are_scaled_to_whole_shares(self):
        scaled = scale_buys(buys=np.array([7.0, 3.0]), prices=np.array([10.0, 10.0]), cash=50.0, rules=self.rules)
        assert scaled.tolist() == [3.0, 1.0]

    def test_a_book_starts_with_whole_shares(self):
        book = Book.invested(100.0, weights=np.array([[0.5, 0.5]]), prices=np.array([[30.0, 7.0]]), rules=self.rules)
        assert book.quantities.tolist() == [[1.0, 7.0]]
        assert book.cash.tolist() == [21.0]


@pytest.mark.parametrize("wrong", [{"impact": 1.0}, {"impact": -1.0}, {"max_volume_share": 1.5}, {"impact": nan, "max_volume_share": 1.0}])
def test_costs_that_no_market_has_are_refused(wrong):
    with pytest.raises(PortfolioError, match="max_volume_share in"):
        Costs(**wrong)


class TestScaleBuys:
    rules = Rules(costs=Costs(fee_bps=20.0, slippage_bps=50.0))

    def test_affordable_buys_are_untouched(self):
        buys = np.array([1.0, 2.0])
        assert scale_buys(buys=buys, prices=np.array([10.0, 20.0]), cash=51.0, rules=self.rules).tolist() == [1.0, 2.0]

    def test_one_factor_scales_all_so_that_the_bill_with_costs_fits(self):
        buys, prices = np.array([10.0, 5.0, 0.0]), np.array([10.0, 40.0, nan])
        scaled = scale_buys(buys=buys, prices=prices, cash=100.0, rules=self.rules)
        factor = 100.0 / (300.0 * 1.005 * 1.002)
        np.testing.assert_allclose(scaled, buys * factor, rtol=1e-9)
        assert 100.0 - 1e-6 < bill(scaled, prices, self.rules) <= 100.0
        np.testing.assert_array_equal(floor_quantity(scaled), scaled)

    def test_scaling_again_changes_nothing(self):
        rng = np.random.default_rng(3)
        for _ in range(200):
            buys, prices, cash = floor_quantity(rng.uniform(0, 50, 6)), rng.uniform(1, 900, 6), float(rng.uniform(1, 1e4))
            once = scale_buys(buys=buys, prices=prices, cash=cash, rules=self.rules)
            np.testing.assert_array_equal(scale_buys(buys=once, prices=prices, cash=cash, rules=self.rules), once)

    @pytest.mark.parametrize("cash", [0.0, -5.0])
    def test_without_cash_nothing_is_bought(self, cash):
        assert scale_buys(buys=np.array([1.0]), prices=np.array([10.0]), cash=cash, rules=self.rules).tolist() == [0.0]

    def test_the_bill_fits_the_cash_in_exact_decimals_too(self):
        rng = np.random.default_rng(4)
        rate = Decimal(1) + Decimal("0.005")
        fee = Decimal(1) + Decimal("0.002")
        for _ in range(200):
            buys, prices = floor_quantity(rng.uniform(1, 50, 8)), np.round(rng.uniform(1, 900, 8), 4)
            cash = round(float(rng.uniform(1, 1e4)), 2)
            scaled = scale_buys(buys=buys, prices=prices, cash=cash, rules=self.rules)
            exact = sum(Decimal(f"{q:.9f}") * Decimal(repr(p)) * rate * fee for q, p in zip(scaled.tolist(), prices.tolist(), strict=True))
            assert exact <= Decimal(repr(cash))


class TestStep:
    def test_split_dividend_costs_and_marks_by_hand(self):
        market = market_of(
            open=np.array([[100.0, 50.0], [30.0, 52.0]]),
            close=np.array([[100.0, 50.0], [31.0, 53.0]]),
            split=np.array([[1.0, 1.0], [4.0, 1.0]]),
            dividend=np.array([[0.0, 0.0], [2.0, 0.5]]),
        )
        book = Book(cash=np.array([1000.0]), quantities=np.array([[10.0, 20.0]]))
        rules = Rules(cash_buffer=0.0, costs=Costs(fee_bps=10.0, slippage_bps=20.0))
        taken = step(book, prices=ExecutionPrices.of(market), rows=np.array([0]), weights=np.array([[0.0, 0.9]]), rules=rules)

        # 10 * 2 + 20 * 0.5 dollars on the holdings of the close; then 40 shares at 30, sold at 30 * 0.998 less 0.1 %
        assert taken.dividends.tolist() == [30.0]
        cash = 1030.0 + 40 * 30 * 0.998 * 0.999
        equity = 1030.0 + 40 * 30 + 20 * 52
        bought = 0.9 * equity / 52 - 20
        spent = bought * 52 * 1.002 * 1.001
        assert taken.book.quantities[0, 0] == 0.0
        np.testing.assert_allclose(taken.book.quantities[0, 1], 20 + bought, atol=1e-9)
        np.testing.assert_allclose(taken.book.cash, cash - spent, atol=1e-6)
        np.testing.assert_allclose(taken.value, cash - spent + (20 + bought) * 53, atol=1e-6)
        np.testing.assert_allclose(taken.costs, 40 * 30 * (1 - 0.998 * 0.999) + bought * 52 * (1.002 * 1.001 - 1), atol=1e-6)
        np.testing.assert_allclose(taken.turnover, (40 * 30 + bought * 52) / equity, atol=1e-9)

    def test_dividends_can_be_ignored(self):
        market = market_of(open=np.full((2, 1), 10.0), close=np.full((2, 1), 10.0), dividend=np.array([[0.0], [1.0]]))
        book = Book(cash=np.array([0.0]), quantities=np.array([[5.0]]))
        arguments = {"prices": ExecutionPrices.of(market), "rows": np.array([0]), "weights": np.array([[1.0]])}
        assert step(book, **arguments, rules=FREE).value.tolist() == [55.0]
        assert step(book, **arguments, rules=replace(FREE, credit_dividends=False)).value.tolist() == [50.0]

    def test_a_halted_name_is_carried_through_its_split_at_its_last_mark(self):
        market = market_of(
            open=np.array([[100.0, 10.0], [nan, 10.0], [26.0, 10.0]]),
            close=np.array([[100.0, 10.0], [nan, 10.0], [27.0, 10.0]]),
            split=np.array([[1.0, 1.0], [4.0, 1.0], [1.0, 1.0]]),
        )
        prices = ExecutionPrices.of(market)
        book = Book(cash=np.array([0.0]), quantities=np.array([[1.0, 10.0]]))
        halted = step(book, prices=prices, rows=np.array([0]), weights=np.array([[0.0, 0.5]]), rules=FREE)
        assert halted.book.quantities.tolist() == [[4.0, 10.0]]
        assert halted.value.tolist() == [200.0]
        # untradable at the close of the halt, so no order even though it opens again
        resumed = step(halted.book, prices=prices, rows=np.array([1]), weights=np.array([[0.0, 0.5]]), rules=FREE)
        assert resumed.book.quantities[0, 0] == 4.0
        assert resumed.value.tolist() == [208.0]

    def test_buys_wait_for_the_money_of_sells_and_are_scaled_to_it(self):
        market = market_of(open=np.full((2, 2), 10.0), close=np.full((2, 2), 10.0))
        book = Book(cash=np.array([0.0]), quantities=np.array([[100.0, 0.0]]))
        rules = Rules(cash_buffer=0.0, costs=Costs(slippage_bps=100.0))
        taken = step(book, prices=ExecutionPrices.of(market), rows=np.array([0]), weights=np.array([[0.0, 1.0]]), rules=rules)
        np.testing.assert_allclose(taken.book.quantities, [[0.0, 100 * 0.99 / 1.01]], atol=1e-9)
        assert 0 <= taken.book.cash[0] < 1e-6

    def test_a_review_can_take_a_sell_out_and_the_buys_shrink(self):
        market = market_of(open=np.full((2, 2), 10.0), close=np.full((2, 2), 10.0))
        book = Book(cash=np.array([100.0]), quantities=np.array([[90.0, 0.0]]))
        taken = step(
            book,
            prices=ExecutionPrices.of(market),
            rows=np.array([0]),
            weights=np.array([[0.0, 1.0]]),
            rules=FREE,
            review=lambda plan: np.maximum(plan.deltas, 0.0),
        )
        np.testing.assert_allclose(taken.book.quantities, [[90.0, 10.0]], atol=1e-9)

    def test_an_order_takes_its_share_of_the_bar_and_no_more_that_day(self):
        market = replace(
            market_of(open=np.full((3, 2), 10.0), close=np.full((3, 2), 10.0)), volume=np.array([[9e9, 9e9], [400.0, 9e9], [50.0, 0.0]])
        )
        rules, prices = Rules(cash_buffer=0.0, costs=Costs(slippage_bps=0.0, max_volume_share=0.1)), ExecutionPrices.of(market)
        book = Book(cash=np.array([0.0]), quantities=np.array([[100.0, 0.0]]))
        weights = np.array([[0.0, 1.0]])
        first = step(book, prices=prices, rows=np.array([0]), weights=weights, rules=rules)
        # 40 of 100 are sold, and only their money buys
        assert first.book.quantities[0, 0] == 60.0
        np.testing.assert_allclose(first.book.quantities[0, 1], 40.0, atol=1e-9)
        second = step(first.book, prices=prices, rows=np.array([1]), weights=weights, rules=rules)
        # a bar without volume fills nothing
        assert second.book.quantities[0, 0] == 55.0
        assert second.book.quantities[0, 1] == first.book.quantities[0, 1]

    def test_impact_follows_the_square_root_law(self):
        close = np.array([[10.0], [10.0 * np.exp(0.02)], [10.0]])
        market = replace(market_of(open=np.full((3, 1), 10.0), close=close), volume=np.full((3, 1), 400.0))
        rules = Rules(cash_buffer=0.0, costs=Costs(slippage_bps=0.0, half_spread_bps=10.0, impact=0.5, max_volume_share=0.25))
        book = Book(cash=np.array([0.0]), quantities=np.array([[100.0]]))
        sold = step(book, prices=ExecutionPrices.of(market), rows=np.array([1]), weights=np.zeros((1, 1)), rules=rules)
        # one return of 2 %, a quarter of the volume: 0.5 x 0.02 x 0.5 = 50 bp, and 10 bp of spread
        np.testing.assert_allclose(sold.book.cash, 1000 * (1 - 0.005 - 0.001), rtol=1e-12)
        np.testing.assert_allclose(sold.costs, 6.0, rtol=1e-9)

    def test_without_a_volatility_an_impact_cannot_be_charged_and_nothing_is_filled(self):
        market = market_of(open=np.full((2, 1), 10.0), close=np.full((2, 1), 10.0))
        rules = Rules(cash_buffer=0.0, costs=Costs(slippage_bps=0.0, impact=1.0, max_volume_share=1.0))
        taken = step(
            Book.of_cash(1000.0, assets=1), prices=ExecutionPrices.of(market), rows=np.array([0]), weights=np.ones((1, 1)), rules=rules
        )
        assert taken.book.quantities.tolist() == [[0.0]]
        assert taken.book.cash.tolist() == [1000.0]

    def test_a_delisted_position_is_carried_at_its_last_mark(self):
        nothing = np.full(3, nan)
        raw = np.column_stack([[10.0, 12.0, *nothing], np.full(5, 10.0)])
        prices = ExecutionPrices.of(market_of(open=raw, close=raw, features=np.zeros((5, 2, 1))))
        book = Book(cash=np.array([0.0]), quantities=np.array([[10.0, 0.0]]))
        for row in range(1, 4):
            taken = step(book, prices=prices, rows=np.array([row]), weights=np.array([[0.0, 1.0]]), rules=FREE)
            book = taken.book
            assert taken.value.tolist() == [120.0]
            assert book.quantities.tolist() == [[10.0, 0.0]]

    def test_selling_more_than_is_held_is_an_error(self):
        market = market_of(open=np.full((2, 1), 10.0), close=np.full((2, 1), 10.0))
        book = Book(cash=np.array([0.0]), quantities=np.array([[1.0]]))
        with pytest.raises(PortfolioError, match="at or above 0"):
            step(
                book,
                prices=ExecutionPrices.of(market),
                rows=np.array([0]),
                weights=np.array([[0.0]]),
                rules=FREE,
                review=lambda plan: plan.deltas * 2,
            )


def test_an_invested_book_holds_its_weights_less_the_buffer():
    book = Book.invested(1000.0, weights=np.array([[0.5, 0.5, 0.0]]), prices=np.array([[10.0, 20.0, nan]]), rules=Rules(cash_buffer=0.1))
    assert book.quantities.tolist() == [[45.0, 22.5, 0.0]]
    assert book.cash.tolist() == [100.0]
