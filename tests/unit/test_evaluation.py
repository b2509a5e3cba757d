"""The backtest as live trading would go, and the gate's judgement."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from tests.markets import market_of, walk
from trading_env.evaluation import BacktestResult, EvaluationError, GateRules, backtest, buy_and_hold, gate
from trading_env.market import MarketError
from trading_env.observation import Layout, Observation, unpack
from trading_env.policy import EqualWeight, SeededRandom
from trading_env.portfolio import Book, Costs, Rules, Tape
from trading_env.rewards import equal_weight_growth
from trading_env.risk import Limits

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


def run(policy=None, *, market=MARKET, rules=RULES, first=50, last=100, cash=100_000.0, **options) -> BacktestResult:
    start, end = market.sessions[first], market.sessions[last]
    return backtest(market, policy or SeededRandom(3), rules=rules, start=start, end=end, initial_cash=cash, **options)


def test_each_decision_observes_the_close_before_its_session():
    watcher = Watcher()
    result = run(watcher)
    np.testing.assert_array_equal([o.as_of for o in watcher.seen], MARKET.sessions[49:100])
    np.testing.assert_array_equal(result.sessions, MARKET.sessions[50:101])
    first, second = (unpack(o.vector, layout=LAYOUT) for o in watcher.seen[:2])
    assert first.assets[:, 2].tolist() == [0.0] * 4
    assert first.rest[0] == 1.0
    np.testing.assert_allclose(second.assets[:, 2], result.held[0], rtol=1e-6)


def test_the_first_decision_goes_all_the_way_and_the_next_ones_a_part():
    result = run(SeededRandom(3, kappa=0.1), market=walk(sessions=60, assets=3, eventful=False), first=30, last=40)
    exp = np.exp(result.scores)
    target = exp / exp.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.weights[0], target[0])
    h = result.held[0] / result.held[0].sum()
    np.testing.assert_allclose(result.weights[1], h + 0.1 * (target[1] - h))


def test_the_books_add_up_at_every_close():
    result = run()
    tape = Tape.of(MARKET)
    for index, row in enumerate(range(50, 101)):
        book = Book(cash=result.cash[[index]], quantities=result.quantities[[index]])
        assert book.value(tape.closing[row])[0] == result.equity[index]
    assert (result.cash >= 0).all()
    assert result.costs.sum() > 0
    assert result.dividends.sum() > 0


def test_what_comes_later_changes_nothing_before():
    whole, cut = run(last=100), run(market=MARKET.rows(MARKET.sessions[0], MARKET.sessions[80]), last=80)
    for name in ("equity", "cash", "quantities", "weights", "costs"):
        np.testing.assert_array_equal(getattr(whole, name)[:31], getattr(cut, name))


def test_equal_weight_is_the_baseline_of_the_reward():
    market = walk(sessions=80, assets=4, seed=5, eventful=False)
    growth = equal_weight_growth(Tape.of(market), rules=RULES, initial_value=100_000.0)
    result = run(EqualWeight(), market=market, first=1, last=79)
    # They differ in how they got in, so in what they hold at the first two opens; after that by orders under a dollar
    np.testing.assert_allclose(result.growth[2:], growth[3:], atol=1e-7)


def test_buy_and_hold_is_one_name_from_the_first_open():
    market = walk(sessions=60, assets=3, eventful=False)
    result = buy_and_hold(
        market, "S1", rules=Rules(cash_buffer=0.0), start=market.sessions[10], end=market.sessions[50], initial_cash=1000.0
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


def result_of(growth: np.ndarray, *, name: str, turnover: float = 0.02, scores: np.ndarray | None = None, names: int = 6) -> BacktestResult:
    sessions, even = len(growth), np.full((len(growth), names), 1 / names)
    equity, zeros = 1e5 * np.exp(np.cumsum(growth)), np.zeros(len(growth))
    return BacktestResult(
        policy=name,
        symbols=tuple(f"S{i}" for i in range(names)),
        initial_cash=1e5,
        sessions=np.busday_offset(np.datetime64("2016-01-04", "D"), np.arange(sessions)),
        equity=equity,
        cash=zeros,
        costs=zeros,
        dividends=zeros,
        turnover=np.full(sessions, turnover),
        scores=np.random.default_rng(9).normal(size=(sessions, names)) if scores is None else scores,
        weights=even,
        deltas=even * 0,
        quantities=even,
        held=even,
    )


MARKET_GROWTH = np.random.default_rng(0).normal(0.0004, 0.01, 1000)
EDGE = np.random.default_rng(1).normal(0.0003, 0.002, 1000)
BASELINE = result_of(MARKET_GROWTH, name="equal-weight")


def judge(agent: BacktestResult, **rules):
    return gate(agent, equal_weight=BASELINE, benchmark=BASELINE, rules=GateRules(**rules))


class TestGate:
    def test_a_clear_edge_passes_with_its_evidence(self):
        verdict = judge(result_of(MARKET_GROWTH + EDGE, name="agent"))
        assert verdict.passed
        assert all(reason.startswith("passed: ") for reason in verdict.reasons)
        assert verdict.numbers["excess_bp_per_year"] == pytest.approx(EDGE.mean() * 252 * 1e4)
        assert 0 < verdict.numbers["excess_lower_bp_per_year"] < verdict.numbers["excess_bp_per_year"]
        assert verdict.numbers["sharpe"] > verdict.numbers["equal_weight_sharpe"] == verdict.numbers["benchmark_sharpe"]
        assert judge(result_of(MARKET_GROWTH + EDGE, name="agent")) == verdict

    @pytest.mark.parametrize(
        ("agent", "words"),
        [
            (result_of(MARKET_GROWTH + EDGE - EDGE.mean() + 2e-5, name="lucky"), "lower bound"),
            (result_of(MARKET_GROWTH - EDGE, name="worse"), "against equal weight, it must be above 0"),
            (result_of(MARKET_GROWTH, name="same"), "growth net of cost is +0.0 bp"),
            (result_of(MARKET_GROWTH + EDGE, name="churner", turnover=0.11), "turnover is 11.00% of equity a day, at most 10.00%"),
            (result_of(MARKET_GROWTH + EDGE, name="constant", scores=np.ones((1000, 1)) * np.arange(6.0)), "scores move by 0"),
        ],
    )
    def test_a_policy_without_evidence_is_refused_with_the_reason_first(self, agent, words):
        verdict = judge(agent)
        assert not verdict.passed
        assert verdict.reasons[0].startswith("refused: ")
        assert any(words in reason for reason in verdict.reasons if reason.startswith("refused: "))

    def test_too_few_sessions_and_too_concentrated_are_refused(self):
        assert judge(result_of(MARKET_GROWTH + EDGE, name="agent"), min_sessions=1001).reasons[0] == (
            "refused: 1000 sessions out of sample, at least 1001 are needed"
        )
        agent = result_of(MARKET_GROWTH + EDGE, name="agent")
        alone = np.zeros_like(agent.held)
        alone[:, 0] = 1.0
        assert judge(replace(agent, held=alone)).reasons[0] == "refused: 1.0 effective names of 6, at least 2.0"

    def test_results_of_other_sessions_are_not_compared(self):
        with pytest.raises(EvaluationError, match="same sessions, equal-weight and agent"):
            judge(result_of((MARKET_GROWTH + EDGE)[:900], name="agent"))

    def test_nothing_that_is_nan_passes(self):
        agent = result_of(MARKET_GROWTH + EDGE, name="agent")
        assert not judge(replace(agent, turnover=np.full(1000, np.nan))).passed
        assert not judge(replace(agent, held=agent.held * 0)).passed
