"""The compiled step against the one it stands for: the same bits over generated markets and rules, weights to the last digit of exp."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.markets import walk
from trading_env import kernel
from trading_env.env import BatchedTradingEnv, EnvConfig
from trading_env.evaluation import _Guard
from trading_env.market import Market
from trading_env.observation import observe
from trading_env.policy import weights_from_scores
from trading_env.portfolio import Book, Costs, Rules, Tape, step
from trading_env.rewards import excess_log_growth
from trading_env.risk import Limits

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
    and one name that is delisted. Its symbols are not in the order of the alphabet."""
    market, rng = walk(sessions=sessions, assets=names, seed=seed), np.random.default_rng(seed)
    volume = np.where(rng.random(market.close.shape) < 0.05, 0.0, np.floor(10 ** rng.uniform(1, 6, market.close.shape)))
    gone = np.zeros(market.close.shape, dtype=bool)
    if names > 2:
        gone[sessions // 2 :, 1] = True
    bars = {name: np.where(gone, np.nan, getattr(market, name)) for name in ("open", "high", "low", "close")}
    split = rng.choice([1.0, 4.0, 0.05, 1.5, 0.35, 7.0], p=[0.85, 0.03, 0.05, 0.02, 0.03, 0.02], size=market.close.shape)
    symbols = tuple(f"S{index}" for index in rng.permutation(names))
    return replace(
        market,
        symbols=symbols,
        volume=np.where(np.isfinite(bars["close"]), volume, np.nan),
        tradable=market.tradable & ~gone,
        split=np.where(np.arange(sessions)[:, None] > 0, split, 1.0),
        **bars,
    )


def weights_of(rng: np.random.Generator, held: np.ndarray, tradable: np.ndarray) -> np.ndarray:
    wanted = weights_from_scores(rng.normal(0, 3, held.shape), held, tradable, kappa=float(rng.choice([0.1, 1.0])))
    return np.where(rng.random(held.shape) < 0.15, 0.0, wanted)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), names=st.sampled_from([1, 2, 3, 7, 8, 9, 30, 150]), rules=RULES, limits=st.none() | LIMITS)
def test_a_compiled_step_gives_the_bits_of_the_step(seed: int, names: int, rules: Rules, limits: Limits | None):
    market, rng = eventful(seed=seed, names=names), np.random.default_rng(seed)
    tape = Tape.of(market)
    program = kernel.Program.of(
        tape, symbols=market.symbols, baseline=np.zeros(len(tape)), rules=rules, kappa=1.0, scale=1.0, pitch=3, limits=limits
    )
    guard = _Guard(market, limits, VALUE) if limits is not None else None
    first = len(tape) // 3 + 1
    start = weights_from_scores(rng.normal(size=(1, names)), np.zeros((1, names)), tape.decidable[[first]], kappa=1.0)
    book = Book.invested(VALUE, weights=start, prices=tape.closing[[first]], rules=rules)
    value = book.value(tape.closing[[first]])
    quantities, state = book.quantities[0].copy(), np.array([0.0, 0.0, book.cash[0], VALUE, VALUE, 0.0])
    work, report = np.empty((kernel.SCRATCH, names)), np.zeros(kernel.REPORT)
    for row in range(first, first + 12):
        weights = weights_of(rng, book.shares(tape.closing[[row]])[0], tape.decidable[[row]])
        taken = step(book, tape=tape, rows=np.array([row]), weights=weights, rules=rules, review=guard.review if guard else None)
        if guard is not None:
            guard.close(float(taken.value[0]))
        failure = kernel.trade(
            program.parameters,
            program.days[row + 1],
            weights[0],
            quantities,
            state,
            work,
            report,
        )
        assert failure == 0
        np.testing.assert_array_equal(quantities, taken.book.quantities[0])
        assert state[kernel.CASH] == taken.book.cash[0]
        assert state[kernel.VALUE] == report[kernel.WORTH] == taken.value[0]
        np.testing.assert_array_equal(work[kernel.DELTAS], taken.deltas[0])
        got = report[[kernel.COSTS, kernel.DIVIDENDS, kernel.TURNOVER]]
        np.testing.assert_array_equal(got, [taken.costs[0], taken.dividends[0], taken.turnover[0]])
        assert report[kernel.GROWTH] == pytest.approx(np.log(taken.value[0] / value[0]), rel=1e-14, abs=1e-16)
        book, value = taken.book, taken.value


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), names=st.sampled_from([1, 2, 8, 30, 200]), kappa=st.sampled_from([0.01, 0.1, 1.0]))
def test_compiled_weights_differ_by_rounding_alone(seed: int, names: int, kappa: float):
    rng = np.random.default_rng(seed)
    scores, tradable = rng.normal(0, 5, names), rng.random(names) < rng.choice([0.0, 0.6, 1.0])
    held = rng.dirichlet(np.ones(names)) * rng.choice([0.0, 0.995])
    weights, terms = np.empty(names), np.empty(names)
    kernel.aim(scores.astype(np.float32), held, tradable.astype(np.float64), kappa, weights, terms)
    np.testing.assert_allclose(
        weights, weights_from_scores(scores.astype(np.float32).astype(np.float64), held, tradable, kappa=kappa), rtol=1e-14, atol=0
    )


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), names=st.sampled_from([1, 5, 30]), rules=RULES)
def test_the_environment_is_observe_weights_and_step(seed: int, names: int, rules: Rules):
    market, rng = eventful(seed=seed, names=names, sessions=60), np.random.default_rng(seed)
    config = EnvConfig(rules=rules, kappa=0.3, episode_sessions=25, start="random")
    env = BatchedTradingEnv(market, num_envs=3, config=config)
    env.reset(seed=seed)
    simulation, tape = env._simulation, Tape.of(market)
    rows = simulation.rows.copy()
    book = Book(cash=simulation.states[:, kernel.CASH].copy(), quantities=simulation.holdings[:, kernel.QUANTITIES].copy())
    for offset in range(25):
        at = rows + offset
        scores = rng.normal(0, 3, (3, names)).astype(np.float32)
        held, _ = book.shares(tape.closing[at])
        weights = weights_from_scores(scores.astype(np.float64), held, tape.decidable[at], kappa=0.3)
        taken = step(book, tape=tape, rows=at, weights=weights, rules=rules)
        observation, rewards, _, ended, info = env.step(scores)
        np.testing.assert_array_equal(rewards, excess_log_growth(info["log_growth"], info["baseline_log_growth"]))
        np.testing.assert_allclose(info["value"], taken.value, rtol=1e-12)
        np.testing.assert_allclose(info["costs"], taken.costs, rtol=1e-8, atol=1e-7)
        held, cash_weight = taken.book.shares(tape.closing[at + 1])
        seen = observe(market.features[at + 1], market.context[at + 1], market.tradable[at + 1], held, cash_weight)
        final = np.stack(info["final_obs"]) if ended.any() else observation
        np.testing.assert_allclose(final, seen, rtol=1e-6, atol=1e-9)
        book = taken.book
    assert ended.all()
