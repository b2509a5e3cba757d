"""The compiled backtest beside the one that judges: the same bits, whatever the rules and limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from papertape.research.compiled_backtest import compiled_backtest
from tests import small_run
from trading_env.evaluation.backtest import EvaluationError, backtest
from trading_env.orders.risk import Limits
from trading_env.simulation.policy import EqualWeight, Policy, SeededRandom
from trading_env.simulation.portfolio import Costs, Rules

KEPT = ("equity", "cash", "costs", "dividends", "turnover", "scores", "weights", "deltas", "quantities", "held")
POLICIES: list[Policy] = [EqualWeight(), EqualWeight(name="slow", kappa=0.1), SeededRandom(3)]
LIMITS = [None, Limits(max_weight=1.0), Limits(max_weight=0.3, max_daily_loss=0.005, restricted=("BBB",))]


@pytest.fixture(scope="module")
def market() -> object:
    return small_run.market()


@pytest.mark.parametrize("limits", LIMITS, ids=["unlimited", "standard", "tight"])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_the_books_are_the_same_bits(market, policy: Policy, limits: Limits | None) -> None:  # type: ignore[no-untyped-def]
    for rules in (Rules(), Rules(costs=Costs(slippage_bps=10, impact=0.3, max_volume_share=0.1)), replace(Rules(), whole_shares=True)):
        asked = {"start": small_run.DAYS[300], "end": small_run.DAYS[350], "rules": rules, "initial_cash": 100_000.0, "limits": limits}
        judged, compiled = backtest(market, policy, **asked), compiled_backtest(market, policy, **asked)
        for name in KEPT:
            np.testing.assert_array_equal(getattr(compiled, name), getattr(judged, name), err_msg=name)
        assert (compiled.symbols, compiled.policy, list(compiled.sessions)) == (judged.symbols, judged.policy, list(judged.sessions))


def test_a_start_without_a_session_before_it_is_refused(market) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(EvaluationError, match="the market begins there"):
        compiled_backtest(
            market, EqualWeight(), start=small_run.DAYS[0], end=small_run.DAYS[9], rules=Rules(), initial_cash=1e5, limits=None
        )
