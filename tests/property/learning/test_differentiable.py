"""The differentiable step against the real one, over generated markets and rules; its gradient against the real step's differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.algorithms.differentiable import Sessions, growth
from tests.markets import walk
from trading_env.data.market import Market
from trading_env.simulation.policy import weights_from_scores
from trading_env.simulation.portfolio import Book, Costs, ExecutionPrices, FloatArray, Rules, step

VALUE, FIRST, STEPS = 1e7, 30, 12
COSTS = st.builds(
    Costs, fee_bps=st.sampled_from([0.0, 7.0]), slippage_bps=st.sampled_from([0.0, 13.0]), half_spread_bps=st.sampled_from([0.0, 2.5])
)
LIQUID_COSTS = st.builds(
    Costs, slippage_bps=st.just(5.0), impact=st.sampled_from([0.0, 1.0, 30.0]), max_volume_share=st.sampled_from([0.01, 0.5, 1.0])
)
RULES = st.builds(
    Rules,
    cash_buffer=st.sampled_from([0.0, 0.005, 0.3]),
    band=st.sampled_from([0.0, 0.02]),
    min_notional=st.sampled_from([0.0, 500.0]),
    credit_dividends=st.booleans(),
    costs=COSTS | LIQUID_COSTS,
)


def market_of(seed: int, names: int) -> Market:
    """A walk with splits, dividends, halts and a late listing, its volume random; some $50 a share, which no floor touches."""
    market, rng = walk(sessions=FIRST + STEPS + 2, assets=names, seed=seed), np.random.default_rng(seed)
    scale = 50 / np.nanmean(market.close[FIRST:], axis=0)
    prices = {name: getattr(market, name) * scale for name in ("open", "high", "low", "close", "dividend")}
    if names > 2:  # the second name leaves the universe halfway
        left = np.arange(len(market)) >= FIRST + STEPS // 2
        market = replace(market, tradable=market.tradable & ~_only(left, 1, names), leaving=_only(left, 1, names))
    return replace(market, **prices, volume=np.where(np.isfinite(market.close), 10 ** rng.uniform(2, 7, market.close.shape), np.nan))


def _only(rows: np.ndarray, name: int, names: int) -> np.ndarray:
    return rows[:, None] & (np.arange(names) == name)


def real_growth(scores: FloatArray, prices: ExecutionPrices, *, kappa: float, rules: Rules) -> tuple[FloatArray, FloatArray]:
    """(T,) log growth and turnover by `portfolio.step`, from equal weight."""
    decidable = prices.decidable[[FIRST]]
    start = decidable / max(decidable.sum(), 1)
    book = Book.invested(VALUE, weights=start, prices=prices.closing[[FIRST]], rules=rules)
    worth, found = book.value(prices.closing[[FIRST]])[0], []
    for number, row in enumerate(range(FIRST, FIRST + len(scores))):
        held, _ = book.shares(prices.closing[[row]])
        decidable, leaving = prices.decidable[[row]], prices.leaving[[row]]
        weights = weights_from_scores(scores[[number]], held, decidable, kappa=kappa, leaving=leaving)
        taken = step(book, prices=prices, rows=np.array([row]), weights=weights, rules=rules)
        found.append((np.log(taken.value[0] / worth), taken.turnover[0]))
        book, worth = taken.book, taken.value[0]
    return tuple(np.array(found).T)


def spans(prices: ExecutionPrices) -> Sessions:
    return Sessions.of(prices, rows=np.arange(FIRST, FIRST + STEPS)[None], names=np.arange(prices.closing.shape[1])[None])


@settings(max_examples=70, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    names=st.sampled_from([2, 3, 8, 30]),
    kappa=st.sampled_from([0.1, 0.5, 1.0]),
    rules=RULES,
    wide=st.booleans(),
)
def test_the_differentiable_step_is_the_step(seed: int, names: int, kappa: float, rules: Rules, wide: bool) -> None:
    prices = ExecutionPrices.of(market_of(seed, names))
    scores = np.random.default_rng(seed).normal(0, 3 if wide else 0.1, (STEPS, names))
    ours, turnover = growth(torch.from_numpy(scores)[None], spans(prices), kappa=kappa, rules=rules, value=VALUE)
    real, traded = real_growth(scores, prices, kappa=kappa, rules=rules)
    np.testing.assert_allclose(ours[0].numpy(), real, rtol=0, atol=1e-9)
    np.testing.assert_allclose(turnover[0].numpy(), traded, rtol=0, atol=1e-9)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), names=st.sampled_from([2, 5]), kappa=st.sampled_from([0.1, 1.0]), costs=COSTS | LIQUID_COSTS)
def test_the_gradient_is_that_of_the_real_steps_growth(seed: int, names: int, kappa: float, costs: Costs) -> None:
    """Along a random direction, by central differences of `portfolio.step`; a kink within their reach is left out."""
    prices, rules = ExecutionPrices.of(market_of(seed, names)), Rules(min_notional=0.0, costs=costs)
    rng = np.random.default_rng(seed)
    scores, direction = rng.normal(0, 0.5, (STEPS, names)), rng.normal(size=(STEPS, names))
    leaf = torch.from_numpy(scores)[None].requires_grad_()
    growth(leaf, spans(prices), kappa=kappa, rules=rules, value=VALUE)[0].sum().backward()
    assert leaf.grad is not None
    exact = float((leaf.grad[0].numpy() * direction).sum())

    def slope(width: float) -> float:
        up, down = (real_growth(scores + sign * width * direction, prices, kappa=kappa, rules=rules)[0].sum() for sign in (1, -1))
        return float((up - down) / (2 * width))

    narrow, wide = slope(1e-5), slope(1e-4)
    if abs(narrow - wide) < 1e-7:  # no order changes its side in between
        assert abs(exact - narrow) < 1e-6
