"""A backtest as a page shows it: one JSON document of columns, with equal weight and the benchmark beside it.

Promise: decisions, costs and risk limits are those of `papertape backtest`; what is written is enough to draw equity, drawdown, weights and
every trade. Failure: `BacktestError` and what trading raises, one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from papertape.research.backtest import BacktestError, Skill
from papertape.research.compiled_backtest import compiled_backtest, prices_of
from papertape.research.policies import in_sample, said
from papertape.research.study import Study
from schema.runs.request import BacktestOf
from schema.trading_rules import limits_of, rules_of
from trading_env.data.market import Market
from trading_env.evaluation import metrics
from trading_env.evaluation.backtest import BacktestResult
from trading_env.simulation.policy import EqualWeight, Policy

SCHEMA = 1
WEIGHT_ROWS = 600  # of a chart of weights; every so many sessions, the last among them
CANDLES_OF = 50  # names, at the most


def traded(study: Study, policy: Policy, asked: BacktestOf) -> dict[str, Any]:
    """`backtest.json`. Dollars at each session's close; `trades` in order, `session` and `name` being places in the lists above them."""
    first, last = _span(study, asked)
    settings, market = study.settings, study.market
    rules, cash = rules_of(settings), settings.portfolio.initial_cash

    def trade(one: Policy, where: Market = market, *, limited: bool = False) -> BacktestResult:
        limits = limits_of(settings) if limited else None
        return compiled_backtest(where, one, start=first, end=last, rules=rules, initial_cash=cash, limits=limits)

    own = trade(policy, limited=True)
    daily = trade(EqualWeight())
    slow = daily if policy.kappa == 1 else trade(EqualWeight(name="equal weight at kappa", kappa=policy.kappa))
    name = settings.universe.benchmark
    benchmark = None if name is None else trade(EqualWeight(name=f"hold:{name}"), market.alone(name))
    inside = in_sample(policy, own.sessions)
    skill = Skill.of(own, daily=daily, kappa=slow) if len(own.sessions) > 1 else None
    rows = _every(len(own.sessions), WEIGHT_ROWS)
    return {
        "schema": SCHEMA,
        "policy": asked.policy,
        "kappa": policy.kappa,
        "start": str(own.sessions[0]),
        "end": str(own.sessions[-1]),
        "initial_cash": own.initial_cash,
        "symbols": list(own.symbols),
        "sessions": [str(day) for day in own.sessions],
        "equity": _dollars(own.equity),
        "equal_weight": _dollars(daily.equity),
        "benchmark": None if benchmark is None else {"name": name, "equity": _dollars(benchmark.equity)},
        "drawdown": np.round(metrics.drawdown(own.equity, initial=own.initial_cash), 5).tolist(),
        "in_sample": {"sessions": int(inside.sum()), "last": str(own.sessions[inside][-1]) if inside.any() else None},
        "metrics": {
            "policy": _measures(own),
            "equal_weight": _measures(daily),
            "benchmark": None if benchmark is None else _measures(benchmark),
            "against_equal_weight": None if skill is None else {key: _number(value) for key, value in vars(skill).items()},
        },
        "weights": {"sessions": rows.tolist(), "held": np.round(own.held[rows], 4).T.tolist()},
        "trades": _trades(own, market),
        "notes": [*study.notes, *(line for line in said(policy, own.sessions) if "/seeds/" not in line)],
    }


def candles(study: Study, document: Mapping[str, Any]) -> dict[str, Any] | None:
    """`candles.json`: open, high, low and close of each name on the backtest's sessions, None where it has no bar; None for many names."""
    market = study.market
    if len(market.symbols) > CANDLES_OF:
        return None
    first = market.index_of(np.datetime64(document["start"]))
    rows = slice(first, first + len(document["sessions"]))
    columns = {"open": market.open, "high": market.high, "low": market.low, "close": market.close}
    return {
        "sessions": document["sessions"],
        "symbols": {
            name: {column: _prices(values[rows, place]) for column, values in columns.items()} for place, name in enumerate(market.symbols)
        },
    }


def _span(study: Study, asked: BacktestOf) -> tuple[date, date]:
    sessions = study.market.sessions
    usable = np.flatnonzero(study.market.tradable.any(axis=1))
    if not len(usable) or usable[0] + 1 == len(sessions):
        raise BacktestError(f"{len(sessions)} sessions are too few: features need a year of bars before a name can be traded")
    try:
        first, last = date.fromisoformat(asked.start), date.fromisoformat(asked.end)
    except ValueError as error:
        raise BacktestError(f"start and end must be days of the calendar, were {asked.start} and {asked.end}") from error
    least = sessions[usable[0] + 1].astype(object)
    if first > last or last < least or first > sessions[-1].astype(object):
        raise BacktestError(f"start and end must lie within {least} and {sessions[-1]}, in this order, were {first} and {last}")
    first, last = max(first, least), min(last, sessions[-1].astype(object))
    if not ((sessions >= np.datetime64(first)) & (sessions <= np.datetime64(last))).any():
        raise BacktestError(f"start and end must hold a session, {first} to {last} holds none")
    return first, last


def _trades(own: BacktestResult, market: Market) -> dict[str, list[Any]]:
    """`shares` signed, `price` the open (else the last mark) in dollars before costs, `cost` a trade's part of the session's costs, by its
    share of what was traded."""
    rows, names = np.nonzero(own.deltas)
    price = prices_of(market).opening[market.index_of(own.sessions[0]) + rows, names]
    shares = own.deltas[rows, names]
    notional = np.abs(shares * price)
    of_session = np.bincount(rows, weights=notional, minlength=len(own.sessions))
    cost = own.costs[rows] * notional / of_session[rows]
    return {
        "session": rows.tolist(),
        "name": names.tolist(),
        "shares": np.round(shares, 4).tolist(),
        "price": np.round(price, 4).tolist(),
        "cost": np.round(cost, 2).tolist(),
    }


def _measures(book: BacktestResult) -> dict[str, float | None]:
    growth, several = book.growth, len(book.growth) > 1
    measured = {
        "return": book.equity[-1] / book.initial_cash - 1,
        "annual_return": metrics.annual_return(growth) if several else np.nan,
        "volatility": metrics.volatility(growth) if several else np.nan,
        "sharpe": metrics.sharpe(growth) if several else np.nan,
        "max_drawdown": float(metrics.drawdown(book.equity, initial=book.initial_cash).max()),
        "turnover_per_day": float(book.turnover.mean()),
        "costs": float(book.costs.sum()),
        "dividends": float(book.dividends.sum()),
    }
    return {name: _number(value) for name, value in measured.items()}


def _every(count: int, most: int) -> NDArray[np.int64]:
    step = -(-count // most)
    return np.arange(count - 1, -1, -step)[::-1]


def _dollars(values: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.round(values, 2)]


def _prices(values: NDArray[np.float64]) -> list[float | None]:
    return [None if value != value else value for value in np.round(values, 4).tolist()]


def _number(value: float) -> float | None:
    """None where it is not defined."""
    return round(float(value), 6) if np.isfinite(value) else None
