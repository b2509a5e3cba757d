"""One traded path in numbers: the measures of a row of the evaluation, and its calendar years.

Promise: every number is a published formula over the whole path, on 252 sessions per year and a risk-free rate of 0, and says its unit;
what compares with equal weight uses d, the daily log growth of the path less that of equal weight, as the gate does: rebalanced daily,
and, where the name ends in `at_kappa`, at the kappa of the policy that is judged.
Failure: `MetricError` when the paths do not cover the same sessions, or have fewer than two. A number that does not exist is NaN: a
ratio to something that never varies, or the effective names of a book that never held one.
"""

from __future__ import annotations

import numpy as np

from trading_env.evaluation import metrics, statistics
from trading_env.evaluation.backtest import BacktestResult
from trading_env.evaluation.statistics import FloatArray


def measures(result: BacktestResult, *, equal_weight: BacktestResult, at_kappa: BacktestResult) -> dict[str, float]:
    """The measures of `result` by name, against `equal_weight`, rebalanced daily, and equal weight `at_kappa`, over the same sessions,
    costs and cash.

    | name | what it is | unit |
    |---|---|---|
    | annual_return | expm1(252 x mean log growth) | share per year |
    | volatility | deviation of daily returns x sqrt(252) | share per year |
    | sharpe, sharpe_error | mean / deviation of daily returns (Sharpe 1994), its standard error (Mertens 2002), x sqrt(252) | a year's |
    | sortino | mean / root mean square of the losses (Sortino and van der Meer 1991), x sqrt(252) | a year's |
    | calmar, max_drawdown | annual_return / deepest drawdown (Young 1991); that drawdown, as a positive number | ratio, share |
    | exposure | mean share of equity that is invested at the close | share |
    | effective_n | mean of 1 / sum of squared shares of what is invested, over the sessions that hold something | names |
    | turnover_per_day | mean of buys and sells over equity, the first purchase included | share per day |
    | costs_bp_per_year | 252 x mean of costs over equity | bp per year |
    | excess_bp_per_year | 252 x mean d | bp per year |
    | tracking_error | deviation of d x sqrt(252) | share per year |
    | information_ratio | the one over the other (Grinold and Kahn 1999) | a year's |
    | excess_at_kappa_bp_per_year, tracking_error_at_kappa, information_ratio_at_kappa | the same three, against equal weight at kappa | |
    | psr | probability that the true Sharpe ratio is above 0 (Bailey and López de Prado 2012) | share |
    | final_equity | equity at the last close | dollars |
    """
    for other in (equal_weight, at_kappa):
        if not np.array_equal(result.sessions, other.sessions):
            raise metrics.MetricError(f"{result.policy} and {other.policy} must cover the same sessions to be compared")
    growth, year = result.growth, metrics.SESSIONS_PER_YEAR
    returns = np.expm1(growth)
    names = metrics.effective_n(result.held)
    holding = names[np.isfinite(names)]
    return {
        "annual_return": metrics.annual_return(growth),
        "volatility": metrics.volatility(growth),
        "sharpe": metrics.sharpe(growth),
        "sharpe_error": statistics.sharpe_error(returns) * float(np.sqrt(year)),
        "sortino": metrics.sortino(growth),
        "calmar": metrics.calmar(result.equity, initial=result.initial_cash),
        "max_drawdown": metrics.max_drawdown(result.equity, initial=result.initial_cash),
        "exposure": float(result.held.sum(axis=1).mean()),
        "effective_n": float(holding.mean()) if len(holding) else float("nan"),
        "turnover_per_day": float(result.turnover.mean()),
        "costs_bp_per_year": float((result.costs / result.equity).mean()) * year * 1e4,
        **_against(growth - equal_weight.growth),
        **_against(growth - at_kappa.growth, suffix="_at_kappa"),
        "psr": statistics.probabilistic_sharpe(returns),
        "final_equity": float(result.equity[-1]),
    }


def _against(excess: FloatArray, *, suffix: str = "") -> dict[str, float]:
    return {
        f"excess{suffix}_bp_per_year": float(excess.mean()) * metrics.SESSIONS_PER_YEAR * 1e4,
        f"tracking_error{suffix}": float(excess.std(ddof=1) * np.sqrt(metrics.SESSIONS_PER_YEAR)),
        f"information_ratio{suffix}": statistics.information_ratio(excess),
    }


def years(result: BacktestResult) -> dict[str, float]:
    """The return of each calendar year that the path touches, as a share, whole or not: {"2011": 0.034, ...}."""
    calendar = result.sessions.astype("datetime64[Y]")
    return {str(year): float(np.expm1(result.growth[calendar == year].sum())) for year in np.unique(calendar)}
