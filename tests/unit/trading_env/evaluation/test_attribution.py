"""Attribution: each cause shows in its own part and nowhere else. The identity is a property test's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal

import numpy as np
import pytest

from tests.markets import market_of, walk
from trading_env.data.market import Market
from trading_env.evaluation.attribution import AttributionError, AttributionParts, LiveBook, LiveDay, LiveFill, execution, explain
from trading_env.evaluation.backtest import BacktestResult, backtest
from trading_env.orders.execution_cost import Execution, tally
from trading_env.simulation.policy import EqualWeight, Policy, SeededRandom
from trading_env.simulation.portfolio import Costs, ExecutionPrices, Rules

CASH = 10_000.0
RULES = Rules(cash_buffer=0.0, costs=Costs(fee_bps=2, slippage_bps=10), credit_dividends=False)
OPENS = np.array([[100.0, 50.0], [100.0, 50.0], [102.0, 51.0]])
CLOSES = np.array([[100.0, 50.0], [101.0, 49.0], [104.0, 50.0]])
MARKET = market_of(open=OPENS, close=CLOSES)
HALVES = {"S0": 0.5, "S1": 0.5}


def backtested(policy: Policy, market: Market = MARKET, rules: Rules = RULES, first: int = 1) -> BacktestResult:
    return backtest(market, policy, rules=rules, start=market.sessions[first], end=market.sessions[-1], initial_cash=CASH, limits=None)


def followed(result: BacktestResult, market: Market, rules: Rules = RULES) -> list[LiveDay]:
    """The live days of a broker that does exactly what the backtest assumes."""
    days = []
    for number, session in enumerate(result.sessions):
        row, costs = market.index_of(session), rules.costs
        deltas = dict(zip(market.symbols, result.deltas[number].tolist(), strict=True))
        opens, closes = (
            dict(zip(market.symbols, prices.tolist(), strict=True))
            for prices in (ExecutionPrices.of(market).opening[row], ExecutionPrices.of(market).closing[row])
        )
        fills = [
            LiveFill(symbol=symbol, quantity=delta, price=opens[symbol] * (1 + np.sign(delta) * costs.adverse))
            for symbol, delta in deltas.items()
            if delta
        ]
        held = dict(zip(market.symbols, result.quantities[number].tolist(), strict=True))
        tradable = market.tradable[row - 1]
        weights = {symbol: w for symbol, w, trades in zip(market.symbols, result.weights[number].tolist(), tradable, strict=True) if trades}
        days.append(
            LiveDay(
                session=date.fromisoformat(str(session)),
                weights=weights,
                plan=deltas,
                fills=fills,
                close=LiveBook(cash=float(result.cash[number]), quantities={s: q for s, q in held.items() if q}, marks=closes),
                fees=sum(abs(fill.quantity) * fill.price for fill in fills) * costs.fee,
            )
        )
    return days


def parts_of(days: list[LiveDay], result: BacktestResult, policy: Policy, market: Market = MARKET) -> list[AttributionParts]:
    explained = explain(market, days, backtested=result, policy=policy, rules=RULES)
    assert max(abs(one.unexplained) for one in explained) < 1e-7
    return [one.parts for one in explained]


def only(parts: AttributionParts, **expected: float) -> None:
    """`parts` holds what is expected, and nothing else beyond a thousandth of a cent."""
    for name in AttributionParts.__dataclass_fields__:
        assert getattr(parts, name) == pytest.approx(expected.get(name, 0.0), abs=1e-5), name


def changed(day: LiveDay, *, cash: float = 0.0, shares: Mapping[str, float] = {}, **more: object) -> LiveDay:
    """The day with its closing book moved by `cash` and `shares`."""
    held = {symbol: day.close.quantities.get(symbol, 0.0) + shares.get(symbol, 0.0) for symbol in {*day.close.quantities, *shares}}
    book = replace(day.close, cash=day.close.cash + cash, quantities=held)
    return replace(day, close=book, **more)  # type: ignore[arg-type]


def test_a_broker_that_does_what_the_backtest_assumes_leaves_nothing_to_explain() -> None:
    market, policy = walk(sessions=40, assets=4, seed=2), SeededRandom(seed=1, kappa=0.4)
    result = backtested(policy, market, first=15)
    for parts in parts_of(followed(result, market), result, policy, market):
        only(parts)


@pytest.fixture
def result() -> BacktestResult:
    return backtested(EqualWeight())


@pytest.fixture
def days(result: BacktestResult) -> list[LiveDay]:
    return followed(result, MARKET)


def test_a_worse_fill_is_price(days: list[LiveDay], result: BacktestResult) -> None:
    first = days[0]
    worse = [replace(fill, price=fill.price + 0.25) if fill.symbol == "S0" else fill for fill in first.fills]
    bought = first.fills[0].quantity
    parts = parts_of([changed(first, cash=-0.25 * bought, fills=worse), days[1]], result, EqualWeight())
    only(parts[0], price=-0.25 * bought)


def test_a_fill_that_never_came_is_missed(days: list[LiveDay], result: BacktestResult) -> None:
    """Not bought at 50 (and 10 bp, and the fee): the fall to 49 and the costs are saved."""
    first, missed = days[0], days[0].fills[1]
    paid = missed.quantity * missed.price
    fee = paid * RULES.costs.fee
    without = changed(first, cash=paid + fee, shares={"S1": -missed.quantity}, fills=first.fills[:1], fees=first.fees - fee)
    parts = parts_of([without, days[1]], result, EqualWeight())
    only(parts[0], missed=missed.quantity * (1.0 + 50.0 * 0.001), fees=fee)


def test_a_smaller_plan_is_sizing(days: list[LiveDay], result: BacktestResult) -> None:
    first, fill = days[0], days[0].fills[0]
    paid = 10 * fill.price
    smaller = changed(
        first,
        cash=paid + paid * RULES.costs.fee,
        shares={"S0": -10.0},
        plan={**first.plan, "S0": first.plan["S0"] - 10},
        fills=[replace(fill, quantity=fill.quantity - 10), first.fills[1]],
        fees=first.fees - paid * RULES.costs.fee,
    )
    parts = parts_of([smaller, days[1]], result, EqualWeight())
    only(parts[0], sizing=-10 * (1.0 - 100.0 * 0.001), fees=paid * RULES.costs.fee)


def test_cash_that_no_fill_explains_is_cash_and_fees_are_fees(days: list[LiveDay], result: BacktestResult) -> None:
    parts = parts_of([changed(days[0], cash=250.0 - 3.0, fees=days[0].fees + 3.0), changed(days[1], cash=247.0)], result, EqualWeight())
    only(parts[0], cash=250.0, fees=-3.0)


def test_what_a_person_traded_is_foreign(days: list[LiveDay], result: BacktestResult) -> None:
    """In the universe or outside, by a fill that the ledger has; and shares that came from nowhere."""
    bought = LiveFill(symbol="S1", quantity=2.0, price=50.5, planned=False)
    elsewhere = LiveFill(symbol="TLT", quantity=1.0, price=140.0, planned=False)
    marked = replace(days[0], close=replace(days[0].close, marks={**days[0].close.marks, "TLT": 143.0}))
    manual = changed(marked, cash=-241.0, shares={"S1": 2.0, "TLT": 1.0, "S0": 0.5}, fills=[*days[0].fills, bought, elsewhere])
    parts = parts_of([manual, days[1]], result, EqualWeight())
    only(parts[0], foreign=2 * (49.0 - 50.5) + 3.0 + 0.5 * 101.0)


def test_another_closing_price_is_marks_and_comes_back(days: list[LiveDay], result: BacktestResult) -> None:
    first = replace(days[0], close=replace(days[0].close, marks={**days[0].close.marks, "S0": 101.5}))
    parts = parts_of([first, days[1]], result, EqualWeight())
    held = first.close.quantities["S0"]
    only(parts[0], marks=held * 0.5)
    only(parts[1], marks=-held * 0.5)


def test_other_weights_are_the_model_and_their_consequences_are_carried(result: BacktestResult) -> None:
    lopsided = backtested(_Fixed((2.0, 0.0)))
    parts = parts_of(followed(lopsided, MARKET), result, EqualWeight())
    assert parts[0].model == pytest.approx(lopsided.equity[0] - result.equity[0])
    only(replace(parts[0], model=0.0))
    assert parts[1].carried + parts[1].model == pytest.approx(np.diff(lopsided.equity)[0] - np.diff(result.equity)[0])
    assert abs(parts[1].carried) > 1
    only(replace(parts[1], model=0.0, carried=0.0))


def test_a_session_without_a_decision_is_the_model_s(result: BacktestResult) -> None:
    idle = LiveBook(cash=CASH, quantities={}, marks={})
    first = LiveDay(session=date.fromisoformat(str(result.sessions[0])), weights=None, plan={}, fills=[], close=idle)
    second = replace(first, session=date.fromisoformat(str(result.sessions[1])))
    parts = parts_of([first, second], result, EqualWeight())
    only(parts[0], model=CASH - float(result.equity[0]))


def test_a_name_left_out_of_the_weights_is_carried_not_sold(days: list[LiveDay], result: BacktestResult) -> None:
    prices, before = ExecutionPrices.of(MARKET), days[0].close
    left = replace(days[1], weights={"S0": 0.5}, plan={"S0": 0.0}, fills=[], close=replace(before, marks=days[1].close.marks), fees=0.0)
    parts = execution(left, before=before, prices=prices, row=1, symbols=MARKET.symbols, rules=RULES)
    assert (parts.foreign, parts.missed, parts.carried, parts.model) == (0.0, 0.0, 0.0, 0.0)


def test_a_split_leaves_nothing_and_cash_in_lieu_is_cash() -> None:
    """One for ten of 12.5 shares: the broker keeps 1 and pays for the quarter, which are other shares and other cash than ours."""
    prices = np.array([[10.0, 50.0], [10.0, 50.0], [100.0, 50.0]])
    market = market_of(open=prices, close=prices, split=np.array([[1.0, 1.0], [1.0, 1.0], [0.1, 1.0]]))
    before = LiveBook(cash=100.0, quantities={"S0": 12.5}, marks={"S0": 10.0})
    day = LiveDay(
        session=date.fromisoformat(str(market.sessions[2])),
        weights=None,
        plan={},
        fills=[],
        close=LiveBook(cash=125.0, quantities={"S0": 1.0}, marks={"S0": 100.0}),
    )
    parts = execution(day, before=before, prices=ExecutionPrices.of(market), row=1, symbols=market.symbols, rules=RULES)
    only(parts, cash=25.0, foreign=-25.0)


def test_books_that_cannot_be_compared_are_refused(days: list[LiveDay], result: BacktestResult) -> None:
    with pytest.raises(AttributionError, match="same sessions, was 1 and 2"):
        explain(MARKET, days[:1], backtested=result, policy=None, rules=RULES)
    with pytest.raises(AttributionError, match="S0 has none"):
        LiveBook(cash=1.0, quantities={"S0": 1.0}, marks={})
    with pytest.raises(AttributionError, match="row"):
        execution(days[1], before=days[0].close, prices=ExecutionPrices.of(MARKET), row=2, symbols=MARKET.symbols, rules=RULES)
    nan = replace(days[0], fills=[replace(days[0].fills[0], price=float("nan"))])
    with pytest.raises(AttributionError, match="price must be finite, was nan"):
        explain(MARKET, [nan, days[1]], backtested=result, policy=None, rules=RULES)


class _Fixed:
    """Scores that are always the same."""

    name, kappa = "fixed", 1.0

    def __init__(self, scores: tuple[float, ...]) -> None:
        self._scores = np.array(scores)

    def scores(self, _observation: object) -> np.ndarray:
        return self._scores


def order(**more: object) -> Execution:
    told = {"symbol": "S", "side": "buy", "quantity": Decimal(10), "filled": Decimal(8), "decision": Decimal(100), **more}
    return Execution(**told)  # type: ignore[arg-type]


def test_what_an_order_cost_in_basis_points_and_dollars() -> None:
    bought = order(arrival=Decimal("100.5"), fill=Decimal("100.6005"), close=Decimal(103))
    assert bought.delay_bp == pytest.approx(50)
    assert bought.slippage_bp == pytest.approx(10)
    assert (bought.delay, bought.slippage, bought.missed) == (Decimal("4.0"), Decimal("0.8040"), Decimal(6))
    sold = replace(bought, side="sell")
    assert (sold.slippage_bp, sold.shortfall) == (pytest.approx(-10), -bought.shortfall)  # type: ignore[operator]


def test_what_is_not_known_is_none_never_zero() -> None:
    never_sent = order(filled=Decimal(0))
    assert (never_sent.delay_bp, never_sent.slippage_bp, never_sent.missed, never_sent.shortfall) == (None, None, None, None)
    assert replace(never_sent, close=Decimal(99)).shortfall == Decimal(-10)
    assert order(filled=Decimal(10), arrival=None, fill=Decimal(100)).shortfall is None


def test_orders_add_up() -> None:
    counted = tally([order(arrival=Decimal(100), fill=Decimal("100.1"), close=Decimal(103)), order(filled=Decimal(0))])
    assert (counted.orders, counted.open, counted.traded, counted.missed) == (2, 1, Decimal(800), Decimal(6))
    assert counted.slippage_bp == pytest.approx(10)
    assert tally([]).slippage_bp is None
