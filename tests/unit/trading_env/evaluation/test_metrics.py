"""Each measure against arithmetic by hand."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from trading_env.evaluation import metrics

RETURNS = [0.01, -0.02, 0.015, 0.0, -0.005, 0.03]
GROWTH = np.log1p(np.array(RETURNS))


def test_log_growth_begins_at_the_initial_value():
    np.testing.assert_allclose(metrics.log_growth(np.array([110.0, 99.0]), initial=100.0), [math.log(1.1), math.log(0.9)])


@pytest.mark.parametrize("equity", [[100.0, np.nan], [100.0, 0.0], [-1.0, 5.0]])
def test_equity_that_cannot_be_is_refused(equity):
    with pytest.raises(metrics.MetricError, match="finite and above 0"):
        metrics.log_growth(np.array(equity), initial=100.0)


def test_return_and_volatility():
    whole = math.prod(1 + r for r in RETURNS)
    assert metrics.annual_return(GROWTH) == pytest.approx(whole ** (252 / 6) - 1)
    assert metrics.volatility(GROWTH) == pytest.approx(statistics.stdev(RETURNS) * math.sqrt(252))


def test_ratios():
    daily = statistics.mean(RETURNS) / statistics.stdev(RETURNS)
    assert metrics.sharpe(GROWTH) == pytest.approx(daily * math.sqrt(252))
    downside = math.sqrt((0.02**2 + 0.005**2) / 6)
    assert metrics.sortino(GROWTH) == pytest.approx(statistics.mean(RETURNS) / downside * math.sqrt(252))


def test_drawdown_is_measured_from_the_high_so_far_and_the_start_is_one():
    equity = np.array([90.0, 120.0, 60.0, 150.0])
    np.testing.assert_allclose(metrics.drawdown(equity, initial=100.0), [0.1, 0.0, 0.5, 0.0])
    assert metrics.max_drawdown(equity, initial=100.0) == 0.5
    assert metrics.calmar(equity, initial=100.0) == pytest.approx((1.5 ** (252 / 4) - 1) / 0.5)


def test_effective_n_counts_equal_positions():
    weights = np.array([[0.25] * 4, [1.0, 0.0, 0.0, 0.0], [0.4, 0.4, 0.0, 0.0], [0.0] * 4])
    np.testing.assert_allclose(metrics.effective_n(weights), [4.0, 1.0, 2.0, np.nan])


def test_a_ratio_over_nothing_is_nan_and_too_little_is_refused():
    assert math.isnan(metrics.sharpe(np.zeros(5)))
    assert math.isnan(metrics.sortino(np.full(5, 0.01)))
    assert math.isnan(metrics.calmar(np.array([100.0, 101.0]), initial=100.0))
    for growth in (np.zeros(1), np.array([0.1, np.nan])):
        with pytest.raises(metrics.MetricError, match="two or more sessions"):
            metrics.sharpe(growth)


def test_a_path_that_never_varies_has_no_sharpe_whatever_its_rounding_says():
    growth = np.full(100, math.log1p(0.001))
    assert np.expm1(growth).std(ddof=1) > 0
    assert math.isnan(metrics.sharpe(growth))
