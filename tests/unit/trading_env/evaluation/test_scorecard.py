"""A row's numbers against arithmetic by hand, on a path of five sessions across a new year."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest

from tests.markets import walk
from trading_env.evaluation.backtest import BacktestResult, backtest
from trading_env.evaluation.metrics import MetricError
from trading_env.evaluation.scorecard import measures, years
from trading_env.simulation.policy import EqualWeight, SeededRandom
from trading_env.simulation.portfolio import Costs, Rules

DAYS = np.array(["2019-12-30", "2019-12-31", "2020-01-02", "2020-01-03", "2020-01-06"], dtype="datetime64[D]")
RETURNS = [0.02, -0.01, 0.0, 0.03, -0.04]
EVEN = [0.01, -0.02, 0.01, 0.02, -0.03]
HELD = np.array([[0.5, 0.3], [0.4, 0.4], [0.8, 0.0], [0.0, 0.0], [0.45, 0.45]])


def path_of(returns: list[float], *, name: str = "row") -> BacktestResult:
    equity = 1000 * np.cumprod(1 + np.array(returns))
    flat, zeros = np.zeros((5, 2)), np.zeros(5)
    return BacktestResult(
        policy=name,
        symbols=("S0", "S1"),
        initial_cash=1000.0,
        sessions=DAYS,
        equity=equity,
        cash=zeros,
        costs=equity * np.array([0.001, 0.0, 0.0002, 0.0, 0.0]),
        dividends=zeros,
        turnover=np.array([0.8, 0.0, 0.1, 0.0, 0.1]),
        scores=flat,
        weights=flat,
        deltas=flat,
        quantities=flat,
        held=HELD,
    )


ROW, BASELINE = path_of(RETURNS), path_of(EVEN, name="equal weight daily")
SLOW = path_of([0.01, -0.015, 0.005, 0.02, -0.03], name="equal weight at kappa")
SCORE = measures(ROW, equal_weight=BASELINE, at_kappa=SLOW)


def test_return_and_risk() -> None:
    whole = 1.02 * 0.99 * 1.03 * 0.96
    mean, deviation = statistics.mean(RETURNS), statistics.stdev(RETURNS)
    assert SCORE["final_equity"] == pytest.approx(1000 * whole)
    assert SCORE["annual_return"] == pytest.approx(whole ** (252 / 5) - 1)
    assert SCORE["volatility"] == pytest.approx(deviation * math.sqrt(252))
    assert SCORE["sharpe"] == pytest.approx(mean / deviation * math.sqrt(252))
    assert SCORE["sortino"] == pytest.approx(mean / math.sqrt((0.01**2 + 0.04**2) / 5) * math.sqrt(252))
    assert SCORE["max_drawdown"] == pytest.approx(0.04)
    assert SCORE["calmar"] == pytest.approx((whole ** (252 / 5) - 1) / 0.04)


def test_the_sharpe_ratio_s_error_and_probability() -> None:
    mean, ratio = statistics.mean(RETURNS), statistics.mean(RETURNS) / statistics.stdev(RETURNS)
    spread = statistics.pstdev(RETURNS)
    skewness, kurtosis = (sum((r - mean) ** power for r in RETURNS) / 5 / spread**power for power in (3, 4))
    error = math.sqrt((1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2) / 4)
    assert SCORE["sharpe_error"] == pytest.approx(error * math.sqrt(252))
    assert SCORE["psr"] == pytest.approx(statistics.NormalDist().cdf(ratio / error))


def test_what_is_held_and_traded() -> None:
    assert SCORE["exposure"] == pytest.approx((0.8 + 0.8 + 0.8 + 0.0 + 0.9) / 5)
    assert SCORE["effective_n"] == pytest.approx((0.64 / 0.34 + 2 + 1 + 2) / 4)
    assert SCORE["turnover_per_day"] == pytest.approx(0.2)
    assert SCORE["costs_bp_per_year"] == pytest.approx(0.0012 / 5 * 252 * 1e4)


def test_against_equal_weight() -> None:
    d = [math.log((1 + own) / (1 + even)) for own, even in zip(RETURNS, EVEN, strict=True)]
    assert SCORE["excess_bp_per_year"] == pytest.approx(statistics.mean(d) * 252e4)
    assert SCORE["tracking_error"] == pytest.approx(statistics.stdev(d) * math.sqrt(252))
    assert SCORE["information_ratio"] == pytest.approx(statistics.mean(d) / statistics.stdev(d) * math.sqrt(252))
    assert SCORE["information_ratio"] == pytest.approx(SCORE["excess_bp_per_year"] / 1e4 / SCORE["tracking_error"])


def test_against_equal_weight_at_kappa() -> None:
    d = [math.log((1 + own) / (1 + slow)) for own, slow in zip(RETURNS, np.expm1(SLOW.growth), strict=True)]
    assert SCORE["excess_at_kappa_bp_per_year"] == pytest.approx(statistics.mean(d) * 252e4)
    assert SCORE["tracking_error_at_kappa"] == pytest.approx(statistics.stdev(d) * math.sqrt(252))
    assert SCORE["information_ratio_at_kappa"] == pytest.approx(statistics.mean(d) / statistics.stdev(d) * math.sqrt(252))


def test_what_does_not_exist_is_nan_and_nothing_else_is() -> None:
    idle = measures(replace(path_of([0.0] * 5), held=HELD * 0), equal_weight=BASELINE, at_kappa=SLOW)
    missing = {"sharpe", "sharpe_error", "sortino", "calmar", "effective_n", "psr"}
    assert {name for name, value in idle.items() if math.isnan(value)} == missing
    itself = measures(BASELINE, equal_weight=BASELINE, at_kappa=SLOW)
    assert {name for name, value in itself.items() if math.isnan(value)} == {"information_ratio"}
    slow = measures(SLOW, equal_weight=BASELINE, at_kappa=SLOW)
    assert {name for name, value in slow.items() if math.isnan(value)} == {"information_ratio_at_kappa"}
    assert slow["information_ratio"] > 0
    assert itself["excess_bp_per_year"] == itself["tracking_error"] == 0


def test_paths_of_other_sessions_are_not_compared() -> None:
    with pytest.raises(MetricError, match="row and equal weight daily must cover the same sessions"):
        measures(replace(ROW, sessions=DAYS + 1), equal_weight=BASELINE, at_kappa=SLOW)
    with pytest.raises(MetricError, match="row and equal weight at kappa must cover the same sessions"):
        measures(ROW, equal_weight=BASELINE, at_kappa=replace(SLOW, sessions=DAYS + 1))


def test_years_are_the_calendar_s_and_make_up_the_whole() -> None:
    returns = years(ROW)
    assert returns == pytest.approx({"2019": 1.02 * 0.99 - 1, "2020": 1.0 * 1.03 * 0.96 - 1})
    assert math.prod(1 + r for r in returns.values()) == pytest.approx(SCORE["final_equity"] / 1000)


def test_a_backtest_has_every_measure() -> None:
    market = walk(sessions=60, assets=4, seed=1)
    rules = Rules(costs=Costs(slippage_bps=10.0))
    agent, even, slow = (
        backtest(market, policy, rules=rules, start=market.sessions[20], end=market.sessions[59], initial_cash=1e5)
        for policy in (SeededRandom(3), EqualWeight(), EqualWeight(kappa=0.1))
    )
    score = measures(agent, equal_weight=even, at_kappa=slow)
    assert all(math.isfinite(value) for value in score.values())
    assert score["costs_bp_per_year"] == pytest.approx(score["turnover_per_day"] * 252 * 10, rel=0.02)
