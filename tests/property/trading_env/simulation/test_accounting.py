"""The books balance for every sequence of actions: generated markets with splits, dividends, halts and late listings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import ROUND_FLOOR, Decimal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.markets import market_of, walk
from trading_env.data.market import Market
from trading_env.orders.orders import QUANTUM, to_decimal
from trading_env.simulation.policy import weights_from_scores
from trading_env.simulation.portfolio import Book, Costs, ExecutionPrices, Rules, Trades, step

ROWS, NAMES = 7, 3
COSTS = st.builds(Costs, fee_bps=st.sampled_from([0.0, 5.0, 200.0]), slippage_bps=st.sampled_from([0.0, 10.0, 300.0]))
IMPACT = st.builds(
    Costs,
    fee_bps=st.sampled_from([0.0, 5.0]),
    slippage_bps=st.just(0.0),
    half_spread_bps=st.sampled_from([0.0, 3.0]),
    impact=st.sampled_from([0.0, 1.0, 20.0]),
    max_volume_share=st.sampled_from([0.01, 1.0]),
)
RULES = st.builds(
    Rules,
    cash_buffer=st.sampled_from([0.0, 0.005, 0.3]),
    band=st.sampled_from([0.0, 0.05]),
    min_notional=st.sampled_from([0.0, 1.0, 500.0]),
    credit_dividends=st.booleans(),
    costs=COSTS | IMPACT,
    whole_shares=st.booleans(),
)


def shaped(elements: st.SearchStrategy[float] | st.SearchStrategy[bool], dtype: type = np.float64) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(dtype, (ROWS, NAMES), elements=elements)


@st.composite
def markets(draw: st.DrawFn) -> Market:
    gap, move = draw(shaped(st.floats(-0.3, 0.3))), draw(shaped(st.floats(-0.3, 0.3)))
    split = draw(shaped(st.sampled_from([1.0, 1.0, 1.0, 4.0, 0.05, 1.5])))
    absent = draw(shaped(st.booleans(), dtype=bool)) & draw(shaped(st.booleans(), dtype=bool))
    absent[0, 0] = False
    split[0] = 1.0
    open_, close = np.empty((ROWS, NAMES)), np.empty((ROWS, NAMES))
    last = np.array([100.0, 3.7, 941.13])
    for t in range(ROWS):
        open_[t] = last / split[t] * np.exp(gap[t])
        last = close[t] = open_[t] * np.exp(move[t])
    dividend = draw(shaped(st.sampled_from([0.0, 0.0, 0.37])))
    volume = draw(shaped(st.sampled_from([0.0, 300.0, 1e4, 1e7])))
    market = market_of(
        open=np.where(absent, np.nan, open_),
        close=np.where(absent, np.nan, close),
        split=split,
        dividend=dividend,
        features=np.zeros((ROWS, NAMES, 1)),
        tradable=~absent,
    )
    return replace(market, volume=np.where(absent, np.nan, volume))


@dataclass(frozen=True)
class Actions:
    """Scores, or with a share of equity to move, trades."""

    scores: np.ndarray
    exits: np.ndarray
    kappa: float
    signs: np.ndarray
    share: float

    def decided(self, row: int, held: np.ndarray, tradable: np.ndarray) -> np.ndarray | Trades:
        if self.share:
            return Trades(self.signs[[row]], self.share)
        wanted = weights_from_scores(self.scores[[row]], held, tradable[None], kappa=self.kappa)
        return np.where(self.exits[row], 0.0, wanted)


ACTIONS = st.builds(
    Actions,
    scores=shaped(st.floats(-10, 10)),
    exits=shaped(st.booleans(), dtype=bool),
    kappa=st.sampled_from([0.01, 0.1, 1.0]),
    signs=shaped(st.sampled_from([-1.0, 0.0, 1.0])),
    share=st.sampled_from([0.0, 0.0, 0.02, 0.6]),
)


def daily_volatility(market: Market, row: int, name: int) -> float:
    """Root mean square of the log returns up to `row`, from bar to bar, splits taken out; what 7 rows have, less than the 20 allowed."""
    squares, level, mark = [], 1.0, None
    for t in range(row + 1):
        level *= market.split[t, name]
        close = market.close[t, name]
        if math.isfinite(close):
            if mark is not None:
                squares.append(math.log(close * level / mark) ** 2)
            mark = close * level
    return math.sqrt(math.fsum(squares) / len(squares))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(market=markets(), actions=ACTIONS, rules=RULES)
def test_value_changes_by_price_moves_less_costs_plus_dividends(market: Market, actions: Actions, rules: Rules):
    prices = ExecutionPrices.of(market)
    book = Book.of_cash(100_000.0, assets=NAMES)
    for row in range(ROWS - 1):
        held, _ = book.shares(prices.closing[[row]])
        decided = actions.decided(row, held, market.tradable[row])
        taken = step(book, prices=prices, rows=np.array([row]), weights=decided, rules=rules)
        if isinstance(decided, Trades):
            assert (taken.deltas[decided.signs == 0] == 0).all()
            assert (taken.deltas * decided.signs >= 0).all()

        # An account written independently, name by name
        model = rules.costs
        fee, fixed = model.fee_bps / 1e4, (model.slippage_bps + model.half_spread_bps) / 1e4
        moves, costs, dividends = [], [], []
        for name in range(NAMES):
            shares, after = float(book.quantities[0, name]), float(taken.book.quantities[0, name])
            ratio, opening, mark = market.split[row + 1, name], prices.opening[row + 1, name], prices.closing[row, name]
            delta = float(taken.deltas[0, name])
            dividends.append(shares * market.dividend[row + 1, name] if rules.credit_dividends else 0.0)
            if shares:
                moves.append(shares * ratio * (opening - mark / ratio))
                # A split leaves a fraction under 1e-9 share, which nobody pays for
                exact = Decimal(f"{shares:.9f}") * Decimal(str(ratio))
                costs.append(float(exact - exact.quantize(QUANTUM, rounding=ROUND_FLOOR)) * opening)
            if after:
                moves.append(after * (prices.closing[row + 1, name] - opening))
            if delta:
                side = 1 if delta > 0 else -1
                worse = fixed
                if model.max_volume_share:
                    bar = market.volume[row + 1, name]
                    assert abs(delta) <= model.max_volume_share * bar
                    worse += model.impact * daily_volatility(market, row, name) * math.sqrt(abs(delta) / bar) if model.impact else 0.0
                worse = worse if side > 0 else min(worse, 1.0)
                costs.append(abs(delta) * opening * (worse + fee * (1 + side * worse)))
                assert not rules.whole_shares or delta == int(delta) or after == 0
                assert market.tradable[row, name]
                assert np.isfinite(market.open[row + 1, name])
        before = float(book.cash[0]) + math.fsum(q * p for q, p in zip(book.quantities[0], prices.closing[row], strict=True) if q)
        after_value = float(taken.book.cash[0]) + math.fsum(
            q * p for q, p in zip(taken.book.quantities[0], prices.closing[row + 1], strict=True) if q
        )
        tolerance = 1e-9 * before
        assert abs(after_value - before - math.fsum([*moves, *dividends, *(-c for c in costs)])) <= tolerance
        assert abs(float(taken.value[0]) - after_value) <= tolerance
        assert abs(float(taken.costs[0]) - math.fsum(costs)) <= tolerance
        assert abs(float(taken.dividends[0]) - math.fsum(dividends)) <= tolerance
        assert taken.book.cash[0] >= 0
        for quantity in taken.book.quantities[0].tolist():
            assert quantity >= 0
            to_decimal(quantity)
        book = taken.book


@settings(max_examples=60, deadline=None, derandomize=True)
@given(price=st.floats(0.01, 5000), cash=st.floats(100, 1e7), costs=COSTS)
def test_a_round_trip_at_one_price_loses_exactly_its_costs(price: float, cash: float, costs: Costs):
    market = market_of(open=np.full((3, 1), price), close=np.full((3, 1), price))
    prices, rules = ExecutionPrices.of(market), Rules(cash_buffer=0.0, costs=costs)
    bought = step(Book.of_cash(cash, assets=1), prices=prices, rows=np.array([0]), weights=np.ones((1, 1)), rules=rules)
    sold = step(bought.book, prices=prices, rows=np.array([1]), weights=np.zeros((1, 1)), rules=rules)
    assert sold.book.quantities.tolist() == [[0.0]]
    np.testing.assert_allclose(cash - sold.value, bought.costs + sold.costs, rtol=0, atol=1e-9 * cash)
    rate = (1 - costs.slippage) * (1 - costs.fee) / ((1 + costs.slippage) * (1 + costs.fee))
    np.testing.assert_allclose(sold.value, cash * rate, rtol=1e-6, atol=1e-8 * price)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scores=hnp.arrays(np.float64, (1, 4), elements=st.floats(-10, 10)), costs=COSTS, seed=st.integers(0, 50))
def test_holding_what_is_wanted_trades_nothing_and_costs_nothing(scores: np.ndarray, costs: Costs, seed: int):
    market = walk(sessions=3, assets=4, seed=seed, eventful=False)
    flat = market_of(open=np.repeat(market.close[:1], 3, axis=0), close=np.repeat(market.close[:1], 3, axis=0))
    prices, rules = ExecutionPrices.of(flat), Rules(costs=costs)
    weights = weights_from_scores(scores, np.zeros((1, 4)), np.ones((1, 4), dtype=bool), kappa=1.0)
    book = Book.invested(50_000.0, weights=weights, prices=prices.closing[[0]], rules=rules)
    taken = step(book, prices=prices, rows=np.array([0]), weights=weights, rules=rules)
    assert taken.costs.tolist() == [0.0]
    assert taken.turnover.tolist() == [0.0]
    np.testing.assert_array_equal(taken.book.quantities, book.quantities)
    np.testing.assert_array_equal(taken.book.cash, book.cash)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), books=st.integers(2, 40), names=st.integers(1, 40), rules=RULES)
def test_a_batch_equals_its_books_one_by_one_bit_for_bit(seed: int, books: int, names: int, rules: Rules):
    market = walk(sessions=40, assets=names, seed=seed)
    prices, rng = ExecutionPrices.of(market), np.random.default_rng(seed)
    rows = rng.integers(0, 30, books)
    together = Book.of_cash(100_000.0, assets=names, books=books)
    alone = [Book.of_cash(100_000.0, assets=names) for _ in range(books)]
    for offset in range(8):
        at = rows + offset
        scores = rng.normal(0, 3, (books, names))
        held, _ = together.shares(prices.closing[at])
        weights = weights_from_scores(scores, held, market.tradable[at], kappa=0.3)
        taken = step(together, prices=prices, rows=at, weights=weights, rules=rules)
        for n in range(books):
            own_held, _ = alone[n].shares(prices.closing[at[[n]]])
            own = weights_from_scores(scores[[n]], own_held, market.tradable[at[[n]]], kappa=0.3)
            np.testing.assert_array_equal(own[0], weights[n])
            single = step(alone[n], prices=prices, rows=at[[n]], weights=own, rules=rules)
            assert single.book.cash[0] == taken.book.cash[n]
            np.testing.assert_array_equal(single.book.quantities[0], taken.book.quantities[n])
            assert (single.value[0], single.costs[0], single.turnover[0]) == (taken.value[n], taken.costs[n], taken.turnover[n])
            alone[n] = single.book
        together = taken.book
