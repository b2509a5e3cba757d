"""The backtest as live trading would go."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pytest

from tests.markets import market_of, walk
from trading_env.data.market import MarketError
from trading_env.data.observation import Layout, Observation, observe, unpack
from trading_env.evaluation.backtest import BacktestResult, EvaluationError, _Guard, backtest, buy_and_hold
from trading_env.orders.risk import RULES as RULES_OF_RISK
from trading_env.orders.risk import Limits
from trading_env.simulation.policy import EqualWeight, SeededRandom, weights_from_scores
from trading_env.simulation.portfolio import Book, Costs, ExecutionPrices, Rules, TradePlan, step
from trading_env.simulation.rewards import equal_weight_growth

RULES = Rules(costs=Costs(slippage_bps=10.0))
MARKET = walk(sessions=120, assets=4, seed=1)
LAYOUT = Layout(assets=4, features=2, context=2)


@dataclass
class Watcher:
    """Zero scores; remembers what it saw."""

    name: str = "watcher"
    kappa: float = 0.1
    seen: list[Observation] = field(default_factory=list)

    def scores(self, observation: Observation) -> np.ndarray:
        self.seen.append(observation)
        return np.zeros(len(observation.symbols))


def run(policy=None, *, market=MARKET, rules=RULES, first=50, last=100, cash=100_000.0, limits=None) -> BacktestResult:
    start, end = market.sessions[first], market.sessions[last]
    return backtest(market, policy or SeededRandom(3), rules=rules, start=start, end=end, initial_cash=cash, limits=limits)


def test_each_decision_observes_the_close_before_its_session():
    watcher = Watcher()
    result = run(watcher)
    np.testing.assert_array_equal([o.as_of for o in watcher.seen], MARKET.sessions[49:100])
    np.testing.assert_array_equal(result.sessions, MARKET.sessions[50:101])
    first, second = (unpack(o.vector, layout=LAYOUT) for o in watcher.seen[:2])
    assert first.assets[:, 2].tolist() == [0.0] * 4
    assert first.rest[0] == 1.0
    np.testing.assert_allclose(second.assets[:, 2], result.held[0], rtol=1e-6)


def test_what_a_decision_observes_is_what_live_trading_observes_to_the_bit():
    watcher = Watcher()
    result = run(watcher)
    for index, seen in enumerate(watcher.seen[1:]):
        row, held = 50 + index, result.held[index]
        cash = result.cash[index] / result.equity[index]
        expected = observe(MARKET.features[row], MARKET.context[row], MARKET.tradable[row], held, cash)
        np.testing.assert_array_equal(seen.vector, expected)


def test_the_first_decision_goes_all_the_way_and_the_next_ones_a_part():
    result = run(SeededRandom(3, kappa=0.1), market=walk(sessions=60, assets=3, eventful=False), first=30, last=40)
    exp = np.exp(result.scores)
    target = exp / exp.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.weights[0], target[0])
    h = result.held[0] / result.held[0].sum()
    np.testing.assert_allclose(result.weights[1], h + 0.1 * (target[1] - h))


def test_the_books_add_up_at_every_close():
    result = run()
    prices = ExecutionPrices.of(MARKET)
    for index, row in enumerate(range(50, 101)):
        book = Book(cash=result.cash[[index]], quantities=result.quantities[[index]])
        assert book.value(prices.closing[row])[0] == result.equity[index]
    assert (result.cash >= 0).all()
    assert result.costs.sum() > 0
    assert result.dividends.sum() > 0


def test_what_comes_later_changes_nothing_before():
    whole, cut = run(last=100), run(market=MARKET.rows(MARKET.sessions[0], MARKET.sessions[80]), last=80)
    for name in ("equity", "cash", "quantities", "weights", "costs"):
        np.testing.assert_array_equal(getattr(whole, name)[:31], getattr(cut, name))


def test_equal_weight_is_the_baseline_of_the_reward():
    market = walk(sessions=80, assets=4, seed=5, eventful=False)
    growth = equal_weight_growth(ExecutionPrices.of(market), rules=RULES, initial_value=100_000.0)
    result = run(EqualWeight(), market=market, first=1, last=79)
    # They differ in how they got in, so in what they hold at the first two opens; after that by orders under a dollar
    np.testing.assert_allclose(result.growth[2:], growth[3:], atol=1e-7)


def test_buy_and_hold_is_one_name_from_the_first_open():
    market = walk(sessions=60, assets=3, eventful=False)
    result = buy_and_hold(
        market,
        "S1",
        rules=Rules(cash_buffer=0.0, costs=Costs(slippage_bps=0.0)),
        start=market.sessions[10],
        end=market.sessions[50],
        initial_cash=1000.0,
    )
    np.testing.assert_allclose(result.equity, 1000 * market.close[10:51, 1] / market.open[10, 1], rtol=1e-9)


def test_dates_between_sessions_are_allowed_and_dates_outside_refused():
    flat = np.full((6, 1), 10.0)
    market = market_of(open=flat, close=flat, start="2019-01-02")
    result = backtest(market, EqualWeight(), rules=RULES, start="2019-01-05", end="2019-01-08", initial_cash=1e4)
    assert result.sessions.astype(str).tolist() == ["2019-01-07", "2019-01-08"]
    with pytest.raises(EvaluationError, match="observes the session before 2019-01-02"):
        backtest(market, EqualWeight(), rules=RULES, start="2019-01-02", end="2019-01-08", initial_cash=1e4)
    with pytest.raises(MarketError, match="from 2020-01-01 to 2020-02-01"):
        backtest(market, EqualWeight(), rules=RULES, start="2020-01-01", end="2020-02-01", initial_cash=1e4)


LIMITS = Limits(
    max_weight=0.6,
    max_gross=1.0,
    max_order_notional=1e6,
    max_turnover_per_day=2.0,
    max_orders_per_day=60,
    price_collar=0.1,
    max_drawdown=0.5,
    max_daily_loss=0.25,
    max_bar_age_sessions=1,
    max_model_age_days=500,
)


def test_limits_that_do_not_bind_change_nothing():
    calm, market = SeededRandom(3, kappa=0.02), walk(sessions=60, assets=4, eventful=False)
    free, limited = run(calm, market=market, first=10, last=50), run(calm, market=market, first=10, last=50, limits=LIMITS)
    assert limited.denied == ()
    np.testing.assert_array_equal(free.equity, limited.equity)


def test_limits_take_orders_out_and_say_so():
    limited = run(limits=replace(LIMITS, max_weight=0.3))
    assert any("max_weight: buy" in line for line in limited.denied)
    grown = limited.held - np.vstack([np.zeros(4), limited.held[:-1]]) > 0.05
    assert (limited.held[grown] < 0.33).all()


def test_a_latched_breaker_stops_buys_for_good():
    prices = np.concatenate([np.full(10, 100.0), np.full(10, 40.0), np.full(20, 100.0)])[:, None] * np.ones((1, 2))
    prices[:, 1] = 10.0
    market = market_of(open=prices, close=prices, features=np.zeros((40, 2, 1)))
    limited = run(EqualWeight(), market=market, first=2, last=39, limits=replace(LIMITS, max_drawdown=0.2, price_collar=0.9))
    crash = 10 - 2
    assert (limited.deltas[crash + 1 :] <= 0).all()
    assert any("max_drawdown is latched" in line for line in limited.denied)


@pytest.mark.parametrize("limit", [{"max_drawdown": 0.2}, {"max_daily_loss": 0.2}])
def test_a_fall_is_measured_from_the_highest_close_and_from_the_last_one_not_from_the_start(limit: dict[str, float]):
    prices = np.concatenate([np.full(10, 100.0), np.full(10, 200.0), np.full(20, 150.0)])[:, None] * np.ones((1, 2))
    prices[25:, 1] = np.linspace(160.0, 170.0, 15)  # something to rebalance
    market = market_of(open=prices, close=prices, features=np.zeros((40, 2, 1)))
    loose = replace(LIMITS, max_drawdown=0.9, max_daily_loss=0.9, price_collar=0.9)
    assert run(EqualWeight(), market=market, first=2, last=39, limits=loose).denied == ()
    limited = run(EqualWeight(), market=market, first=2, last=39, limits=replace(loose, **limit))
    assert limited.equity[-1] > limited.initial_cash
    assert all(" breaker: buy " in line for line in limited.denied)
    assert len(limited.denied) > 10  # it latches, and the price stays up


class OrderByOrder(_Guard):
    """The risk rules as the executor asks them, whatever the session."""

    def _allows_all(self, _plan: TradePlan) -> bool:
        return False


@pytest.mark.parametrize(
    "limits",
    [
        LIMITS,
        replace(LIMITS, max_weight=0.26),
        replace(LIMITS, max_gross=0.9),
        replace(LIMITS, max_order_notional=3_000.0),
        replace(LIMITS, max_turnover_per_day=0.4),
        replace(LIMITS, max_orders_per_day=2),
        replace(LIMITS, max_daily_loss=0.01),
        replace(LIMITS, max_drawdown=0.05),
        replace(LIMITS, restricted=("S1",)),
        replace(LIMITS, max_bar_age_sessions=0),
    ],
    ids=lambda limits: ", ".join(f"{key}={value}" for key, value in asdict(limits).items() if value != getattr(LIMITS, key)) or "free",
)
def test_passing_a_session_at_a_glance_allows_and_denies_what_passing_each_order_does(limits):
    market, rng = walk(sessions=90, assets=5, seed=8), np.random.default_rng(2)
    prices, guards = ExecutionPrices.of(market), (_Guard(market, limits, 1e5), OrderByOrder(market, limits, 1e5))
    book = Book.of_cash(1e5, assets=5)
    for row in range(40, 89):
        scores = rng.normal(size=(1, 5)) * rng.choice([0.1, 3.0])
        weights = weights_from_scores(scores, book.shares(prices.closing[[row]])[0], prices.decidable[[row]], kappa=rng.choice([0.1, 1.0]))
        taken = [step(book, prices=prices, rows=np.array([row]), weights=weights, rules=RULES, review=guard.review) for guard in guards]
        assert taken[0].deltas.tobytes() == taken[1].deltas.tobytes()
        assert taken[0].book.cash.tobytes() == taken[1].book.cash.tobytes()
        book = taken[0].book
        for guard in guards:
            guard.close(float(taken[0].value[0]))
    assert guards[0].denied == guards[1].denied
    assert guards[0].denied


def test_the_glance_knows_every_rule_there_is():
    """A rule added to risk.py must be added to `_Guard._allows_all`, then here."""
    assert set(RULES_OF_RISK) == {
        *("trading_state", "account_pin", "breaker", "stale_data", "stale_model", "stale_quote", "restricted", "price_collar"),
        *("order_notional", "long_only", "orders_per_day", "turnover_per_day", "max_weight", "max_gross"),
    }
