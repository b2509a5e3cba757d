"""`trading_env.evaluation.backtest` on the compiled step: the same books in a fraction of the time, for pages that somebody waits for.

Promise: decisions are made by the same code; sizing, risk and fills are the kernel's, which gives the bits of `portfolio.step` and takes
out the orders that `risk.check_batch` denies. It does not know which rule denied them: `denied` is empty.
Failure: as `backtest`'s.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from trading_env.data.market import Day, Market
from trading_env.data.observation import Layout, Observation, market_block, with_book
from trading_env.evaluation.backtest import BacktestResult, EvaluationError, backtest
from trading_env.orders.risk import Limits
from trading_env.simulation import kernel
from trading_env.simulation.policy import EqualWeight, Policy, weights_from_scores
from trading_env.simulation.portfolio import ExecutionPrices, FloatArray, PortfolioError, Rules
from trading_env.simulation.program import Program, ranks, scratch
from trading_env.simulation.rewards import Reward

prices_of = lru_cache(maxsize=4)(ExecutionPrices.of)
_KEPT = ("equity", "cash", "costs", "dividends", "turnover", "scores", "weights", "deltas", "quantities", "held")


def compiled_backtest(
    market: Market, policy: Policy, *, start: Day, end: Day, rules: Rules, initial_cash: float, limits: Limits | None
) -> BacktestResult:
    """Trade every session from `start` to `end`, both included, from cash. The first decision observes the close before `start`.

    A market of slot bars is traded by `backtest` itself: the kernel knows limits of a row, not of a session that has several.
    """
    if market.by_slot:
        return backtest(market, policy, start=start, end=end, rules=rules, initial_cash=initial_cash, limits=limits)
    window = market.rows(start, end)
    first, names, count = market.index_of(window.sessions[0]), len(market.symbols), len(window)
    if first == 0:
        raise EvaluationError(f"the first decision observes the session before {window.sessions[0]}, the market begins there")
    prices = prices_of(market)
    program = Program.of(prices, rules=rules, kappa=policy.kappa, pitch=1, baseline=np.zeros(len(prices)), reward=Reward(), limits=limits)
    decide = _Decisions(market, policy, first=first, count=count, days=program.days)
    holding, state = np.zeros((kernel.HOLDINGS, names)), np.zeros(kernel.STATE)
    holding[kernel.COLUMN], holding[kernel.ORDER] = np.arange(names), np.argsort(ranks(market.symbols))
    holding[kernel.RESTRICTED] = np.isin(market.symbols, limits.restricted if limits else ())
    state[[kernel.CASH, kernel.VALUE, kernel.PEAK]] = initial_cash
    report, work = np.zeros(kernel.REPORT), scratch(names)
    kept: dict[str, Any] = {name: np.empty(count if place < 5 else (count, names)) for place, name in enumerate(_KEPT)}
    for place in range(count):
        row = first + place
        scores = decide(place, holding[kernel.HELD], state, work)
        weights = work[kernel.WEIGHTS].copy()
        failure = kernel.trade(program.parameters[0], program.days[row], holding, state, report, work)
        if failure:
            raise PortfolioError(f"{kernel.FAILURES[failure]}, {policy.name} breaks that on {market.sessions[row]}")
        dollars = (report[kernel.WORTH], state[kernel.CASH], report[kernel.COSTS], report[kernel.DIVIDENDS], report[kernel.TURNOVER])
        by_name = (scores, weights, work[kernel.DELTAS], holding[kernel.QUANTITIES], holding[kernel.HELD])
        for name, value in zip(_KEPT, (*dollars, *by_name), strict=True):
            kept[name][place] = value
    return BacktestResult(policy=policy.name, symbols=market.symbols, initial_cash=float(initial_cash), sessions=window.sessions, **kept)


class _Decisions:
    """Scores of each row, as `backtest` makes them, and their target weights in the scratch space.

    Of the same scores for all, the kernel's weights are those of `weights_from_scores` to the bit; of others to the last digit of exp.
    """

    def __init__(self, market: Market, policy: Policy, *, first: int, count: int, days: FloatArray) -> None:
        self._market, self._policy, self._first, self._days = market, policy, first, days
        self._even = np.zeros(len(market.symbols)) if isinstance(policy, EqualWeight) else None
        if self._even is None:
            rows = slice(first - 1, first - 1 + count)
            self._blocks = market_block(market.features[rows], market.context[rows], market.tradable[rows])
            self._layout = Layout.of_width(self._blocks.shape[1], features=market.features.shape[2], context=market.context.shape[1])

    def __call__(self, place: int, held: FloatArray, state: FloatArray, work: FloatArray) -> FloatArray:
        row, market = self._first - 1 + place, self._market
        if self._even is not None:
            kernel.aim(self._even, held, self._days[row + 1, kernel.DECIDABLE], self._policy.kappa, work)
            return self._even
        cash_weight = state[kernel.CASH] / state[kernel.VALUE]
        vector = with_book(self._blocks[place], layout=self._layout, held=held, cash_weight=cash_weight)
        scores = self._policy.scores(Observation(as_of=market.sessions[row], symbols=market.symbols, vector=vector))
        work[kernel.WEIGHTS] = weights_from_scores(
            scores, held, market.tradable[row], kappa=self._policy.kappa, leaving=market.leaving[row]
        )
        return scores
