"""Backtest a policy row by row: session by session, or slot by slot.

Promise: a backtest makes the decisions that live trading would make, through the same observe, weights, plan, fill and risk rules, and
keeps what a replay can be compared with at every row's close. Limits of a day are those of a session, however many slots it has. gate.py
judges it, by sessions.
Failure: `EvaluationError` when the market does not cover what is asked; accounting, observation and policy errors pass through.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading_env.data.market import Day, Market
from trading_env.data.observation import Layout, Observation, market_block, with_book
from trading_env.errors import PapertapeError
from trading_env.evaluation import metrics
from trading_env.orders.orders import propose
from trading_env.orders.risk import Limits, Situation, check_batch, latch
from trading_env.simulation.policy import EqualWeight, Policy, weights_from_scores
from trading_env.simulation.portfolio import Book, ExecutionPrices, FloatArray, Review, Rules, TradePlan, step


class EvaluationError(PapertapeError, ValueError):
    """The market does not cover the dates; the message says what is needed."""


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """T rows of one book, each at its close, and their keys, `sessions`.

    Dollars (T,): equity, cash, costs, dividends. `turnover` (T,): buys and sells over the equity at the open. (T, A): `scores` and target
    `weights` decided at the close before, `deltas` executed, `quantities` and `held` (share of equity) at the close. `denied`: one line
    per order that the risk rules took out.
    """

    policy: str
    symbols: tuple[str, ...]
    initial_cash: float
    sessions: NDArray[np.datetime64]
    equity: FloatArray
    cash: FloatArray
    costs: FloatArray
    dividends: FloatArray
    turnover: FloatArray
    scores: FloatArray
    weights: FloatArray
    deltas: FloatArray
    quantities: FloatArray
    held: FloatArray
    denied: tuple[str, ...] = ()

    @property
    def growth(self) -> FloatArray:
        """(T,) log growth of each row, the first from `initial_cash`."""
        return metrics.log_growth(self.equity, initial=self.initial_cash)

    def by_session(self) -> BacktestResult:
        """The same book at the closes of the sessions, which is what is judged; itself where a row is a session.

        Costs, dividends, turnover and deltas are a session's sums; scores and weights those of its last decision.
        """
        days = self.sessions.astype("datetime64[D]")
        if days.dtype == self.sessions.dtype:
            return self
        firsts = np.flatnonzero(np.append(True, days[1:] != days[:-1]))
        lasts = np.append(firsts[1:], len(days)) - 1
        ends: dict[str, Any] = {name: getattr(self, name)[lasts] for name in ("equity", "cash", "scores", "weights", "quantities", "held")}
        sums: dict[str, Any] = {name: np.add.reduceat(getattr(self, name), firsts) for name in ("costs", "dividends", "turnover", "deltas")}
        return replace(self, sessions=days[lasts], **ends, **sums)


STANDARD_RULES, STANDARD_LIMITS = Rules(), Limits()


def backtest(
    market: Market,
    policy: Policy,
    *,
    start: Day,
    end: Day,
    rules: Rules = STANDARD_RULES,
    initial_cash: float = 100_000.0,
    limits: Limits | None = STANDARD_LIMITS,
) -> BacktestResult:
    """Trade every row from `start` to `end`, both included, from cash. The first decision observes the close before `start`.

    Costs and limits are on by default, as in the bundled bars' settings. `limits`: apply the risk rules to every session's orders as the
    executor does; None trades the plan as it is.
    """
    window = market.rows(start, end)
    first = market.index_of(window.sessions[0])
    if first == 0:
        raise EvaluationError(f"the first decision observes the session before {window.sessions[0]}, the market begins there")
    prices = _prices_of(market)
    rows = slice(first - 1, first - 1 + len(window))
    blocks = market_block(market.features[rows], market.context[rows], market.tradable[rows])
    layout = Layout.of_width(blocks.shape[1], features=market.features.shape[2], context=market.context.shape[1])
    book = Book.of_cash(initial_cash, assets=len(market.symbols))
    guard = _Guard(market, limits, initial_cash) if limits is not None else None
    records: dict[str, list[FloatArray | np.float64]] = {name: [] for name in _RECORDED}
    held, cash_weight = book.shares(prices.closing[[first - 1]])
    for row, block in enumerate(blocks, start=first - 1):
        vector = with_book(block, layout=layout, held=held[0], cash_weight=float(cash_weight[0]))
        scores = policy.scores(Observation(as_of=market.sessions[row], symbols=market.symbols, vector=vector))
        weights = weights_from_scores(scores[None], held, market.tradable[[row]], kappa=policy.kappa, leaving=market.leaving[[row]])
        taken = step(book, prices=prices, rows=np.array([row]), weights=weights, rules=rules, review=guard.review if guard else None)
        book = taken.book
        if guard is not None:
            guard.close(float(taken.value[0]))
        held, cash_weight = book.shares(prices.closing[[row + 1]])
        dollars = (taken.value[0], book.cash[0], taken.costs[0], taken.dividends[0], taken.turnover[0])
        by_name = (scores, weights[0], taken.deltas[0], book.quantities[0], held[0])
        for name, value in zip(_RECORDED, (*dollars, *by_name), strict=True):
            records[name].append(value)
    arrays = {name: np.array(values) for name, values in records.items()}
    return BacktestResult(
        policy=policy.name,
        symbols=market.symbols,
        initial_cash=float(initial_cash),
        sessions=window.sessions,
        denied=tuple(guard.denied) if guard else (),
        **arrays,
    )


_prices_of = lru_cache(maxsize=2)(ExecutionPrices.of)  # a judgement trades one market a hundred times
_RECORDED = ("equity", "cash", "costs", "dividends", "turnover", "scores", "weights", "deltas", "quantities", "held")


def buy_and_hold(market: Market, symbol: str, *, rules: Rules, start: Day, end: Day, initial_cash: float) -> BacktestResult:
    """The benchmark: everything in one name, dividends reinvested as far as `rules` credit them; no limits, for they forbid that."""
    policy = EqualWeight(name=f"hold:{symbol}")
    return backtest(market.alone(symbol), policy, rules=rules, start=start, end=end, initial_cash=initial_cash, limits=None)


class _Guard:
    """The executor's risk rules in a backtest: what it remembers within a session and from one to the next, and what it denied."""

    def __init__(self, market: Market, limits: Limits, initial_cash: float) -> None:
        self._market, self._limits, self._ends = market, limits, market.ends_session
        self._restricted = np.isin(market.symbols, limits.restricted)
        self._peak = self._last = initial_cash
        self._row, self._traded, self._orders = 0, 0.0, 0  # the row that fills, and what its session has traded so far
        self._latched: frozenset[str] = frozenset()
        self.denied: list[str] = []
        self.review: Review = self._review

    def close(self, equity: float) -> None:
        if self._ends[self._row]:
            self._last, self._peak = equity, max(self._peak, equity)
            self._traded, self._orders = 0.0, 0

    def _review(self, plan: TradePlan) -> FloatArray:
        self._row = int(plan.rows[0]) + 1
        deltas = plan.deltas if self._allows_all(plan) else self._judged(plan)
        traded = deltas[0] != 0
        self._orders += int(traded.sum())
        self._traded += float((np.abs(deltas[0]) * plan.prices[0])[traded].sum())
        return deltas

    def _allows_all(self, plan: TradePlan) -> bool:
        """Whether no rule of `risk.RULES` can deny any of these orders, or break: each with a hair's room, so that it never errs that way.

        What says no is judged order by order; most sessions need not be, and orders in Decimal are most of a backtest's time.
        """
        limits, deltas, prices, before = self._limits, plan.deltas[0], plan.prices[0], plan.book.quantities[0]
        equity, after = float(plan.book.value(plan.prices)[0]), before + deltas
        notional = np.where(deltas == 0, 0.0, np.abs(deltas) * prices)
        exposure = np.where(after == 0, 0.0, after * prices)
        traded, bought = deltas != 0, deltas > 0
        return bool(
            not self._latched
            and equity > 0
            and 1 - equity / self._peak <= limits.max_drawdown
            and 1 - equity / self._last <= limits.max_daily_loss
            and limits.max_bar_age_sessions >= 1
            and limits.max_quote_age_minutes >= 0
            and limits.price_collar >= 0
            and not (bought & self._restricted).any()
            and (notional[traded] > 0).all()
            and (notional <= limits.max_order_notional * _ROOM).all()
            and (after >= 0).all()
            and self._orders + traded.sum() <= limits.max_orders_per_day
            and self._traded + notional.sum() <= limits.max_turnover_per_day * equity * _ROOM
            and (exposure[bought] <= limits.max_weight * equity * _ROOM).all()
            and (exposure.sum() <= limits.max_gross * equity * _ROOM or not bought.any())
        )

    def _judged(self, plan: TradePlan) -> FloatArray:
        market, session = self._market, str(self._market.sessions[int(plan.rows[0]) + 1])
        orders = propose(strategy="backtest", slot=session, symbols=market.symbols, deltas=plan.deltas[0], prices=plan.prices[0])
        situation = Situation(
            equity=float(plan.book.value(plan.prices)[0]),
            positions=dict(zip(market.symbols, plan.book.quantities[0].tolist(), strict=True)),
            prices=dict(zip(market.symbols, plan.prices[0].tolist(), strict=True)),
            peak_equity=self._peak,
            last_close_equity=self._last,
            state="active",
            bar_age_sessions=1,
            traded_today=self._traded,
            orders_today=self._orders,
            latched=self._latched,
        )
        self._latched = latch(situation, self._limits)
        refused = set()
        for order, verdict in zip(orders, check_batch(orders, situation, self._limits), strict=True):
            if not verdict.allowed:
                refused.add(order.symbol)
                self.denied.append(f"{session} {verdict.rule}: {verdict.detail}")
        return np.where([[symbol in refused for symbol in market.symbols]], 0.0, plan.deltas)


_ROOM = 1 - 1e-9
