"""Where the live book and the backtest part, session by session, in dollars that sum to the whole difference.

The promise is an identity. With `gap` = live equity - backtest equity at a close, a session's `difference` is the change of the gap, and

    difference = carried + model + price + missed + sizing + fees + cash + foreign + marks

to far below a cent for books of any size (`Explained.unexplained` is what float64 leaves; a property test holds it). Each part is computed
from its own causes, none as a remainder. Two ideal sessions stand between backtest and live, both begun with the live book at the close
before: one decides with the backtest's policy from that book, one trades the weights that were decided live.

    carried   the books began the session apart: what the same policy, ideally executed, earns from the live book instead of the backtest's
    model     the weights that were decided are not the policy's (another model, a name left out, no decision)
    price     filled at other prices than the backtest fills at: its sizing price, the open, worsened by the costs that it assumes
    missed    planned live and not filled: the move from the open to the close that the shares did not make, less the costs saved
    sizing    planned live in another quantity than ideally: sized at another price or equity, refused, floored
    fees      fees paid, against those assumed
    cash      cash that no fill explains: dividends that were or were not paid, deposits, cash in lieu, cents rounded
    foreign   what the agent's decision did not order: manual trades, shares that no fill explains, names outside the universe
    marks     the broker's closing prices against the bars'; what it gives today it takes tomorrow

A part is positive where live did better. Amounts are dollars, quantities shares. Failure: `AttributionError` where sessions or prices are
missing; a number that is not finite never passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from math import isfinite

import numpy as np

from trading_env.data.market import Market
from trading_env.data.observation import Observation, observe
from trading_env.errors import PapertapeError
from trading_env.evaluation.backtest import BacktestResult
from trading_env.simulation.policy import Policy, weights_from_scores
from trading_env.simulation.portfolio import Book, ExecutionPrices, FloatArray, Review, Rules, Step, Trades, split_quantity, step


class AttributionError(PapertapeError, ValueError):
    """The books cannot be compared; the message says what is missing."""


@dataclass(frozen=True, kw_only=True)
class LiveBook:
    """The account at a session's close: shares by symbol, and the broker's closing price of each."""

    cash: float
    quantities: Mapping[str, float]
    marks: Mapping[str, float]

    def __post_init__(self) -> None:
        if unmarked := sorted(self.quantities.keys() - self.marks.keys()):
            raise AttributionError(f"every position needs a closing price, {', '.join(unmarked)} has none")

    @property
    def equity(self) -> float:
        return self.cash + sum(shares * self.marks[symbol] for symbol, shares in self.quantities.items())


@dataclass(frozen=True, kw_only=True)
class LiveFill:
    """`quantity` is signed, buys positive. `planned`: of an order that the session's decision planned."""

    symbol: str
    quantity: float
    price: float
    planned: bool = True


@dataclass(frozen=True, kw_only=True)
class LiveDay:
    """One session as it was lived. `weights`: as decided, None without a decision; `plan`: signed shares that it ordered in the end;
    `fees`: dollars of fees that are known to have been paid (others show as `cash`); `close`: the book at its close."""

    session: date
    weights: Mapping[str, float] | None
    plan: Mapping[str, float]
    fills: Sequence[LiveFill]
    close: LiveBook
    fees: float = 0.0


@dataclass(frozen=True, kw_only=True)
class AttributionParts:
    carried: float = 0.0
    model: float = 0.0
    price: float = 0.0
    missed: float = 0.0
    sizing: float = 0.0
    fees: float = 0.0
    cash: float = 0.0
    foreign: float = 0.0
    marks: float = 0.0

    @property
    def execution(self) -> float:
        """All that neither an earlier session nor the model explains."""
        return self.total - self.carried - self.model

    @property
    def total(self) -> float:
        return float(sum(getattr(self, field.name) for field in fields(self)))


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A session: equity at its close, live and backtested, by how much the gap between them changed, and why."""

    session: date
    live: float
    backtest: float
    difference: float
    parts: AttributionParts

    @property
    def unexplained(self) -> float:
        return self.difference - self.parts.total


def explain(
    market: Market,
    days: Sequence[LiveDay],
    *,
    backtested: BacktestResult,
    policy: Policy | None,
    rules: Rules,
    opening: LiveBook | None = None,
    review: Review | None = None,
) -> tuple[Explained, ...]:
    """Explain each of `days` against the same session of `backtested`, which `policy` traded on `market` under `rules`.

    `opening` is the live book before the first day, by default the backtest's initial cash. `policy` None takes the weights decided live
    for the policy's own: then `model` is 0. `review` takes orders out of the ideal sessions as risk limits do; without it they are traded
    as planned, which is right wherever `backtested.denied` is empty. Raises AttributionError.
    """
    sessions = np.array([day.session for day in days], dtype="datetime64[D]")
    if not np.array_equal(sessions, backtested.sessions):
        raise AttributionError(f"live and backtest must be of the same sessions, was {len(sessions)} and {len(backtested.sessions)}")
    prices = ExecutionPrices.of(market)
    before = opening or LiveBook(cash=backtested.initial_cash, quantities={}, marks={})
    last, explained = backtested.initial_cash, []
    for day, session, reached in zip(days, sessions, backtested.equity.tolist(), strict=True):
        row = market.index_of(session) - 1
        ideal = _Ideal(before, prices=prices, row=row, symbols=market.symbols, rules=rules, review=review)
        traded = ideal.trade(day.weights)
        modelled = traded if policy is None else ideal.trade(ideal.decide(market, row, policy))
        parts = replace(
            ideal.execution(day, traded),
            carried=ideal.gain(modelled) - (reached - last),
            model=ideal.gain(traded) - ideal.gain(modelled),
        )
        difference = (day.close.equity - before.equity) - (reached - last)
        explained.append(
            Explained(session=day.session, live=day.close.equity, backtest=reached, difference=difference, parts=_finite(parts, day))
        )
        before, last = day.close, reached
    return tuple(explained)


def execution(
    day: LiveDay, *, before: LiveBook, prices: ExecutionPrices, row: int, symbols: Sequence[str], rules: Rules
) -> AttributionParts:
    """The parts of execution alone: `day` against the ideal session of its own weights, from the book `before` at the close of `row` of
    `prices` (columns in the order of `symbols`) to the next row. Carried and model are 0. Raises AttributionError."""
    ideal = _Ideal(before, prices=prices, row=row, symbols=symbols, rules=rules)
    return _finite(ideal.execution(day, ideal.trade(day.weights)), day)


class _Ideal:
    """One session begun with the live book, traded as the backtest trades."""

    def __init__(
        self, before: LiveBook, *, prices: ExecutionPrices, row: int, symbols: Sequence[str], rules: Rules, review: Review | None = None
    ) -> None:
        if not 0 <= row < len(prices) - 1:
            raise AttributionError(f"a session needs the one before it, rows 0 to {len(prices) - 2}, was {row}")
        self._before, self._symbols, self._rules, self._review = before, tuple(symbols), rules, review
        self._prices = ExecutionPrices(**{field.name: getattr(prices, field.name)[row : row + 2] for field in fields(ExecutionPrices)})
        self._held = self._column(before.quantities)
        # A debt, which worse prices than sized at may leave, buys nothing; as a constant it is in no difference
        self._book = Book(cash=np.array([max(before.cash, 0.0)]), quantities=self._held[None])
        self._worth = float(self._book.value(self._prices.closing[:1])[0])

    def trade(self, weights: Mapping[str, float] | None) -> Step:
        """The session with these weights: a name without one is not traded."""
        named = np.array([weights is not None and symbol in weights for symbol in self._symbols])
        wanted = Trades(signs=np.zeros((1, len(named))), share=0.0) if weights is None else self._column(weights)[None]
        prices = replace(self._prices, decidable=np.broadcast_to(named, (2, len(named))))
        return step(self._book, prices=prices, rows=np.array([0]), weights=wanted, rules=self._rules, review=self._review)

    def decide(self, market: Market, row: int, policy: Policy) -> dict[str, float]:
        """What `policy` decides at the close of `row` with the live book."""
        equity = self._worth + _worth_outside(self._before, self._symbols)
        held, tradable = _value(self._held, self._prices.closing[0]) / equity, market.tradable[row]
        vector = observe(market.features[row], market.context[row], tradable, held, self._before.cash / equity)
        scores = policy.scores(Observation(as_of=market.sessions[row], symbols=market.symbols, vector=vector))
        weights = weights_from_scores(scores, held, tradable, kappa=policy.kappa)
        return {symbol: float(weight) for symbol, weight, trades in zip(self._symbols, weights, tradable, strict=True) if trades}

    def gain(self, taken: Step) -> float:
        return float(taken.value[0]) - self._worth

    def execution(self, day: LiveDay, ideal: Step) -> AttributionParts:
        """What lies between the ideal session and the live close, cause by cause."""
        opens, closes, split = self._prices.opening[1], self._prices.closing[1], self._prices.split[1]
        adverse, fee = self._rules.costs.adverse, self._rules.costs.fee
        wanted, plan = ideal.deltas[0], self._column(day.plan)
        ours, others = ([one for one in day.fills if (one.planned and one.symbol in self._symbols) is is_ours] for is_ours in (True, False))
        filled, size = self._sum(ours), self._sum(ours, absolute=True)

        # What the ideal session pays: its costs are slippage and spread by the rules' rate, fees, impact, and what a split's floor loses
        kept = split_quantity(self._held, split)
        lost = _dollars(self._held * split - kept, opens)
        spread = adverse * _dollars(np.abs(wanted), opens)
        assumed_fees = fee * (_dollars(np.abs(wanted), opens) + adverse * _dollars(wanted, opens))
        impact = float(ideal.costs[0]) - lost - spread - assumed_fees

        def earned(shares: FloatArray, volume: FloatArray) -> float:
            """By `shares` between the open and the close, less the rules' costs of trading `volume`."""
            return _dollars(shares, closes) - _dollars(shares, opens) - adverse * _dollars(volume, opens)

        now, then = self._column(day.close.quantities), self._held
        strangers = now - kept - filled
        return AttributionParts(
            price=_dollars(filled, opens) + adverse * _dollars(size, opens) + impact - _paid(ours),
            missed=earned(filled - plan, size - np.abs(plan)),
            sizing=earned(plan - wanted, np.abs(plan) - np.abs(wanted)),
            fees=assumed_fees - day.fees,
            cash=day.close.cash - self._before.cash + _paid(day.fills) + day.fees - float(ideal.dividends[0]),
            foreign=_dollars(strangers, closes)
            + _worth_outside(day.close, self._symbols)
            - _worth_outside(self._before, self._symbols)
            - _paid(others),
            marks=_dollars(now, self._column(day.close.marks) - closes)
            - _dollars(then, self._column(self._before.marks) - self._prices.closing[0]),
        )

    def _column(self, by_symbol: Mapping[str, float]) -> FloatArray:
        return np.array([float(by_symbol.get(symbol, 0.0)) for symbol in self._symbols])

    def _sum(self, fills: Sequence[LiveFill], *, absolute: bool = False) -> FloatArray:
        total = dict.fromkeys(self._symbols, 0.0)
        for fill in fills:
            total[fill.symbol] += abs(fill.quantity) if absolute else fill.quantity
        return self._column(total)


def _paid(fills: Sequence[LiveFill]) -> float:
    return sum(fill.quantity * fill.price for fill in fills)


def _worth_outside(book: LiveBook, symbols: Sequence[str]) -> float:
    return sum(shares * book.marks[symbol] for symbol, shares in book.quantities.items() if symbol not in symbols)


def _value(quantities: FloatArray, prices: FloatArray) -> FloatArray:
    """By name; a price matters only where there is a quantity."""
    return np.where(quantities == 0, 0.0, quantities * prices)


def _dollars(quantities: FloatArray, prices: FloatArray) -> float:
    return float(_value(quantities, prices).sum())


def _finite(parts: AttributionParts, day: LiveDay) -> AttributionParts:
    for field in fields(parts):
        if not isfinite(value := getattr(parts, field.name)):
            raise AttributionError(f"{day.session}: {field.name} must be finite, was {value}: a name that was traded or held has no price")
    return parts
