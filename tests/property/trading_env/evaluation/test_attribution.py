"""Attribution's identities, for whatever books and fills: the parts are the whole difference, and an order's parts its shortfall."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Literal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.markets import walk
from trading_env.data.market import Market
from trading_env.evaluation.attribution import LiveBook, LiveDay, LiveFill, explain
from trading_env.evaluation.backtest import backtest
from trading_env.orders.execution_cost import Execution
from trading_env.simulation.policy import SeededRandom
from trading_env.simulation.portfolio import Costs, Rules

SESSIONS, NAMES, OUTSIDE = 6, 3, "ELSE"
COSTS = [
    Costs(slippage_bps=0.0),
    Costs(fee_bps=3, slippage_bps=10),
    Costs(fee_bps=1, slippage_bps=5, half_spread_bps=2, impact=1.0, max_volume_share=0.05),
]


def market_of_seed(seed: int) -> Market:
    market = walk(sessions=SESSIONS + 2, assets=NAMES, seed=seed)
    return replace(market, volume=np.where(np.isfinite(market.close), 1e5, np.nan))


MARKETS = [market_of_seed(seed) for seed in range(6)]


def any_day(market: Market, session: np.datetime64, *, scale: float, random: np.random.Generator) -> LiveDay:
    """A day that no exchange could have produced: every book, plan and fill is drawn by itself."""
    seen = np.isfinite(market.close[: market.index_of(session) + 1]).any(axis=0)
    listed = [symbol for symbol, has_a_price in zip(market.symbols, seen, strict=True) if has_a_price]
    names = [*listed, OUTSIDE]
    size = scale / 100

    def some(share: float) -> list[str]:
        return [name for name in names if random.random() < share]

    held = some(0.7)
    weights = dict(zip(listed, random.dirichlet(np.ones(len(listed))).tolist(), strict=True))
    return LiveDay(
        session=date.fromisoformat(str(session)),
        weights={name: weights[name] for name in some(0.9) if name != OUTSIDE} if random.random() < 0.8 else None,
        plan={name: random.uniform(-size, size) for name in listed},
        fills=[
            LiveFill(symbol=name, quantity=random.uniform(-size, size), price=random.uniform(1, 300), planned=bool(random.random() < 0.8))
            for name in [*some(0.9), *some(0.5)]
        ],
        close=LiveBook(
            cash=random.uniform(0, scale),
            quantities={name: round(random.uniform(0, size), 9) for name in held},
            marks={name: random.uniform(1, 300) for name in held},
        ),
        fees=random.uniform(0, 10),
    )


@st.composite
def lived(draw: st.DrawFn) -> tuple[Market, Rules, float, list[LiveDay]]:
    market, scale = draw(st.sampled_from(MARKETS)), draw(st.sampled_from([1e3, 1e5, 1e7]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rules = Rules(costs=draw(st.sampled_from(COSTS)), credit_dividends=draw(st.booleans()))
    return market, rules, scale, [any_day(market, session, scale=scale, random=random) for session in market.sessions[2:]]


@given(lived())
@settings(deadline=None, max_examples=40)
def test_the_parts_are_the_whole_difference_for_any_books(case: tuple[Market, Rules, float, list[LiveDay]]) -> None:
    market, rules, scale, days = case
    policy = SeededRandom(seed=3, kappa=0.5)
    backtested = backtest(market, policy, rules=rules, start=market.sessions[2], end=market.sessions[-1], initial_cash=scale, limits=None)
    explained = explain(market, days, backtested=backtested, policy=policy, rules=rules)
    assert len(explained) == len(days)
    assert max(abs(one.unexplained) for one in explained) < 1e-5, "books of up to a thousand million dollars"
    gap = explained[-1].live - explained[-1].backtest
    assert round(sum(one.parts.total for one in explained) - gap, 2) == 0


prices = st.decimals(min_value="0.01", max_value="5000", places=4)
shares = st.decimals(min_value="0.000000001", max_value="100000", places=9)


@given(
    side=st.sampled_from(["buy", "sell"]),
    quantity=shares,
    share=st.decimals(0, 1, places=4),
    prices=st.tuples(prices, prices, prices, prices),
)
def test_an_order_s_parts_are_its_shortfall(
    side: Literal["buy", "sell"], quantity: Decimal, share: Decimal, prices: tuple[Decimal, Decimal, Decimal, Decimal]
) -> None:
    decision, arrival, fill, close = prices
    filled, sign = quantity * share, 1 if side == "buy" else -1
    one = Execution(symbol="S", side=side, quantity=quantity, filled=filled, decision=decision, arrival=arrival, fill=fill, close=close)
    on_paper, in_truth = quantity * sign * (close - decision), filled * sign * (close - fill)
    assert one.shortfall == on_paper - in_truth
