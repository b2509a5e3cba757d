"""`papertape backtest`: one policy in the simulator, over the bundled bars or your own, beside equal weight and the benchmark.

Promise: costs, rules and risk limits are the settings'; equal weight and the benchmark trade the same sessions from the same cash; a model
that was trained on sessions that it trades is reported as in sample. A wrong option (a date, a policy, a word) is a `BacktestError` of one
line that names the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import get_args

import numpy as np
from rich.console import Console
from rich.table import Table

from papertape.market_data.sessions import YEAR, TradingSession, sessions_between
from papertape.research.reference_backtests import Dividends, ReferenceBacktests, policy_of
from papertape.research.study import Study
from trading_env.data.features import FEATURE_HASH
from trading_env.data.market import Market
from trading_env.errors import PapertapeError
from trading_env.evaluation import metrics
from trading_env.evaluation.backtest import BacktestResult
from trading_env.simulation.policy import NumpyPolicy, Policy, PolicyError, load_policy, make_policy


class BacktestError(PapertapeError, ValueError):
    """What was asked cannot be traded; the message names the value and what is allowed."""


def run(study: Study, *, policy: str, start: str, end: str, dividends: str, console: Console) -> None:
    """Backtest and print a table. Empty `start` and `end`: 2020 of the bundled bars, all of one's own; `dividends`: as the settings say."""
    settings, market = study.settings, study.market
    chosen = policy_called(policy)
    (word,) = one_of(get_args(Dividends), [dividends] if dividends else [settings.portfolio.dividends])
    first, last = _period(start, end, default=YEAR if study.bundled else _usable(market))
    sessions = market.sessions.astype(object)
    if first <= sessions[0] or last > sessions[-1] or not any(first <= day <= last for day in sessions):
        raise BacktestError(f"--start and --end must hold a session after {sessions[0]} and up to {sessions[-1]}, were {first} and {last}")
    for line in study.notes:
        console.print(line)
    if isinstance(chosen, NumpyPolicy) and chosen.card.train_end >= first.isoformat():
        console.print(
            f"in sample: this model was trained on {chosen.card.train_start} to {chosen.card.train_end}; its results there are no evidence"
        )
    year = ReferenceBacktests(settings, start=first, end=last, dividends="ignore" if word == "ignore" else "credit", market=market)
    results = {Path(policy).name: year.of(chosen), "equal weight": year.of(make_policy("equal-weight"))}
    if settings.universe.benchmark is not None:
        results[settings.universe.benchmark] = year.benchmark()
    result = next(iter(results.values()))
    console.print(_table(results, title=f"{result.sessions[0]} to {result.sessions[-1]}, dividends {word}"))
    if result.denied:
        console.print(f"{len(result.denied)} orders were denied by the risk limits, the first: {result.denied[0]}")


def _usable(market: Market) -> tuple[date, date]:
    """From the session after the first that can be decided on."""
    rows = np.flatnonzero(market.tradable.any(axis=1))
    if not len(rows) or rows[0] + 1 == len(market):
        raise BacktestError(f"{len(market)} sessions are too few: features need a year of bars before a name can be traded")
    return market.sessions[rows[0] + 1].astype(object), market.sessions[-1].astype(object)


def policy_called(name: str) -> Policy:
    """`equal-weight`, `random:<seed>`, or the artifact in a model.tar.gz or in a folder."""
    path = Path(name)
    try:
        if (path / "model.tar.gz").is_file():
            path = path / "model.tar.gz"
        if path.is_dir():
            return load_policy(path, expected_feature_hash=FEATURE_HASH)
        return policy_of(path.read_bytes()) if path.is_file() else make_policy(name)
    except PolicyError as error:
        if path.exists():
            raise BacktestError(f"--policy {name}: {error}") from error
        allowed = "equal-weight, random:<seed>, a model.tar.gz, or a folder with one or with policy.npz and policy.json"
        raise BacktestError(f"--policy must be {allowed}; there is no {name}") from error


def sessions_of_2020(start: str, end: str) -> list[TradingSession]:
    """The sessions of a period within the replayed year."""
    first, last = _period(start, end, default=YEAR)
    if first < YEAR[0] or last > YEAR[1]:
        raise BacktestError(f"--start and --end must lie between {YEAR[0]} and {YEAR[1]}, were {first} and {last}")
    sessions = [session for session in sessions_between(*YEAR) if first <= date.fromisoformat(session.date) <= last]
    if len(sessions) < 2:
        raise BacktestError(f"--start and --end must hold two sessions or more, {first} to {last} holds {len(sessions)}")
    return sessions


def one_of(allowed: Sequence[str], chosen: Sequence[str] | None) -> tuple[str, ...]:
    """`chosen`, all of `allowed` when that is empty."""
    for word in chosen or ():
        if word not in allowed:
            raise BacktestError(f"{word} is not one of {', '.join(allowed)}")
    return tuple(dict.fromkeys(chosen)) if chosen else tuple(allowed)


def _period(start: str, end: str, *, default: tuple[date, date]) -> tuple[date, date]:
    first = _date("--start", start) if start else default[0]
    last = _date("--end", end) if end else default[1]
    if first > last:
        raise BacktestError(f"--start must not be after --end, were {first} and {last}")
    return first, last


def _date(option: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise BacktestError(f"{option} must be a date like 2020-01-02, was {text}") from error


def _table(results: dict[str, BacktestResult], *, title: str) -> Table:
    table = Table(title=title)
    table.add_column("")
    for name in results:
        table.add_column(name, justify="right")
    for measure, values in zip(_MEASURES, zip(*map(_measures, results.values()), strict=True), strict=True):
        table.add_row(measure, *values)
    return table


_MEASURES = ("sessions", "final equity", "return", "volatility, a year", "Sharpe ratio", "deepest drawdown", "turnover, a session", "costs")


def _measures(result: BacktestResult) -> tuple[str, ...]:
    many = len(result.sessions) > 1
    return (
        f"{len(result.sessions)}",
        f"${result.equity[-1]:,.2f}",
        f"{result.equity[-1] / result.initial_cash - 1:+.2%}",
        f"{metrics.volatility(result.growth):.2%}" if many else "",
        f"{metrics.sharpe(result.growth):.2f}" if many else "",
        f"{metrics.max_drawdown(result.equity, initial=result.initial_cash):.2%}" if many else "",
        f"{np.mean(result.turnover):.2%}",
        f"${result.costs.sum():,.2f}",
    )
