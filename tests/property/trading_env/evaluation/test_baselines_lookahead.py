"""No baseline looks ahead: the market cut after any session gives the same books up to there, bit for bit, in every row."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.markets import walk
from trading_env.data.market import Market
from trading_env.evaluation.backtest import BacktestResult
from trading_env.evaluation.baselines import all_baselines
from trading_env.evaluation.walk_forward import Fold
from trading_env.simulation.portfolio import Costs, Rules

FIRST, LAST = 270, 310
BOOKS = ("equity", "cash", "costs", "dividends", "turnover", "scores", "weights", "deltas", "quantities", "held")


def rows_of(market: Market, folds: list[Fold], *, last: int) -> list[BacktestResult]:
    days = market.sessions
    return all_baselines(
        market,
        rules=Rules(costs=Costs(slippage_bps=10.0)),
        kappa=0.1,
        benchmark="S0",
        folds=folds,
        initial_cash=1e5,
        start=days[FIRST],
        end=days[last],
        matched_turnover=9.0,  # out of reach whatever is cut, so that the random row's pace, known at the end alone, is the same
    )


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(FIRST + 2, LAST - 1))
def test_the_future_changes_no_book(seed: int, cut: int) -> None:
    market = walk(sessions=LAST + 5, assets=4, seed=seed)
    days = market.sessions
    folds = [
        Fold(0, days[0], days[FIRST - 6], days[FIRST], days[FIRST + 19]),
        Fold(1, days[0], days[FIRST + 14], days[FIRST + 20], days[LAST]),
    ]
    whole, part = rows_of(market, folds, last=LAST), rows_of(market.rows(days[0], days[cut]), folds, last=cut)
    assert len(whole) == len(part) == 10
    for full, early in zip(whole, part, strict=True):
        for name in BOOKS:
            np.testing.assert_array_equal(getattr(full, name)[: cut - FIRST + 1], getattr(early, name), err_msg=f"{full.policy}: {name}")
