"""The rungs of the learning ladder that are arithmetic: doing nothing is free, equal weight is equal weight, a round trip costs its costs.

The rungs that take training are in tests/learning. In each, environment and backtest are held to the same number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tests.markets import market_of, walk
from trading_env.data.observation import Observation
from trading_env.evaluation.backtest import backtest
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig, TradingEnv
from trading_env.simulation.policy import EqualWeight, NumpyPolicy, PolicyCard, array_shapes
from trading_env.simulation.portfolio import Costs, Rules

FREE = Rules(costs=Costs(slippage_bps=0.0))
TEN_BP = Rules(cash_buffer=0.0, costs=Costs(slippage_bps=10.0))
FLAT = market_of(open=np.full((40, 3), [20.0, 50.0, 310.0]), close=np.full((40, 3), [20.0, 50.0, 310.0]), features=np.zeros((40, 3, 1)))
WALK = walk(sessions=120, assets=4, seed=2)


@pytest.mark.parametrize(
    ("config", "action"),
    [
        (EnvConfig(rules=FREE, episode_sessions=30, random_start=False), np.zeros((2, 3), dtype=np.float32)),
        (EnvConfig(rules=FREE, episode_sessions=30, random_start=False, kappa=1.0), np.zeros((2, 3), dtype=np.float32)),
        (EnvConfig(rules=FREE, episode_sessions=30, start="random", actions="trades"), np.ones((2, 3), dtype=np.int64)),
        (EnvConfig(rules=TEN_BP, episode_sessions=30, start="cash", actions="trades"), np.ones((2, 3), dtype=np.int64)),
    ],
    ids=["zero scores", "zero scores, all the way", "hold, from random weights", "hold cash, at 10 bp"],
)
def test_zero_action_stays_flat_at_zero_cost(config: EnvConfig, action: np.ndarray) -> None:
    env = BatchedTradingEnv(FLAT, num_envs=2, config=config)
    env.reset(seed=0)
    for _ in range(30):
        _, rewards, _, _, info = env.step(action)
        np.testing.assert_allclose(rewards, 0.0, rtol=0, atol=300 * 1e-9)
        np.testing.assert_allclose(info["value"], config.initial_value, rtol=1e-12)
        assert info["costs"].tolist() == info["turnover"].tolist() == [0.0, 0.0]


def test_holding_trades_nothing_whatever_the_prices_do() -> None:
    env = BatchedTradingEnv(WALK, num_envs=2, config=EnvConfig(rules=TEN_BP, episode_sessions=100, start="random", actions="trades"))
    env.reset(seed=0)
    for _ in range(99):
        _, _, _, _, info = env.step(np.ones((2, 4), dtype=np.int64))
        assert info["turnover"].tolist() == [0.0, 0.0]
        assert (info["costs"] < 1e-4).all()  # the fraction under 1e-9 share that a split leaves


def untrained(*, seeds: int) -> NumpyPolicy:
    """The network as training begins: its head is zero, the rest is not."""
    card = PolicyCard(
        features=("a", "b"),
        context=("c", "d"),
        feature_hash="of a test",
        schema_version=0,
        kappa=1.0,
        trained_on=("none",),
        train_start="",
        train_end="",
        seeds=tuple(range(seeds)),
        code_version="of a test",
    )
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape) for name, shape in array_shapes(seeds=seeds, inputs=card.inputs).items()}
    return NumpyPolicy(arrays | {"sigma": np.ones(card.inputs), "w4": np.zeros((seeds, 64)), "b4": np.zeros(seeds)}, card)


@pytest.mark.parametrize("eventful", [False, True], ids=["calm", "splits, dividends, halts, a late listing"])
def test_equal_weights_through_kappa_1_are_the_baseline(eventful: bool) -> None:
    """Backtest of equal weight, of the untrained network, and the environment under zero scores."""
    market = walk(sessions=120, assets=4, seed=2, eventful=eventful)
    rules = Rules(min_notional=0.0, costs=Costs(slippage_bps=10.0))
    equal, fresh = (
        backtest(market, policy, rules=rules, start=market.sessions[1], end=market.sessions[-1], initial_cash=1e5)
        for policy in (EqualWeight(), untrained(seeds=3))
    )
    assert np.abs(fresh.growth - equal.growth).max() < 1e-9
    assert np.abs(fresh.weights - equal.weights).max() < 1e-9

    env = TradingEnv(market, config=EnvConfig(rules=rules, kappa=1.0, episode_sessions=119, random_start=False))
    env.reset(seed=0)
    for day in range(119):
        _, reward, _, _, info = env.step(np.zeros(4, dtype=np.float32))
        assert abs(reward) < 300 * 1e-9
        assert abs(info["log_growth"] - info["baseline_log_growth"]) < 1e-9
        if day > 3 and not eventful:  # the first days differ by how they got in, and a name that halts then keeps the difference
            assert abs(info["log_growth"] - equal.growth[day]) < 1e-9


@dataclass(frozen=True)
class BackAndForth:
    """All in one name, the next session in the other."""

    name: str = "back and forth"
    kappa: float = 1.0

    def scores(self, observation: Observation) -> np.ndarray:
        first = int(observation.as_of.astype("datetime64[D]").astype(np.int64)) % 2
        return np.where(np.arange(2) == first, 1e3, -1e3)


def test_a_round_trip_costs_exactly_its_costs() -> None:
    """In: 1 / (1 + s). From one name to the other, a sale and a purchase: (1 - s) / (1 + s). s = 10 bp of the price a side."""
    s, prices = 0.001, np.full((4, 2), [20.0, 310.0])
    market = market_of(open=prices, close=prices, start="2019-01-07")  # Monday to Thursday, so that every session switches
    result = backtest(market, BackAndForth(), rules=TEN_BP, start=market.sessions[1], end=market.sessions[3], initial_cash=1e5, limits=None)
    switch = (1 - s) / (1 + s)
    np.testing.assert_allclose(result.equity, 1e5 / (1 + s) * switch ** np.arange(3), rtol=1e-10)
    np.testing.assert_allclose(result.costs, -np.diff(result.equity, prepend=1e5), rtol=1e-9)
    np.testing.assert_allclose(result.turnover[1:], 2 / (1 + s), rtol=1e-9)  # what is bought is paid for out of what was sold
    assert 1 - switch == pytest.approx(2 * s, rel=2e-3)

    env = TradingEnv(market, config=EnvConfig(rules=TEN_BP, kappa=1.0, episode_sessions=3, actions="scores", limits=None))
    env.reset(seed=0, options={"session": market.sessions[0]})
    values = [env.step(np.array([10.0, -10.0] if day % 2 else [-10.0, 10.0], dtype=np.float32))[4]["value"] for day in range(3)]
    np.testing.assert_allclose(values[1:] / np.array(values[:-1]), switch, rtol=1e-8)  # scores of +-10 leave 2e-9 of the book behind
