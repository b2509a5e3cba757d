"""The compiled step against the one it stands for: the same bits over generated markets and rules, weights to the last digit of exp."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.markets import walk
from trading_env.data.market import Market
from trading_env.data.observation import observe
from trading_env.evaluation.backtest import _Guard
from trading_env.orders.risk import Limits
from trading_env.simulation import kernel
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig, compiled_equal_weight_growth
from trading_env.simulation.policy import weights_from_scores
from trading_env.simulation.portfolio import Book, Costs, ExecutionPrices, Rules, Trades, step, worth
from trading_env.simulation.program import Program, ranks, scratch
from trading_env.simulation.rewards import Reward, equal_weight_growth

VALUE = 100_000.0
FREE_COSTS = st.builds(Costs, fee_bps=st.sampled_from([0.0, 7.0]), slippage_bps=st.sampled_from([0.0, 13.0, 300.0]))
REAL_COSTS = st.builds(
    Costs,
    fee_bps=st.sampled_from([0.0, 7.0]),
    slippage_bps=st.sampled_from([0.0, 13.0]),
    half_spread_bps=st.sampled_from([0.0, 2.5]),
    impact=st.sampled_from([0.0, 1.0, 30.0]),
    max_volume_share=st.sampled_from([0.01, 0.5, 1.0]),
)
RULES = st.builds(
    Rules,
    cash_buffer=st.sampled_from([0.0, 0.005, 0.3]),
    band=st.sampled_from([0.0, 0.02]),
    min_notional=st.sampled_from([0.0, 1.0, 500.0]),
    credit_dividends=st.booleans(),
    costs=FREE_COSTS | REAL_COSTS,
    whole_shares=st.booleans(),
)
LIMITS = st.builds(
    Limits,
    max_weight=st.sampled_from([0.1, 0.4, 1.0]),
    max_gross=st.sampled_from([0.5, 1.0]),
    max_order_notional=st.sampled_from([5_000.0, 1e6]),
    max_turnover_per_day=st.sampled_from([0.2, 2.0]),
    max_orders_per_day=st.sampled_from([1, 4, 60]),
    price_collar=st.just(0.1),
    max_drawdown=st.sampled_from([0.01, 0.5]),
    max_daily_loss=st.sampled_from([0.005, 0.25]),
    max_bar_age_sessions=st.sampled_from([0, 1, 1, 1]),
    max_model_age_days=st.just(500),
    restricted=st.sampled_from([(), ("S1",)]),
)


def eventful(*, seed: int, names: int, sessions: int = 50) -> Market:
    """A walk with dividends, halts and a late listing, splits more often than prices would bear, thin bars of random volume, some of none,
    one name that is delisted, and of each name some sessions as no member. Its symbols are not in the order of the alphabet."""
    market, rng = walk(sessions=sessions, assets=names, seed=seed), np.random.default_rng(seed)
    volume = np.where(rng.random(market.close.shape) < 0.05, 0.0, np.floor(10 ** rng.uniform(1, 6, market.close.shape)))
    gone = np.zeros(market.close.shape, dtype=bool)
    if names > 2:
        gone[sessions // 2 :, 1] = True
    bars = {name: np.where(gone, np.nan, getattr(market, name)) for name in ("open", "high", "low", "close")}
    split = rng.choice([1.0, 4.0, 0.05, 1.5, 0.35, 7.0], p=[0.85, 0.03, 0.05, 0.02, 0.03, 0.02], size=market.close.shape)
    symbols = tuple(f"S{index}" for index in rng.permutation(names))
    member = np.repeat(rng.random((sessions // 5 + 1, names)) < 0.8, 5, axis=0)[:sessions]
    return replace(
        market,
        symbols=symbols,
        volume=np.where(np.isfinite(bars["close"]), volume, np.nan),
        tradable=market.tradable & ~gone & member,
        leaving=np.isfinite(bars["close"]) & ~member,
        split=np.where(np.arange(sessions)[:, None] > 0, split, 1.0),
        **bars,
    )


def decisions_of(
    rng: np.random.Generator, held: np.ndarray, tradable: np.ndarray, share: float, leaving: np.ndarray
) -> np.ndarray | Trades:
    """Weights, or trades where there is a share of equity for them to move."""
    if share:
        return Trades(rng.choice([-1.0, 0.0, 1.0], size=held.shape), share)
    wanted = weights_from_scores(rng.normal(0, 3, held.shape), held, tradable, kappa=float(rng.choice([0.1, 1.0])), leaving=leaving)
    return np.where(rng.random(held.shape) < 0.15, 0.0, wanted)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    names=st.sampled_from([1, 2, 3, 7, 8, 9, 30, 150]),
    rules=RULES,
    limits=st.none() | LIMITS,
    share=st.sampled_from([0.0, 0.0, 0.002, 0.4]),
)
def test_a_compiled_step_gives_the_bits_of_the_step(seed: int, names: int, rules: Rules, limits: Limits | None, share: float):
    market, rng = eventful(seed=seed, names=names), np.random.default_rng(seed)
    prices = ExecutionPrices.of(market)
    program = Program.of(
        prices, rules=rules, kappa=1.0, pitch=3, baseline=np.zeros(len(prices)), reward=Reward(), limits=limits, trade_share=share
    )
    guard = _Guard(market, limits, VALUE) if limits is not None else None
    first = len(prices) // 3 + 1
    start = weights_from_scores(rng.normal(size=(1, names)), np.zeros((1, names)), prices.decidable[[first]], kappa=1.0)
    book = Book.invested(VALUE, weights=start, prices=prices.closing[[first]], rules=rules)
    value = book.value(prices.closing[[first]])
    holding, state = np.zeros((kernel.HOLDINGS, names)), np.zeros(kernel.STATE)
    holding[kernel.QUANTITIES], state[kernel.CASH] = book.quantities[0], book.cash[0]
    holding[kernel.ORDER] = np.argsort(ranks(market.symbols))
    holding[kernel.RESTRICTED] = np.isin(market.symbols, limits.restricted if limits else ())
    state[[kernel.VALUE, kernel.PEAK]] = VALUE
    work, report = scratch(names), np.zeros(kernel.REPORT)
    for row in range(first, first + 12):
        wanted = decisions_of(rng, book.shares(prices.closing[[row]])[0], prices.decidable[[row]], share, prices.leaving[[row]])
        taken = step(book, prices=prices, rows=np.array([row]), weights=wanted, rules=rules, review=guard.review if guard else None)
        if guard is not None:
            guard.close(float(taken.value[0]))
        work[kernel.WEIGHTS] = wanted.signs[0] if isinstance(wanted, Trades) else wanted[0]
        assert kernel.trade(program.parameters[0], program.days[row + 1], holding, state, report, work) == 0
        np.testing.assert_array_equal(holding[kernel.QUANTITIES], taken.book.quantities[0])
        assert state[kernel.CASH] == taken.book.cash[0]
        assert state[kernel.VALUE] == report[kernel.WORTH] == taken.value[0]
        np.testing.assert_array_equal(work[kernel.DELTAS], taken.deltas[0])
        np.testing.assert_array_equal(holding[kernel.HELD], taken.book.shares(prices.closing[[row + 1]])[0][0])
        got = report[[kernel.COSTS, kernel.DIVIDENDS, kernel.TURNOVER]]
        np.testing.assert_array_equal(got, [taken.costs[0], taken.dividends[0], taken.turnover[0]])
        assert report[kernel.GROWTH] == pytest.approx(np.log(taken.value[0] / value[0]), rel=1e-14, abs=1e-16)
        book, value = taken.book, taken.value


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), names=st.sampled_from([1, 2, 8, 30, 200, 700]), kappa=st.sampled_from([0.01, 0.1, 1.0]))
def test_compiled_weights_differ_by_rounding_alone(seed: int, names: int, kappa: float):
    rng = np.random.default_rng(seed)
    scores, tradable = rng.normal(0, 5, names).astype(np.float32), rng.random(names) < rng.choice([0.0, 0.6, 1.0])
    held, work = rng.dirichlet(np.ones(names)) * rng.choice([0.0, 0.995]), scratch(names)
    leaving = ~tradable & (rng.random(names) < 0.5)
    kernel.aim(scores, held, np.where(leaving, -1.0, tradable), kappa, work)
    expected = weights_from_scores(scores.astype(np.float64), held, tradable, kappa=kappa, leaving=leaving)
    np.testing.assert_allclose(work[kernel.WEIGHTS], expected, rtol=1e-14, atol=0)


def equal_weight_at(prices: ExecutionPrices, row: int, *, rules: Rules) -> Book:
    zeros = np.zeros((1, prices.closing.shape[1]))
    weights = weights_from_scores(zeros, zeros, prices.decidable[[row]], kappa=1.0)
    return Book.invested(VALUE, weights=weights, prices=prices.closing[[row]], rules=rules)


def decided(actions: np.ndarray, book: Book, prices: ExecutionPrices, at: np.ndarray, config: EnvConfig) -> np.ndarray | Trades:
    if config.actions == "trades":
        return Trades(actions.astype(np.float64) - 1, config.trade_share)
    scores, (held, _) = actions.astype(np.float64), book.shares(prices.closing[at])
    return weights_from_scores(scores, held, prices.decidable[at], kappa=config.kappa, leaving=prices.leaving[at])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000), names=st.sampled_from([1, 5, 30]), drawn=st.sampled_from([None, 1, 4]), rules=RULES, trades=st.booleans()
)
def test_the_environment_is_observe_decide_and_step(seed: int, names: int, drawn: int | None, rules: Rules, trades: bool):
    """Over all the names, or over those that each book has drawn."""
    market, rng = eventful(seed=seed, names=names, sessions=60), np.random.default_rng(seed)
    config = EnvConfig(
        rules=rules,
        kappa=0.3,
        episode_sessions=25,
        start="random",
        limits=None,
        names=None if drawn is None else min(drawn, names),
        actions="trades" if trades else "scores",
        trade_share=0.2,
    )
    env = BatchedTradingEnv(market, num_envs=3, config=config)
    env.reset(seed=seed)
    simulation, columns = env._simulation, env.columns
    rows = simulation.rows
    cash, quantities = simulation.states[:, kernel.CASH].copy(), simulation.holdings[:, kernel.QUANTITIES].copy()
    shape = columns.shape
    played = [rng.integers(0, 3, shape) if trades else rng.normal(0, 3, shape).astype(np.float32) for _ in range(25)]
    steps = [env.step(actions) for actions in played]
    assert steps[-1][3].all()
    for n, own in enumerate(market.only([market.symbols[column] for column in chosen]) for chosen in columns):
        prices, book = ExecutionPrices.of(own), Book(cash=cash[[n]], quantities=quantities[[n]])
        equal = equal_weight_at(prices, int(rows[n]), rules=rules) if drawn is not None else None
        for offset, (actions, (observation, rewards, _, ended, info)) in enumerate(zip(played, steps, strict=True)):
            at = rows[[n]] + offset
            wanted = decided(actions[[n]], book, prices, at, config)
            taken = step(book, prices=prices, rows=at, weights=wanted, rules=rules)
            np.testing.assert_allclose(info["value"][n], taken.value[0], rtol=1e-12)
            np.testing.assert_allclose(info["costs"][n], taken.costs[0], rtol=1e-8, atol=1e-7)
            assert rewards[n] == 300 * (info["log_growth"][n] - info["baseline_log_growth"][n])
            seen = observe(own.features[at + 1], own.context[at + 1], own.tradable[at + 1], *taken.book.shares(prices.closing[at + 1]))
            final = info["final_obs"][n] if ended.any() else observation[n]
            np.testing.assert_allclose(final, seen[0], rtol=1e-6, atol=1e-9)
            book = taken.book
            if equal is not None:
                held, zeros = equal.shares(prices.closing[at])[0], np.zeros((1, shape[1]))
                all_the_way = weights_from_scores(zeros, held, prices.decidable[at], kappa=1.0, leaving=prices.leaving[at])
                even = step(equal, prices=prices, rows=at, weights=all_the_way, rules=rules)
                growth = np.log(even.value[0] / equal.value(prices.closing[at])[0])
                assert info["baseline_log_growth"][n] == pytest.approx(growth, rel=1e-14, abs=1e-16)
                equal = even.book


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), drawn=st.sampled_from([None, 4]), rules=RULES, limits=st.none() | LIMITS, trades=st.booleans())
def test_the_books_of_the_environment_balance_with_everything_on(
    seed: int, drawn: int | None, rules: Rules, limits: Limits | None, trades: bool
):
    market = eventful(seed=seed, names=9, sessions=60)
    config = EnvConfig(
        rules=rules, kappa=0.4, episode_sessions=30, limits=limits, names=drawn, actions="trades" if trades else "scores", trade_share=0.2
    )
    env = BatchedTradingEnv(market, num_envs=3, config=config)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    simulation, prices, columns = env._simulation, ExecutionPrices.of(market), env.columns
    value, rows = simulation.states[:3, kernel.VALUE].copy(), simulation.rows
    for offset in range(1, 30):
        before = simulation.holdings[:3, kernel.QUANTITIES].copy()
        info = env.step(env.action_space.sample())[4]
        after, at = simulation.holdings[:3, kernel.QUANTITIES], (rows[:, None] + offset, columns)
        opening, split = prices.opening[at], prices.split[at]
        previous, closing = prices.closing[at[0] - 1, columns], prices.closing[at]
        moves = worth(before * split, opening - previous / split) + worth(after, closing - opening)
        dividends = worth(before, prices.dividend[at]) if rules.credit_dividends else 0.0
        np.testing.assert_allclose(info["value"] - value, moves - info["costs"] + dividends, rtol=0, atol=1e-9 * VALUE)
        assert (simulation.states[:3, kernel.CASH] >= 0).all()
        assert (after >= 0).all()
        value = info["value"].copy()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), names=st.integers(1, 9), rules=RULES)
def test_the_compiled_equal_weight_grows_as_the_reward_s_baseline_to_the_bit(seed: int, names: int, rules: Rules):
    prices = ExecutionPrices.of(eventful(seed=seed, names=names))
    program = Program.of(prices, rules=rules, kappa=0.1, pitch=3, baseline=np.zeros(len(prices)), reward=Reward())
    compiled = compiled_equal_weight_growth(program, prices, rules=rules, initial_value=VALUE)
    np.testing.assert_array_equal(compiled, equal_weight_growth(prices, rules=rules, initial_value=VALUE))
