"""Backtest a policy session by session, and judge it against equal weight: the first gate.

Promise: a backtest makes the decisions that live trading would make, through the same observe, weights, plan and fill, and keeps what
a replay can be compared with at every session's close. `gate` passes a policy only if out of sample and net of cost it beats equal
weight by more than luck explains, and gives its reasons as sentences with numbers.
Failure: `EvaluationError` when the market or results do not cover what is asked; accounting, observation and policy errors pass through.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trading_env import metrics, statistics
from trading_env.market import Day, Market
from trading_env.observation import Observation, observe
from trading_env.orders import propose
from trading_env.policy import EqualWeight, Policy, weights_from_scores
from trading_env.portfolio import Book, FloatArray, Plan, Review, Rules, Tape, step
from trading_env.risk import Limits, Situation, check_batch, latch


class EvaluationError(ValueError):
    """The market, the dates or the results do not fit together; the message says which and what is needed."""


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """T sessions of one book, each at its close. Dollars (T,): equity, cash, costs, dividends. `turnover` (T,): buys and sells over
    the equity at the open. (T, A): `scores` and target `weights` decided at the close before, `deltas` executed, `quantities` and
    `held` (share of equity) at the close. `denied`: one line an order that the risk rules took out.
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
        """(T,) log growth of each session, the first from `initial_cash`."""
        return metrics.log_growth(self.equity, initial=self.initial_cash)


def backtest(
    market: Market, policy: Policy, *, rules: Rules, start: Day, end: Day, initial_cash: float, limits: Limits | None = None
) -> BacktestResult:
    """Trade every session from `start` to `end`, both included, from cash. The first decision observes the close before `start`.

    `limits`: apply the risk rules to every session's orders as the executor does; None trades the plan as it is.
    """
    window = market.rows(start, end)
    first = market.index_of(window.sessions[0])
    if first == 0:
        raise EvaluationError(f"the first decision observes the session before {window.sessions[0]}, the market begins there")
    tape = Tape.of(market)
    book = Book.of_cash(initial_cash, assets=len(market.symbols))
    guard = _Guard(market, limits, initial_cash) if limits is not None else None
    records: dict[str, list[FloatArray]] = {name: [] for name in _RECORDED}
    for row in range(first - 1, first - 1 + len(window)):
        closing = tape.closing[[row]]
        held, cash_weight = book.shares(closing)
        vector = observe(market.features[row], market.context[row], market.tradable[row], held[0], float(cash_weight[0]))
        scores = policy.scores(Observation(as_of=market.sessions[row], symbols=market.symbols, vector=vector))
        weights = weights_from_scores(scores[None], held, market.tradable[[row]], kappa=policy.kappa)
        taken = step(book, tape=tape, rows=np.array([row]), weights=weights, rules=rules, review=guard.review if guard else None)
        book = taken.book
        if guard is not None:
            guard.close(float(taken.value[0]))
        record = (taken.value, book.cash, taken.costs, taken.dividends, taken.turnover, scores, weights, taken.deltas, book.quantities)
        for name, value in zip(_RECORDED, (*record, book.shares(tape.closing[[row + 1]])[0]), strict=True):
            records[name].append(np.atleast_2d(value)[0])
    arrays = {name: np.array(values) for name, values in records.items()}
    scalars = {name: arrays.pop(name)[:, 0] for name in _RECORDED[:5]}
    return BacktestResult(
        policy=policy.name,
        symbols=market.symbols,
        initial_cash=float(initial_cash),
        sessions=window.sessions,
        denied=tuple(guard.denied) if guard else (),
        **scalars,
        **arrays,
    )


_RECORDED = ("equity", "cash", "costs", "dividends", "turnover", "scores", "weights", "deltas", "quantities", "held")


def buy_and_hold(market: Market, symbol: str, *, rules: Rules, start: Day, end: Day, initial_cash: float) -> BacktestResult:
    """The benchmark: everything in one name, dividends reinvested as far as `rules` credit them."""
    return backtest(market.only([symbol]), EqualWeight(name=f"hold:{symbol}"), rules=rules, start=start, end=end, initial_cash=initial_cash)


class _Guard:
    """The executor's risk rules in a backtest: what it remembers from session to session, and what it denied."""

    def __init__(self, market: Market, limits: Limits, initial_cash: float) -> None:
        self._market, self._limits = market, limits
        self._peak = self._last = initial_cash
        self._latched: frozenset[str] = frozenset()
        self.denied: list[str] = []
        self.review: Review = self._review

    def close(self, equity: float) -> None:
        self._last, self._peak = equity, max(self._peak, equity)

    def _review(self, plan: Plan) -> FloatArray:
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
            latched=self._latched,
        )
        self._latched = latch(situation, self._limits)
        refused = set()
        for order, verdict in zip(orders, check_batch(orders, situation, self._limits), strict=True):
            if not verdict.allowed:
                refused.add(order.symbol)
                self.denied.append(f"{session} {verdict.rule}: {verdict.detail}")
        return np.where([[symbol in refused for symbol in market.symbols]], 0.0, plan.deltas)


@dataclass(frozen=True)
class GateRules:
    """The bar to clear. `max_turnover`: mean of a day, buys and sells over equity; `min_effective_share`: effective names over names."""

    min_sessions: int = 500
    confidence: float = 0.95
    mean_block: int = 20
    resamples: int = 2000
    seed: int = 0
    max_turnover: float = 0.10
    min_effective_share: float = 1 / 3
    min_score_range: float = 1e-3


@dataclass(frozen=True)
class Verdict:
    """`reasons`: one sentence a rule, the refusals first; `numbers`: what they rest on, each name with its unit."""

    passed: bool
    reasons: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)


def gate(agent: BacktestResult, *, equal_weight: BacktestResult, benchmark: BacktestResult, rules: GateRules | None = None) -> Verdict:
    """Judge `agent` by d = its daily log growth less that of `equal_weight`, over the same sessions, costs and cash.

    Raises EvaluationError when the three results do not cover the same sessions.
    """
    bar = rules if rules is not None else GateRules()
    for other in (equal_weight, benchmark):
        if not np.array_equal(other.sessions, agent.sessions):
            raise EvaluationError(f"results must cover the same sessions, {other.policy} and {agent.policy} do not")
    numbers = _numbers(agent, equal_weight, benchmark, bar)
    checks = [
        (
            numbers["sessions"] >= bar.min_sessions,
            f"{numbers['sessions']:.0f} sessions out of sample, at least {bar.min_sessions} are needed",
        ),
        (
            numbers["excess_bp_per_year"] > 0,
            f"growth net of cost is {numbers['excess_bp_per_year']:+.1f} bp a year against equal weight, it must be above 0",
        ),
        (
            numbers["excess_lower_bp_per_year"] > 0,
            f"the one-sided {bar.confidence:.0%} lower bound of that is {numbers['excess_lower_bp_per_year']:+.1f} bp a year "
            f"(stationary bootstrap, mean block {bar.mean_block}), it must be above 0",
        ),
        (
            numbers["turnover_per_day"] <= bar.max_turnover,
            f"turnover is {numbers['turnover_per_day']:.2%} of equity a day, at most {bar.max_turnover:.2%}",
        ),
        (
            numbers["score_range"] >= bar.min_score_range,
            f"scores move by {numbers['score_range']:.2g} over the period, a constant policy by less than {bar.min_score_range:.2g}",
        ),
        (
            numbers["effective_n"] >= bar.min_effective_share * len(agent.symbols),
            f"{numbers['effective_n']:.1f} effective names of {len(agent.symbols)}, "
            f"at least {bar.min_effective_share * len(agent.symbols):.1f}",
        ),
    ]
    refusals = [f"refused: {sentence}" for held, sentence in checks if not held]
    return Verdict(passed=not refusals, reasons=refusals + [f"passed: {sentence}" for held, sentence in checks if held], numbers=numbers)


def _numbers(agent: BacktestResult, equal_weight: BacktestResult, benchmark: BacktestResult, bar: GateRules) -> dict[str, float]:
    excess = agent.growth - equal_weight.growth
    centred = agent.scores - agent.scores.mean(axis=1, keepdims=True)
    yearly = metrics.SESSIONS_PER_YEAR * 1e4
    return {
        "sessions": float(len(excess)),
        "sharpe": metrics.sharpe(agent.growth),
        "equal_weight_sharpe": metrics.sharpe(equal_weight.growth),
        "benchmark_sharpe": metrics.sharpe(benchmark.growth),
        "annual_return": metrics.annual_return(agent.growth),
        "equal_weight_annual_return": metrics.annual_return(equal_weight.growth),
        "benchmark_annual_return": metrics.annual_return(benchmark.growth),
        "max_drawdown": metrics.max_drawdown(agent.equity, initial=agent.initial_cash),
        "equal_weight_max_drawdown": metrics.max_drawdown(equal_weight.equity, initial=equal_weight.initial_cash),
        "benchmark_max_drawdown": metrics.max_drawdown(benchmark.equity, initial=benchmark.initial_cash),
        "excess_bp_per_year": float(excess.mean() * yearly),
        "excess_lower_bp_per_year": yearly
        * statistics.lower_bound(excess, confidence=bar.confidence, mean_block=bar.mean_block, draws=bar.resamples, seed=bar.seed),
        "tracking_error": metrics.volatility(excess),
        "turnover_per_day": float(agent.turnover.mean()),
        "costs_bp_per_year": float((agent.costs / agent.equity).mean() * yearly),
        "score_range": float(np.ptp(centred, axis=0).max()),
        "effective_n": float(metrics.effective_n(agent.held).mean()),
    }
