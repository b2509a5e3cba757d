"""The rungs that take training: what can be known is learned, what cannot be known is not, by the job's own `fit`.

Together with tests/unit/trading_env/simulation/test_learning_ladder.py, whose rungs are arithmetic. Bounds leave room for other
platforms' rounding, which changes what a seed learns; the figures of the runs that they were set by are in the comments.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.learning.training import FREE, TEN_BP, WARM, settings, shuffled, traded, trained, waves
from trading_env.data.market import Market
from trading_env.evaluation.backtest import BacktestResult
from trading_env.simulation.policy import EqualWeight

PURGE = 6
ALL_THE_WAY = settings(portfolio={"kappa": 1.0}, risk={"max_weight": 1.0}, training={"episode_sessions": 60})


def t_value(policy: BacktestResult, equal_weight: BacktestResult) -> float:
    """Of the mean daily excess of log growth."""
    excess = policy.growth - equal_weight.growth
    return float(excess.mean() / excess.std() * np.sqrt(len(excess)))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.rehearse)])
def test_a_market_of_sine_waves_is_solved(seed: int) -> None:
    """Phases from our own features, 10 bp per side. No policy can grow by more than the best name of each session."""
    market = waves(sessions=WARM + 1500, assets=3, period=20, amplitude=0.1)
    first = WARM + 1000
    policy = trained(market.rows(market.sessions[WARM], market.sessions[first - PURGE]), chosen=ALL_THE_WAY, seed=seed, timesteps=131_072)
    ours, equal = (traded(one, market, rules=TEN_BP, first=first) for one in (policy, EqualWeight()))
    moves = np.log(market.close / market.open)[first:]
    found = (ours.weights.argmax(axis=1) == moves.argmax(axis=1)).mean()
    assert found > 0.95  # 1.00 and 1.00
    share = ours.growth.sum() / moves.max(axis=1).sum()
    assert share > 0.25  # 0.40 and 0.39 of the bound after 8 rollouts, 0.62 after 16: confidence, not direction, takes the time
    assert ours.growth.sum() > equal.growth.sum() + 2.0  # 5.1 and 5.0 against 0.1
    assert t_value(ours, equal) > 10


NOISE = shuffled(("SPY", "AAPL", "BAC", "IBM"), seed=1)
FIRST = len(NOISE) - 750


def with_tomorrow(market: Market, *, dealt_anew: int | None = None) -> Market:
    """The first feature is what the next session will pay from its open on; or the same numbers on other sessions."""
    day = np.log(market.close / market.open)
    tomorrow = np.vstack([day[1:], np.zeros((1, day.shape[1]))])
    if dealt_anew is not None:
        tomorrow = np.random.default_rng(dealt_anew).permutation(tomorrow)
    features = market.features.copy()
    features[..., 0] = np.where(market.tradable, tomorrow, features[..., 0])
    return replace(market, features=features)


@pytest.mark.rehearse
def test_a_leaked_return_is_found_and_exploited() -> None:
    market = with_tomorrow(NOISE)
    policy = trained(market.rows(market.sessions[WARM], market.sessions[FIRST - PURGE]), chosen=ALL_THE_WAY, seed=0, timesteps=98_304)
    ours, equal = (traded(one, market, rules=TEN_BP, first=FIRST) for one in (policy, EqualWeight()))
    leak = market.features[FIRST - 1 : -1, :, 0]
    assert (ours.weights.argmax(axis=1) == leak.argmax(axis=1)).mean() > 0.6
    assert t_value(ours, equal) > 8

    worthless = with_tomorrow(NOISE, dealt_anew=5)
    fooled = traded(policy, worthless, rules=TEN_BP, first=FIRST)
    assert t_value(fooled, equal) < 1, "the edge was the leak's"


@pytest.mark.rehearse
def test_there_is_no_edge_in_shuffled_returns() -> None:
    """Without skill |t| stays below 3 in 99.7 % of all markets, before costs; and costs are what trading on noise earns."""
    policy = trained(NOISE.rows(NOISE.sessions[WARM], NOISE.sessions[FIRST - PURGE]), chosen=ALL_THE_WAY, seed=0, timesteps=98_304)
    gross, net = ([traded(one, NOISE, rules=rules, first=FIRST) for one in (policy, EqualWeight())] for rules in (FREE, TEN_BP))
    assert abs(t_value(*gross)) < 3  # -0.2
    assert t_value(*net) < 1  # -1.3, 89 bp per year lost
    assert net[0].costs.sum() > 2 * net[1].costs.sum(), "a policy that learned nothing at all proves nothing"
