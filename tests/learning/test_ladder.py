"""The rungs that take training: what can be known is learned, what cannot be known is not, by the job's own `fit`.

Together with tests/unit/trading_env/simulation/test_learning_ladder.py, whose rungs are arithmetic. Bounds leave room for other
platforms' rounding, which changes what a seed learns; the figures of the runs that they were set by are in the comments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from benchmarks.trained import trained
from schema.settings import Settings
from tests.learning.training import FREE, TEN_BP, WARM, settings, shuffled, traded, waves
from trading_env.data.market import Market
from trading_env.evaluation.backtest import BacktestResult
from trading_env.simulation.policy import EqualWeight

PURGE = 6


@dataclass(frozen=True, kw_only=True)
class Rung:
    """An algorithm, its budget, and the shares of the best names and of the bound that it must reach."""

    algorithm: str
    timesteps: int
    found: float
    share: float

    @property
    def settings(self) -> Settings:
        return settings(portfolio={"kappa": 1.0}, risk={"max_weight": 1.0}, training={"episode_sessions": 60, "algorithm": self.algorithm})


DIRECT = Rung(algorithm="direct", timesteps=12_000, found=0.95, share=0.8)  # 1.00, 0.97
DEFAULT = Rung(algorithm="direct", timesteps=150_000, found=0.95, share=0.8)  # 1.00, 0.995
PPO = Rung(algorithm="ppo", timesteps=131_072, found=0.95, share=0.25)
# 1.00, 0.40 of the bound after 8 rollouts, 0.62 after 16: confidence, not direction, takes the time
MINUTES = pytest.mark.rehearse


def t_value(policy: BacktestResult, equal_weight: BacktestResult) -> float:
    """Of the mean daily excess of log growth."""
    excess = policy.growth - equal_weight.growth
    return float(excess.mean() / excess.std() * np.sqrt(len(excess)))


@pytest.mark.parametrize("rung", [DIRECT, pytest.param(DEFAULT, marks=MINUTES), PPO])
def test_a_market_of_sine_waves_is_solved(rung: Rung) -> None:
    """Phases from our own features, 10 bp per side. No policy can grow by more than the best name of each session."""
    market = waves(sessions=WARM + 1500, assets=3, period=20, amplitude=0.1)
    first = WARM + 1000
    training = market.rows(market.sessions[WARM], market.sessions[first - PURGE])
    policy = trained(training, settings=rung.settings, seed=0, timesteps=rung.timesteps)
    ours, equal = (traded(one, market, rules=TEN_BP, first=first) for one in (policy, EqualWeight()))
    moves = np.log(market.close / market.open)[first:]
    assert (ours.weights.argmax(axis=1) == moves.argmax(axis=1)).mean() > rung.found
    assert ours.growth.sum() / moves.max(axis=1).sum() > rung.share
    assert ours.growth.sum() > equal.growth.sum() + 2.0  # 12.6 (direct) and 5.1 (PPO) against 0.1
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


SHORT_DIRECT, SHORT_PPO = replace(DIRECT, timesteps=3_100), replace(PPO, timesteps=98_304)


@pytest.mark.parametrize("rung", [SHORT_DIRECT, pytest.param(SHORT_PPO, marks=MINUTES)])
def test_a_leaked_return_is_found_and_exploited(rung: Rung) -> None:
    market = with_tomorrow(NOISE)
    training = market.rows(market.sessions[WARM], market.sessions[FIRST - PURGE])
    policy = trained(training, settings=rung.settings, seed=0, timesteps=rung.timesteps)
    ours, equal = (traded(one, market, rules=TEN_BP, first=FIRST) for one in (policy, EqualWeight()))
    leak = market.features[FIRST - 1 : -1, :, 0]
    assert (ours.weights.argmax(axis=1) == leak.argmax(axis=1)).mean() > 0.6
    assert t_value(ours, equal) > 8

    worthless = with_tomorrow(NOISE, dealt_anew=5)
    fooled = traded(policy, worthless, rules=TEN_BP, first=FIRST)
    assert t_value(fooled, equal) < 1, "the edge was the leak's"


@MINUTES
def test_ppo_finds_no_edge_in_shuffled_returns() -> None:
    """Without skill |t| stays below 3 in 99.7 % of all markets, before costs; and costs are what trading on noise earns."""
    training = NOISE.rows(NOISE.sessions[WARM], NOISE.sessions[FIRST - PURGE])
    policy = trained(training, settings=SHORT_PPO.settings, seed=0, timesteps=SHORT_PPO.timesteps)
    gross, net = ([traded(one, NOISE, rules=rules, first=FIRST) for one in (policy, EqualWeight())] for rules in (FREE, TEN_BP))
    assert abs(t_value(*gross)) < 3  # -0.2
    assert t_value(*net) < 1  # -1.3, 89 bp per year lost
    assert net[0].costs.sum() > 2 * net[1].costs.sum(), "a policy that learned nothing at all proves nothing"


def test_direct_reinforcement_does_not_trade_on_shuffled_returns() -> None:
    """Not a policy that happens to earn nothing: with no evidence it is equal weight, as it is at the same pace, to the dollar."""
    training = NOISE.rows(NOISE.sessions[FIRST - 1_500], NOISE.sessions[FIRST - PURGE])
    policy = trained(training, settings=SHORT_DIRECT.settings, seed=0, timesteps=SHORT_DIRECT.timesteps)
    ours, equal = (traded(one, NOISE, rules=TEN_BP, first=FIRST) for one in (policy, EqualWeight(kappa=1.0)))
    np.testing.assert_allclose(ours.equity, equal.equity, rtol=1e-12)
