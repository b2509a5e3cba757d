"""The environments: both checkers, determinism, episode ends, and the batch as N single environments."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
import tracemalloc
import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from tests.markets import market_of, walk
from trading_env.data.market import Market
from trading_env.orders.risk import Limits
from trading_env.simulation import kernel
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig, EnvError, TradingEnv
from trading_env.simulation.portfolio import Costs, Rules
from trading_env.simulation.rewards import REWARD_SCALE, Reward

RULES = Rules(costs=Costs(fee_bps=2.0, slippage_bps=10.0))
CONFIG = EnvConfig(rules=RULES, episode_sessions=20)
MARKET = walk(sessions=120, assets=4, seed=1)
LIMITS = Limits(
    max_weight=0.6,
    max_gross=1.0,
    max_order_notional=50_000.0,
    max_turnover_per_day=1.0,
    max_orders_per_day=4,
    price_collar=0.1,
    max_drawdown=0.5,
    max_daily_loss=0.25,
    max_bar_age_sessions=1,
    max_model_age_days=500,
    restricted=("S3",),
)
# 12 names, their symbols not in the order of the alphabet, which is the order of the orders
WIDE = replace(walk(sessions=90, assets=12, seed=5), symbols=tuple(f"S{index}" for index in (7, 3, 11, 0, 9, 1, 4, 10, 2, 8, 6, 5)))
DRAWN = EnvConfig(rules=RULES, kappa=0.4, episode_sessions=25, names=5)


def actions(count: int, *, books: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (count, books, 4)).astype(np.float32)


@pytest.mark.parametrize("mode", [{"start": "random"}, {"names": 2}, {"actions": "trades", "start": "cash"}], ids=str)
def test_both_checkers_pass(mode):
    config = EnvConfig(rules=RULES, episode_sessions=20, **mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Features have no bounds
        warnings.filterwarnings("ignore", message=".*A Box observation space m.* value is.*infinity.*")
        # The design's scores are +-10; SB3 would rather have +-1
        warnings.filterwarnings("ignore", message=".*symmetric and normalized.*")
        warnings.filterwarnings("ignore", message=".*not being rescaled to a tanh.*")
        # They differ from a registered environment in having no spec
        warnings.filterwarnings("ignore", message=".*env.spec.*|.*not having a spec.*|.*not able to test alternative render modes.*")
        check_env(TradingEnv(MARKET, config=config))
        sb3_check_env(TradingEnv(MARKET, config=config))


def test_the_batch_is_single_environments_with_same_step_autoreset():
    config = EnvConfig(rules=RULES, episode_sessions=20, random_start=False)
    batch = BatchedTradingEnv(MARKET, num_envs=3, config=config)
    singles = SyncVectorEnv([lambda: TradingEnv(MARKET, config=config)] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    assert batch.metadata["autoreset_mode"] == singles.metadata["autoreset_mode"]
    assert (batch.observation_space, batch.action_space) == (singles.observation_space, singles.action_space)
    assert batch.single_observation_space == singles.single_observation_space
    np.testing.assert_array_equal(batch.reset(seed=0)[0], singles.reset(seed=0)[0])
    for action in actions(45, books=3):
        ours, theirs = batch.step(action), singles.step(action)
        for mine, reference in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(mine, reference)
            assert mine.dtype == reference.dtype
        assert ours[0] in batch.observation_space
        assert ("final_obs" in ours[4]) == ("final_obs" in theirs[4]) == bool(ours[3].any())
        if ours[3].any():
            np.testing.assert_array_equal(np.stack(ours[4]["final_obs"]), np.stack(theirs[4]["final_obs"]))
            np.testing.assert_array_equal(ours[4]["_final_obs"], theirs[4]["_final_obs"])
            assert ours[4]["final_info"].keys() == theirs[4]["final_info"].keys()
            np.testing.assert_array_equal(ours[4]["final_info"]["value"], theirs[4]["final_info"]["value"])


def test_a_seed_repeats_everything_and_another_does_not():
    env = BatchedTradingEnv(MARKET, num_envs=5, config=EnvConfig(rules=RULES, episode_sessions=7, start="random"))

    def run(seed: int) -> tuple[np.ndarray, np.ndarray]:
        observations, rewards = [env.reset(seed=seed)[0]], []
        for action in actions(30):
            observation, reward, *_ = env.step(action)
            observations.append(observation)
            rewards.append(reward)
        return np.array(observations), np.array(rewards)

    first, again, other = run(3), run(3), run(4)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0][0], other[0][0])
    assert len({row.tobytes() for row in first[0][0]}) == 5


@pytest.mark.parametrize(
    "mode", [{}, {"names": 2, "start": "random"}, {"reward": Reward(kind="differential_sharpe"), "limits": LIMITS}], ids=str
)
def test_a_batch_goes_on_in_another_where_its_snapshot_was_taken(mode):
    """Through the ends of episodes, and the draws of the next ones."""
    config = EnvConfig(rules=RULES, episode_sessions=20, **mode)
    one, other = (BatchedTradingEnv(MARKET, num_envs=5, config=config) for _ in range(2))
    one.reset(seed=3)
    given = actions(60)[..., : one.layout.assets]
    for action in given[:30]:
        one.step(action)
    accounts, generator = one.snapshot()
    later = [one.step(action) for action in given[30:]]
    other.restore(accounts, json.loads(json.dumps(generator)))
    for action, (observations, rewards, _, truncated, infos) in zip(given[30:], later, strict=True):
        again = other.step(action)
        np.testing.assert_array_equal(again[0], observations)
        np.testing.assert_array_equal(again[1], rewards)
        np.testing.assert_array_equal(again[3], truncated)
        np.testing.assert_array_equal(again[4]["value"], infos["value"])


def test_an_episode_is_truncated_never_terminated_and_its_last_observation_is_kept():
    env = BatchedTradingEnv(MARKET, num_envs=5, config=CONFIG)
    first, _ = env.reset(seed=0)
    for index, action in enumerate(actions(40)):
        observation, _, terminated, truncated, infos = env.step(action)
        assert not terminated.any()
        assert truncated.tolist() == [index % 20 == 19] * 5
        if truncated.any():
            # The columns of context and features differ: the episode ended elsewhere than the next one begins
            assert all(not np.array_equal(final, now) for final, now in zip(infos["final_obs"], observation, strict=True))
            assert all(final.shape == first[0].shape and final.dtype == np.float32 for final in infos["final_obs"])
        else:
            assert "final_obs" not in infos


def test_without_copies_an_observation_outlives_one_step():
    """A learner stores the observation before after it has stepped."""
    copies = BatchedTradingEnv(MARKET, num_envs=5, config=CONFIG)
    buffers = BatchedTradingEnv(MARKET, num_envs=5, config=CONFIG, copy=False)
    expected, before = copies.reset(seed=0)[0], buffers.reset(seed=0)[0]
    seen = set()
    for action in actions(45):
        (following, *_, infos), (now, *_, ours) = copies.step(action), buffers.step(action)
        np.testing.assert_array_equal(before, expected)
        np.testing.assert_array_equal(now, following)
        if "final_obs" in infos:
            np.testing.assert_array_equal(np.stack(ours["final_obs"]), np.stack(infos["final_obs"]))
            assert not any(np.shares_memory(final, now) for final in ours["final_obs"])
        seen.add(now.ctypes.data)
        before, expected = now, following
    assert len(seen) == 2


@pytest.mark.parametrize("mode", [{}, {"names": 2}, {"actions": "trades"}, {"actions": "trades", "names": 3}], ids=str)
def test_sb3_bootstraps_from_the_observation_that_the_episode_ended_with(mode):
    """`terminal_observation` as train.py hands it on: the state after the last step, not the first of the next episode; with names drawn,
    of those that the episode traded."""
    config = EnvConfig(rules=RULES, episode_sessions=20, **mode)
    env = BatchedTradingEnv(MARKET, num_envs=5, config=config, copy=False)
    env.reset(seed=0)
    starts, columns = [MARKET.sessions[row] for row in env._simulation.rows], env.columns
    env.action_space.seed(0)
    played = [env.action_space.sample() for _ in range(20)]
    for action in played:
        following, _, terminated, truncated, infos = env.step(action)
    assert truncated.all()
    assert not terminated.any()
    for index, start in enumerate(starts):
        own = MARKET.only([MARKET.symbols[column] for column in columns[index]])
        single = TradingEnv(own, config=replace(config, names=None))
        single.reset(options={"session": start})
        for action in played:
            last, *_ = single.step(action[index])
        np.testing.assert_array_equal(infos["final_obs"][index], last)
        assert not np.array_equal(last, following[index])


def test_limits_hold_in_the_environment():
    limits = Limits(
        max_weight=0.3,
        max_gross=1.0,
        max_order_notional=1e6,
        max_turnover_per_day=2.0,
        max_orders_per_day=60,
        price_collar=0.1,
        max_drawdown=0.5,
        max_daily_loss=0.25,
        max_bar_age_sessions=1,
        max_model_age_days=500,
    )
    all_in = np.array([10, -10, -10, -10], dtype=np.float32)
    heaviest = {}
    for bound in (None, limits):
        env = TradingEnv(MARKET, config=EnvConfig(rules=RULES, kappa=1.0, episode_sessions=20, random_start=False, limits=bound))
        env.reset(seed=0)
        pitch = env.layout.features + 2
        heaviest[bound] = max(env.step(all_in)[0][pitch - 2] for _ in range(20))
    assert heaviest[None] > 0.9
    assert heaviest[limits] < 0.4


@pytest.mark.parametrize("names", [None, 8])
def test_a_restricted_name_is_never_bought(names):
    config = replace(DRAWN, names=names, limits=LIMITS, start="cash", actions="trades")
    env = BatchedTradingEnv(WIDE, num_envs=6, config=config)
    env.reset(seed=1)
    restricted = env.columns == WIDE.symbols.index("S3")
    assert restricted.any()
    for _ in range(10):
        env.step(np.full(restricted.shape, 2))
    held = env._simulation.holdings[:6, kernel.QUANTITIES] > 0
    assert not held[restricted].any()
    assert held[~restricted].any()


@pytest.mark.parametrize("mode", [{}, {"names": 2, "episode_sessions": 5}, {"actions": "trades"}], ids=str)
def test_memory_does_not_grow_with_the_steps(mode):
    env = BatchedTradingEnv(MARKET, num_envs=5, config=replace(CONFIG, **mode), copy=False)
    env.reset(seed=0)
    env.action_space.seed(0)
    played = [env.action_space.sample() for _ in range(64)]

    def run(count: int) -> int:
        for index in range(count):
            env.step(played[index % 64])
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first, last = run(300), run(2000)
    finally:
        tracemalloc.stop()
    assert last - first < 20_000


def test_only_the_environment_needs_numba():
    """The functions and the endpoint are bundled without it."""
    data, orders = ("data.bars", "data.features", "data.market", "data.observation"), ("orders.orders", "orders.risk")
    names = (*data, *orders, "simulation.policy", "simulation.portfolio", "simulation.rewards", "evaluation.backtest", "evaluation.gate")
    code = f"import sys; [__import__('trading_env.' + name) for name in {names}]; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_gymnasium_wrappers_work_on_the_batch():
    env = RecordEpisodeStatistics(BatchedTradingEnv(MARKET, num_envs=5, config=CONFIG))
    env.reset(seed=0)
    total = np.zeros(5)
    for action in actions(20):
        _, reward, _, _, infos = env.step(action)
        total += reward
    np.testing.assert_allclose(infos["episode"]["r"], total)
    assert infos["episode"]["l"].tolist() == [20] * 5


def test_equal_weight_all_the_way_earns_nothing_over_itself():
    config = EnvConfig(rules=RULES, kappa=1.0, episode_sessions=100, random_start=False)
    env = TradingEnv(walk(sessions=120, assets=4, seed=2), config=config)
    env.reset(seed=0)
    for _ in range(100):
        _, reward, _, ended, info = env.step(np.zeros(4, dtype=np.float32))
        assert abs(reward) <= REWARD_SCALE * 1e-9
        assert info["log_growth"] == pytest.approx(info["baseline_log_growth"], abs=1e-9)
    assert ended


def test_the_reward_is_the_scaled_excess_of_log_growth():
    env = TradingEnv(MARKET, config=CONFIG)
    env.reset(seed=0)
    value = 100_000.0
    for action in actions(20, books=1):
        _, reward, _, _, info = env.step(action[0])
        assert reward == pytest.approx(300 * (np.log(info["value"] / value) - info["baseline_log_growth"]), abs=1e-9)
        value = info["value"]


def test_going_all_in_on_the_winner_pays_what_arithmetic_says():
    prices = np.array([[10.0, 10.0], [10.0, 10.0], [11.0, 10.0]])
    market = market_of(open=np.array([[10.0, 10.0], [10.0, 10.0], [10.0, 10.0]]), close=prices, features=np.zeros((3, 2, 1)))
    config = EnvConfig(
        rules=Rules(cash_buffer=0.0, costs=Costs(slippage_bps=0.0)), kappa=1.0, episode_sessions=1, limits=None, reward=Reward(scale=1.0)
    )
    env = TradingEnv(market, config=config)
    env.reset(seed=0, options={"session": market.sessions[1]})
    _, reward, _, truncated, _ = env.step(np.array([10.0, -10.0], dtype=np.float32))
    share = 1 / (1 + np.exp(-20))
    assert reward == pytest.approx(np.log(1 + 0.1 * share) - np.log(1.05), abs=1e-8)
    assert truncated


def test_episodes_start_where_a_name_is_tradable_and_the_context_is_known():
    context = np.zeros((30, 1))
    context[:4] = np.nan
    context[20] = np.nan
    tradable = np.ones((30, 2), dtype=bool)
    tradable[4:6] = False
    flat = np.full((30, 2), 10.0)
    market = market_of(open=flat, close=flat, features=np.zeros((30, 2, 1)), context=context, tradable=tradable)
    env = BatchedTradingEnv(market, num_envs=200, config=EnvConfig(episode_sessions=5))
    env.reset(seed=0)
    # 6 .. 14 end before the blind row 20, 21 .. 24 begin after it and end at the last row
    assert set(env._simulation.rows.tolist()) == {*range(6, 15), *range(21, 25)}


@pytest.mark.parametrize(
    ("market", "config", "message"),
    [
        (walk(sessions=20, assets=2), CONFIG, "needs 21 sessions in a row"),
        (MARKET, EnvConfig(kappa=0.0), r"kappa in \(0, 1\]"),
        (MARKET, EnvConfig(episode_sessions=0), "at least 1"),
        (MARKET, EnvConfig(names=5), "names must be None or from 1 to the market's 4, was 5"),
        (MARKET, EnvConfig(names=0), "names must be None or from 1"),
        (MARKET, EnvConfig(trade_share=0.0), r"trade_share must lie in \(0, 1\]"),
    ],
)
def test_an_impossible_environment_is_refused(market: Market, config: EnvConfig, message: str):
    with pytest.raises(EnvError, match=message):
        TradingEnv(market, config=config)


def test_bad_actions_and_options_are_refused():
    env = BatchedTradingEnv(MARKET, num_envs=2, config=CONFIG)
    env.reset(seed=0)
    with pytest.raises(EnvError, match="finite scores"):
        env.step(np.array([[0, np.nan, 0, 0], [0, 0, 0, 0]], dtype=np.float32))
    with pytest.raises(EnvError, match=r"of shape \(2, 4\), was \(4,\)"):
        env.step(np.zeros(4, dtype=np.float32))
    with pytest.raises(EnvError, match="options may hold 'session', was row"):
        env.reset(options={"row": 3})
    with pytest.raises(EnvError, match="cannot start at"):
        env.reset(options={"session": MARKET.sessions[-1]})


def test_it_is_a_gymnasium_vector_environment():
    env = BatchedTradingEnv(MARKET, num_envs=2, config=CONFIG)
    assert isinstance(env, gym.vector.VectorEnv)
    assert env.action_space.contains(env.action_space.sample())
    env.close()


@pytest.mark.parametrize("names", [None, 8])
def test_orders_are_sent_by_symbol(names):
    """With one order a day, the first symbol's is the one that is sent."""
    one = replace(LIMITS, max_orders_per_day=1, restricted=())
    env = BatchedTradingEnv(WIDE, num_envs=6, config=replace(DRAWN, names=names, limits=one, start="cash", actions="trades"))
    env.reset(seed=1)
    env.step(np.full(env.columns.shape, 2))
    held = env._simulation.holdings[:6, kernel.QUANTITIES] > 0
    day = env._simulation.rows
    for book, columns in enumerate(env.columns):
        open_ = [column for column in columns if WIDE.tradable[day[book] - 1, column] and np.isfinite(WIDE.open[day[book], column])]
        assert [WIDE.symbols[column] for column in columns[held[book]]] == [min(WIDE.symbols[column] for column in open_)]


@pytest.mark.parametrize("actions", ["scores", "trades"])
@pytest.mark.parametrize("limits", [None, LIMITS], ids=["free", "limited"])
def test_a_drawn_episode_is_the_episode_of_a_market_of_those_names(actions, limits):
    """Bit for bit; the features are those of the whole market on both sides."""
    costs = Costs(fee_bps=2.0, slippage_bps=0.0, half_spread_bps=3.0, impact=1.0, max_volume_share=0.1)
    config = replace(DRAWN, rules=Rules(costs=costs), actions=actions, limits=limits, trade_share=0.1)
    env = BatchedTradingEnv(WIDE, num_envs=4, config=config)
    first, _ = env.reset(seed=2)
    starts, columns = [WIDE.sessions[row] for row in env._simulation.rows], env.columns
    assert len({row.tobytes() for row in columns}) > 1
    env.action_space.seed(2)
    played = [env.action_space.sample() for _ in range(24)]
    steps = [env.step(action) for action in played]
    for n, chosen in enumerate(columns):
        plain = TradingEnv(WIDE.only([WIDE.symbols[column] for column in chosen]), config=replace(config, names=None))
        assert plain.observation_space == env.single_observation_space
        np.testing.assert_array_equal(plain.reset(options={"session": starts[n]})[0], first[n])
        for action, (observation, _, _, _, numbers) in zip(played, steps, strict=True):
            expected, _, _, _, info = plain.step(action[n])
            np.testing.assert_array_equal(observation[n], expected)
            for name in ("value", "log_growth", "turnover", "costs"):
                assert numbers[name][n] == info[name]


@pytest.mark.parametrize("limits", [None, LIMITS], ids=["free", "limited"])
def test_a_drawn_book_is_measured_against_equal_weight_over_its_names(limits):
    """The plain environment's baseline begins with the market: at its first row, both begin there and earn the same."""
    config = replace(DRAWN, random_start=False, limits=limits)
    env = TradingEnv(WIDE, config=config)
    env.reset(seed=4)
    plain = TradingEnv(WIDE.only([WIDE.symbols[column] for column in env.columns]), config=replace(config, names=None))
    plain.reset(seed=4)
    for action in actions(25, books=5)[:, :, 0]:
        ours, theirs = env.step(action), plain.step(action)
        assert ours[1] == pytest.approx(theirs[1], abs=1e-10)
        assert ours[4]["baseline_log_growth"] == pytest.approx(theirs[4]["baseline_log_growth"], abs=1e-13)
    even = TradingEnv(WIDE, config=replace(DRAWN, kappa=1.0))
    even.reset(seed=9)
    assert [even.step(np.zeros(5, dtype=np.float32))[1] for _ in range(25)] == pytest.approx([0.0] * 25, abs=1e-9)


def test_names_are_drawn_from_those_tradable_at_the_start():
    tradable = np.ones((40, 8), dtype=bool)
    tradable[:20, 5:] = False
    tradable[:10, 2:] = False
    flat = np.full((40, 8), 10.0)
    market = market_of(open=flat, close=flat, features=np.zeros((40, 8, 1)), tradable=tradable)
    env = BatchedTradingEnv(market, num_envs=300, config=EnvConfig(episode_sessions=5, names=4))
    seen = {}
    for row, known in ((30, 8), (15, 5), (5, 2)):
        env.reset(seed=row, options={"session": market.sessions[row]})
        columns = env.columns
        assert (np.diff(columns, axis=1) > 0).all()
        assert (tradable[row, columns].sum(axis=1) == min(4, known)).all()
        # Every choice of the tradable names, and of those that fill up, comes about
        assert len({chosen.tobytes() for chosen in columns}) == {8: 70, 5: 5, 2: 15}[known]
        seen[row] = columns
    env.reset(seed=30, options={"session": market.sessions[30]})
    np.testing.assert_array_equal(env.columns, seen[30])
    env.reset(seed=31, options={"session": market.sessions[30]})
    assert not np.array_equal(env.columns, seen[30])


def test_each_episode_draws_again():
    env = BatchedTradingEnv(WIDE, num_envs=3, config=replace(DRAWN, episode_sessions=4))
    env.reset(seed=0)
    zeros = np.zeros((3, 5), dtype=np.float32)
    draws = [env.columns for _ in range(40) if env.step(zeros)[3].any()]
    assert len(draws) == 10
    assert len({chosen.tobytes() for columns in draws for chosen in columns}) > 20
    assert {*np.concatenate(draws).ravel().tolist()} == set(range(12))


def test_a_step_costs_the_same_whatever_the_universe():
    def seconds(universe: int) -> float:
        market = walk(sessions=40, assets=universe, seed=1, eventful=False)
        env = BatchedTradingEnv(market, num_envs=8, config=EnvConfig(rules=RULES, episode_sessions=30, names=10))
        played, best = np.zeros((8, 10), dtype=np.float32), np.inf
        for attempt in range(8):
            env.reset(seed=attempt)
            began = time.process_time()
            for _ in range(29):
                env.step(played)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(800) < 4 * seconds(20)


@pytest.mark.parametrize("start", ["equal", "random", "cash"])
def test_holding_everything_costs_nothing_and_changes_no_quantity(start):
    market = walk(sessions=60, assets=4, seed=3, eventful=False)
    config = EnvConfig(rules=RULES, episode_sessions=40, start=start, actions="trades")
    env = TradingEnv(market, config=config)
    env.reset(seed=1)
    before = env._simulation.holdings[0, kernel.QUANTITIES].copy()
    assert bool(before.any()) is (start != "cash")
    for _ in range(40):
        _, _, _, ended, info = env.step(np.ones(4, dtype=np.int64))
        assert (info["costs"], info["turnover"]) == (0.0, 0.0)
        np.testing.assert_array_equal(env._simulation.holdings[0, kernel.QUANTITIES], before)
        if start == "cash":
            assert info["value"] == 100_000.0
            assert info["log_growth"] == 0.0
    assert ended


def test_a_buy_and_its_sale_cost_exactly_their_costs():
    flat = np.full((10, 3), 40.0)
    market = market_of(open=flat, close=flat, features=np.zeros((10, 3, 1)))
    config = EnvConfig(rules=RULES, episode_sessions=5, start="cash", actions="trades", trade_share=0.1)
    env = TradingEnv(market, config=config)
    env.reset(seed=0, options={"session": market.sessions[0]})
    fee, slippage = 2e-4, 10e-4
    bought = env.step(np.array([2, 1, 1]))[4]
    lot = 100_000.0 * 0.1 / 40.0
    assert env._simulation.holdings[0, kernel.QUANTITIES].tolist() == [lot, 0.0, 0.0]
    assert bought["costs"] == pytest.approx(lot * 40.0 * ((1 + slippage) * (1 + fee) - 1), rel=1e-9)
    assert bought["turnover"] == pytest.approx(0.1, rel=1e-12)
    # A tenth of what is left is a little less than was bought; the second sale takes the rest, however small, and no more
    sold = [env.step(np.array([0, 0, 1]))[4] for _ in range(2)]
    assert env._simulation.holdings[0, kernel.QUANTITIES].tolist() == [0.0, 0.0, 0.0]
    paid = bought["costs"] + sum(info["costs"] for info in sold)
    assert paid == pytest.approx(lot * 40.0 * ((1 + slippage) * (1 + fee) - (1 - slippage) * (1 - fee)), rel=1e-9)
    assert 100_000.0 - sold[-1]["value"] == pytest.approx(paid, abs=1e-9 * 100_000)


def test_buys_beyond_the_cash_are_scaled_to_it():
    flat = np.full((10, 4), 40.0)
    market = market_of(open=flat, close=flat, features=np.zeros((10, 4, 1)))
    env = TradingEnv(market, config=EnvConfig(rules=RULES, episode_sessions=5, start="cash", actions="trades", trade_share=0.5))
    env.reset(seed=0, options={"session": market.sessions[0]})
    env.step(np.array([2, 2, 2, 2]))
    quantities, cash = env._simulation.holdings[0, kernel.QUANTITIES], env._simulation.states[0, kernel.CASH]
    assert len(set(quantities.tolist())) == 1
    assert 0 <= cash < 1e-6
    assert quantities[0] * 40.0 == pytest.approx(25_000.0, rel=2e-3)


@pytest.mark.parametrize("wrong", [3, -1, 0.5, np.nan])
def test_what_is_no_trade_is_refused(wrong):
    env = BatchedTradingEnv(MARKET, num_envs=2, config=replace(CONFIG, actions="trades"))
    env.reset(seed=0)
    value = env._simulation.states.copy()
    with pytest.raises(EnvError, match=r"actions must be 0 \(sell\), 1 \(hold\) or 2 \(buy\).*for book 1"):
        env.step(np.array([[0, 1, 2, 1], [1, 1, wrong, 1]]))
    np.testing.assert_array_equal(env._simulation.states, value)
