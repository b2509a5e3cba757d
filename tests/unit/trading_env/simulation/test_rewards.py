"""The rewards against their formulas, written out here, over episodes of the environment."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.markets import market_of, walk
from trading_env.data.market import Market
from trading_env.data.observation import unpack
from trading_env.data.sentiment import TABLES
from trading_env.simulation import kernel
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig, EnvError, TradingEnv
from trading_env.simulation.portfolio import Costs, PortfolioError, Rules
from trading_env.simulation.rewards import Reward, book_tone, differential_sharpe, session_rewards

MARKET = walk(sessions=160, assets=4, seed=1)
RULES = Rules(costs=Costs(fee_bps=2.0, slippage_bps=10.0))
KINDS = ("excess_log_growth", "log_growth", "differential_sharpe")


def episode(reward: Reward, *, sessions: int = 40, **mode: Any) -> tuple[list[float], dict[str, list[float]]]:
    """The rewards of one episode of random actions, and its infos."""
    config = EnvConfig(rules=RULES, kappa=0.5, episode_sessions=sessions, reward=reward, **mode)
    env = TradingEnv(MARKET, config=config)
    env.reset(seed=3)
    env.action_space.seed(3)
    rewards: list[float] = []
    infos: dict[str, list[float]] = {}
    for _ in range(sessions):
        _, earned, _, _, info = env.step(env.action_space.sample())
        rewards.append(earned)
        for name, number in info.items():
            infos.setdefault(name, []).append(number)
    return rewards, infos


def written_out(reward: Reward, infos: dict[str, list[float]]) -> list[float]:
    """The formulas once more, number by number, from the equity alone where they can be."""
    earned, last, high, first, second = [], 100_000.0, 100_000.0, 0.0, 0.01**2
    for value, equal, turnover in zip(infos["value"], infos["baseline_log_growth"], infos["turnover"], strict=True):
        growth = math.log(value / last)
        last, high = value, max(high, value)
        if reward.kind == "differential_sharpe":
            term = 0.01 * (second * (growth - first) - 0.5 * first * (growth**2 - second)) / (second - first**2) ** 1.5
            first, second = first + 0.01 * (growth - first), second + 0.01 * (growth**2 - second)
        else:
            term = growth - equal if reward.kind == "excess_log_growth" else growth
        earned.append(reward.scale * (term - reward.drawdown_penalty * (high - value) / high - reward.turnover_penalty * turnover))
    return earned


@pytest.mark.parametrize("mode", [{}, {"start": "random", "names": 2}, {"actions": "trades"}], ids=str)
@pytest.mark.parametrize("penalties", [(0.0, 0.0), (0.03, 0.0), (0.0, 0.002), (0.03, 0.002)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_earns_what_its_formula_says(kind, penalties, mode):
    reward = Reward(kind, *penalties, scale=250.0)
    rewards, infos = episode(reward, **mode)
    np.testing.assert_allclose(rewards, written_out(reward, infos), rtol=1e-9, atol=1e-10)
    # And the definition in NumPy, to the last bit
    names = {"growth": "log_growth", "baseline": "baseline_log_growth", "turnover": "turnover"}
    numbers = {name: np.array(infos[column]) for name, column in names.items()}
    value = np.array([100_000.0, *infos["value"]])
    np.testing.assert_array_equal(rewards, session_rewards(reward, value=value, **numbers))


def test_the_default_is_the_scaled_excess_over_equal_weight():
    rewards, infos = episode(Reward())
    assert rewards == [300.0 * (own - equal) for own, equal in zip(infos["log_growth"], infos["baseline_log_growth"], strict=True)]


def test_penalties_take_away_what_they_say():
    plain, infos = episode(Reward("log_growth", scale=1.0))
    fallen, _ = episode(Reward("log_growth", drawdown_penalty=0.01, scale=1.0))
    high = np.maximum.accumulate([100_000.0, *infos["value"]])[1:]
    fall = 1 - np.array(infos["value"]) / high
    assert fall.max() > 0.01
    assert (fall == 0).any()
    np.testing.assert_allclose(np.subtract(plain, fallen), 0.01 * fall, atol=1e-15)
    traded, _ = episode(Reward("log_growth", turnover_penalty=0.001, scale=1.0))
    assert min(infos["turnover"]) > 0
    np.testing.assert_allclose(np.subtract(plain, traded), 0.001 * np.array(infos["turnover"]), atol=1e-15)


def test_differential_sharpe_is_the_slope_of_the_sharpe_ratio():
    """D_t = dS/d eta at eta = 0, S = A / sqrt(B - A^2) of the moments moved by eta: by differences of S itself."""
    growth = np.random.default_rng(0).normal(0.001, 0.012, 60)
    first, second, eta, sharpe = 0.0, 0.01**2, 0.01, []

    def moved(by: float, r: float) -> float:
        a, b = first + by * (r - first), second + by * (r * r - second)
        return a / math.sqrt(b - a * a)

    for r in growth:
        sharpe.append((moved(1e-6, r) - moved(-1e-6, r)) / 2e-6)
        first, second = first + eta * (r - first), second + eta * (r * r - second)
    np.testing.assert_allclose(differential_sharpe(growth), eta * np.array(sharpe), rtol=1e-5)


def test_without_variance_differential_sharpe_is_nothing_and_a_small_first_return_is_no_explosion():
    constant = differential_sharpe(np.full(6_000, 0.001))
    assert (constant[4_000:] == 0).all()
    assert np.isfinite(constant).all()
    np.testing.assert_array_equal(differential_sharpe(np.zeros(300)), np.zeros(300))
    assert np.abs(differential_sharpe(np.array([1e-12, 0.01, -0.01, 0.02]))).max() < 0.05


def test_a_book_that_never_moves_earns_nothing_by_any_reward_of_its_own():
    flat = np.full((60, 3), 10.0)
    market = market_of(open=flat, close=flat, features=np.zeros((60, 3, 1)))
    for kind in KINDS:
        reward = Reward(kind, drawdown_penalty=1.0, turnover_penalty=1.0)
        env = TradingEnv(market, config=EnvConfig(episode_sessions=50, start="cash", actions="trades", reward=reward))
        env.reset(seed=0)
        assert [env.step(np.ones(3))[1] for _ in range(50)] == [0.0] * 50


@pytest.mark.parametrize("kind", KINDS)
def test_every_episode_starts_afresh(kind):
    """Moments and high are the book's and the episode's: a batch that starts again by itself earns what single episodes earn."""
    reward = Reward(kind, drawdown_penalty=0.05)
    config = EnvConfig(rules=RULES, episode_sessions=15, random_start=False, reward=reward)
    batch, single = BatchedTradingEnv(MARKET, num_envs=2, config=config), TradingEnv(MARKET, config=config)
    batch.reset(seed=0)
    played = np.random.default_rng(0).normal(0, 3, (45, 2, 4)).astype(np.float32)
    for start in range(0, 45, 15):
        earned = [batch.step(action)[1] for action in played[start : start + 15]]
        for book in range(2):
            single.reset(seed=0)
            assert [single.step(action[book])[1] for action in played[start : start + 15]] == [rewards[book] for rewards in earned]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "sharpe"}, "kind of reward must be one of excess_log_growth, log_growth, differential_sharpe, was 'sharpe'"),
        ({"drawdown_penalty": -0.1}, "penalties must be at least 0 and the scale above 0, was -0.1, 0.0 and 300.0"),
        ({"turnover_penalty": math.nan}, "was 0.0, nan and"),
        ({"scale": 0.0}, "was 0.0, 0.0 and 0.0"),
    ],
)
def test_a_reward_that_is_none_is_refused(arguments: dict[str, Any], message: str):
    with pytest.raises(PortfolioError, match=message):
        Reward(**arguments)


def with_tone() -> Market:
    """The walk with as many features as a table with sentiment has."""
    wide = np.random.default_rng(2).uniform(-1, 1, (*MARKET.close.shape, TABLES["daily"].width))
    return replace(MARKET, features=wide)


@pytest.mark.parametrize("mode", [{}, {"start": "random", "names": 2}, {"actions": "trades"}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_sentiment_pays_its_weight_times_the_positions(kind, mode):
    """Sum of w_i x s_i, s as observed at the close before, w at the close: by hand, and in the definition to the last bit."""
    market, place = with_tone(), TABLES["daily"].features.index("sentiment")
    reward = Reward(kind, 0.01, 0.002, scale=250.0, sentiment_weight=0.03)
    config = EnvConfig(rules=RULES, kappa=0.5, episode_sessions=40, reward=reward, **mode)
    env, plain = BatchedTradingEnv(market, num_envs=3, config=config), BatchedTradingEnv(market, num_envs=3, config=replace_weight(config))
    env.action_space.seed(3)
    seen, _ = env.reset(seed=3)
    plain.reset(seed=3)
    layout = env.layout
    infos: dict[str, list[Any]] = {name: [] for name in ("value", "log_growth", "baseline_log_growth", "turnover", "tone", "earned")}
    for _ in range(39):
        actions = env.action_space.sample()
        after, earned, _, _, info = env.step(actions)
        _, unpaid, _, _, _ = plain.step(actions)
        observed = unpack(seen, layout=layout).assets[..., place].astype(np.float64)
        held = env._simulation.holdings[:3, kernel.HELD]
        tone = book_tone(held, observed)
        by_hand = [math.fsum(weight * score for weight, score in zip(*book, strict=True)) for book in zip(held, observed, strict=True)]
        np.testing.assert_allclose(tone, by_hand, rtol=0, atol=1e-15)
        np.testing.assert_allclose(earned - unpaid, 250.0 * 0.03 * tone, rtol=0, atol=1e-9)
        for name, values in {**info, "tone": tone, "earned": earned}.items():
            if name in infos:
                infos[name].append(np.array(values))
        seen = after
    assert np.abs(infos["tone"]).max() > 0.1
    of = {name: np.stack(values, axis=-1) for name, values in infos.items()}
    value = np.concatenate([np.full((3, 1), 100_000.0), of["value"]], axis=-1)
    numbers = {"growth": of["log_growth"], "baseline": of["baseline_log_growth"], "turnover": of["turnover"], "tone": of["tone"]}
    np.testing.assert_array_equal(of["earned"], session_rewards(reward, value=value, **numbers))


def replace_weight(config: EnvConfig) -> EnvConfig:
    return replace(config, reward=replace(config.reward, sentiment_weight=0.0))


def test_sentiment_pays_nobody_without_a_market_that_has_it():
    with pytest.raises(EnvError, match=r"sentiment_weight needs a market with sentiment, 34 features or more, was 2"):
        TradingEnv(MARKET, config=EnvConfig(episode_sessions=40, reward=Reward(sentiment_weight=0.1)))
    with pytest.raises(PortfolioError, match="sentiment_weight must be at least 0, was -1"):
        Reward(sentiment_weight=-1.0)
    some = np.zeros(3)
    with pytest.raises(PortfolioError, match=r"sentiment_weight = 0\.1 needs the tone"):
        session_rewards(Reward(sentiment_weight=0.1), growth=some, baseline=some, value=np.ones(4), turnover=some)
