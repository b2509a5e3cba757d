"""What was trained on some names trades any others, in other number, from the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.trained import trained
from papertape.market_data import bundled
from tests.learning.training import TEN_BP, settings, traded, with_forecast
from trading_env.data.market import Market, build_market
from trading_env.simulation.policy import load_policy, save_policy

FIVE = ("SPY", "QQQ", "IWM", "AAPL", "AIG")
DEMO = ("SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM")
THREE = ("BAC", "GOOG", "IBM")
LISTED_LATER = ("BAC", "FB", "GOOGL")  # none of the five; FB and GOOGL are listed, and a year later tradable, within the period


def market_of(symbols: tuple[str, ...], *, start: str, end: str) -> Market:
    """With a forecast among its features: direct reinforcement finds nothing else in so few names."""
    market = build_market(bundled.daily_bars(), bundled.corporate_actions(), symbols=symbols)
    return with_forecast(market, correlation=0.1).rows(start, end)


@pytest.mark.parametrize(
    ("algorithm", "trained_on", "drawn", "traded_on"),
    [
        ("ppo", FIVE, 30, DEMO),
        ("ppo", FIVE, 30, LISTED_LATER),
        ("ppo", FIVE, 3, DEMO),
        ("ppo", THREE, 30, DEMO),
        ("direct", FIVE, 3, DEMO),
        ("direct", FIVE, 30, LISTED_LATER),
    ],
)
def test_a_policy_trades_names_that_it_was_not_trained_on(
    tmp_path: Path, algorithm: str, trained_on: tuple[str, ...], drawn: int, traded_on: tuple[str, ...]
) -> None:
    budget = 8_192 if algorithm == "ppo" else 1_500
    chosen = settings(training={"algorithm": algorithm, "names_per_episode": drawn, "environments": 16})
    policy = trained(market_of(trained_on, start="2006-01-03", end="2011-12-30"), settings=chosen, seed=0, timesteps=budget)
    save_policy(tmp_path, policy.arrays, policy.card)
    market = market_of(traded_on, start="2012-01-03", end="2015-12-31")
    result = traded(load_policy(tmp_path), market, rules=TEN_BP, first=1)
    tradable = market.tradable[:-1]
    assert len(result.sessions) == len(market) - 1
    assert np.isfinite(result.equity).all()
    np.testing.assert_allclose(result.weights.sum(axis=1), 1.0, atol=1e-12)
    assert np.ptp(result.scores[tradable.all(axis=1)], axis=1).max() > 1e-3, "equal weight would pass"
    assert (result.weights[~tradable] == 0).all()  # nobody held what was not yet tradable
    assert (result.held[-1] > 0.01).all()  # and all of them are held in the end
    assert result.turnover[1:].max() < 0.5
    if traded_on == LISTED_LATER:
        assert tradable.all(axis=0).tolist() == [True, False, False]
