"""One policy in the simulator, over the bundled bars or your own, beside equal weight and the benchmark.

Promise: costs, rules and risk limits are the settings'. Equal weight daily, equal weight at the policy's own kappa and the benchmark trade
the same sessions from the same cash, without the risk limits, as in an evaluation; so over the judged sessions of a run the numbers are
its evaluation's. Which sessions are in sample is part of the result. A wrong option (a date, a policy, a word) is a `BacktestError` of
one line that names the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from papertape.market_data.sessions import YEAR, TradingSession, sessions_between
from papertape.research.policies import WalkedRun, in_sample, policy_called, said
from papertape.research.reference_backtests import Dividends, ReferenceBacktests
from papertape.research.study import Study, too_few
from trading_env.data.market import Market, table_within
from trading_env.errors import PapertapeError
from trading_env.evaluation import scorecard
from trading_env.evaluation.backtest import BacktestResult
from trading_env.simulation.policy import EqualWeight, Policy

COSTS = (0, 10, 20)  # basis points per side, as an evaluation judges them
DAILY, KAPPA = "equal weight daily", "equal weight at kappa"


class BacktestError(PapertapeError, ValueError):
    """What was asked cannot be traded; the message names the value and what is allowed."""


@dataclass(frozen=True)
class Skill:
    """Against equal weight rebalanced daily, and (`_kappa`) with the policy's own kappa, from d, the daily difference of log growth: excess
    252 x mean d in bp per year; information ratio of a year; tracking error sqrt(252) x deviation of d, a share. NaN where d is constant.
    """

    excess_bp: float
    information_ratio: float
    excess_kappa_bp: float
    information_ratio_kappa: float
    tracking_error: float

    @classmethod
    def of(cls, result: BacktestResult, *, daily: BacktestResult, kappa: BacktestResult) -> Skill:
        found = scorecard.measures(result.by_session(), equal_weight=daily.by_session(), at_kappa=kappa.by_session())
        names = ("excess_bp_per_year", "information_ratio", "excess_at_kappa_bp_per_year", "information_ratio_at_kappa", "tracking_error")
        return cls(*(found[name] for name in names))


@dataclass(frozen=True, eq=False)
class ComparedBacktest:
    """A backtest and what it is compared with, over the same T rows.

    `policy`, `equal_weight`, `equal_weight_at_kappa`, `benchmark` (None when the universe has none): at the settings' costs.
    Books have a row per session, or per slot bar. `skill`: by cost in bp per side, of sessions, empty for fewer than two.
    `in_sample` (T,): the model that traded was trained on the session. `notes`: what a user should know of it, a line each.
    """

    policy: BacktestResult
    equal_weight: BacktestResult
    equal_weight_at_kappa: BacktestResult
    benchmark: BacktestResult | None
    skill: dict[int, Skill]
    in_sample: NDArray[np.bool_]
    kappa: float
    dividends: str
    market: Market
    notes: tuple[str, ...] = ()

    @property
    def curve(self) -> pd.DataFrame:
        """One row per session or slot bar, at its close, dollars: the policy's book, the equity of what it is compared with; in_sample."""
        own = self.policy
        columns = {name: getattr(own, name) for name in ("equity", "cash", "costs", "dividends", "turnover")}
        others = {"equal_weight_daily": self.equal_weight, "equal_weight_at_kappa": self.equal_weight_at_kappa}
        others |= {} if self.benchmark is None else {"benchmark": self.benchmark}
        equities = {f"{name}_equity": result.equity for name, result in others.items()}
        return pd.DataFrame({"session": own.sessions, **columns, **equities, "in_sample": self.in_sample})

    @property
    def weights(self) -> pd.DataFrame:
        """One row per session and name: score and target decided at the close before, quantity and share of equity held at the close."""
        own = self.policy
        wide = {"score": own.scores, "target": own.weights, "quantity": own.quantities, "held": own.held}
        keys = {"session": np.repeat(own.sessions, len(own.symbols)), "symbol": np.tile(own.symbols, len(own.sessions))}
        return pd.DataFrame({**keys, **{name: values.ravel() for name, values in wide.items()}})

    @property
    def trades(self) -> pd.DataFrame:
        """One row per fill, in order: signed shares at the session's open, before costs in dollars per share, and their product."""
        own = self.policy
        first = self.market.index_of(own.sessions[0])
        opens = self.market.open[first : first + len(own.sessions)]
        rows, names = np.nonzero(own.deltas)
        quantity, price = own.deltas[rows, names], opens[rows, names]
        return pd.DataFrame(
            {
                "session": own.sessions[rows],
                "symbol": np.array(own.symbols)[names],
                "side": np.where(quantity > 0, "buy", "sell"),
                "quantity": quantity,
                "open": price,
                "notional": quantity * price,
            }
        )


def compare(
    study: Study,
    policy: str | Policy,
    *,
    start: date | None = None,
    end: date | None = None,
    dividends: str = "",
) -> ComparedBacktest:
    """Trade `policy`, a name as `--policy` takes it or an object, from `start` to `end`, both included.

    Without dates: 2020 of the bundled bars, all that can be traded of one's own, all that is out of sample of a run's folder.
    """
    settings, market = study.settings, study.market
    table = table_within(market)
    chosen = policy
    if isinstance(chosen, str):
        chosen = policy_called(chosen, sessions=market.sessions, feature_hash=table.hash, slots=settings.row_slots)
    (word,) = one_of(get_args(Dividends), [dividends] if dividends else [settings.portfolio.dividends])
    first, last = _span(study, chosen, start=start, end=end)
    credited: Dividends = "ignore" if word == "ignore" else "credit"
    books, once = (
        ReferenceBacktests(settings, start=first, end=last, dividends=credited, market=one) for one in (market, market.decided_daily())
    )
    daily, slow = EqualWeight(name=DAILY), EqualWeight(name=KAPPA, kappa=chosen.kappa)
    traded = books.of(chosen)
    skill = {}
    if len(traded.by_session().sessions) > 1:
        for cost in COSTS:
            skill[cost] = Skill.of(
                books.of(chosen, cost_bps=cost),
                daily=once.of(daily, limited=False, cost_bps=cost),
                kappa=books.of(slow, limited=False, cost_bps=cost),
            )
    return ComparedBacktest(
        policy=traded,
        equal_weight=once.of(daily, limited=False),
        equal_weight_at_kappa=books.of(slow, limited=False),
        benchmark=None if settings.universe.benchmark is None else books.benchmark(),
        skill=skill,
        in_sample=in_sample(chosen, traded.sessions),
        kappa=chosen.kappa,
        dividends=word,
        market=market,
        notes=(*study.notes, *said(chosen, traded.by_session().sessions)),
    )


def _span(study: Study, policy: Policy, *, start: date | None, end: date | None) -> tuple[date, date]:
    earliest, latest = _usable(study.market)
    first, last = earliest, latest
    if start is None and end is None and study.bundled:
        first, last = YEAR
    elif start is None and isinstance(policy, WalkedRun):
        first = max(first, date.fromisoformat(policy.folds[0].test_start))
    first, last = start or first, end or last
    if first > last:
        raise BacktestError(f"--from must not be after --to, were {first} and {last}")
    sessions = np.unique(study.market.days).astype(object)
    if first <= sessions[0] or last > sessions[-1] or not any(first <= day <= last for day in sessions):
        raise BacktestError(f"--from and --to must hold a session after {sessions[0]} and up to {sessions[-1]}, were {first} and {last}")
    if first < earliest:
        raise BacktestError(f"--from must be {earliest} or later, for before it no name has all its features, was {first}")
    return first, last


def _usable(market: Market) -> tuple[date, date]:
    """From the first session all of whose rows follow one that can be decided on."""
    rows = np.flatnonzero(market.tradable.any(axis=1))
    begins = np.flatnonzero(np.append(True, market.ends_session[:-1]))
    after = begins[begins > rows[0]] if len(rows) else begins[:0]
    if not len(after):
        raise BacktestError(too_few(market))
    return market.days[after[0]].astype(object), market.days[-1].astype(object)


def sessions_of_2020(start: str, end: str) -> list[TradingSession]:
    """The sessions of a period within the replayed year."""
    first, last = day("--start", start) or YEAR[0], day("--end", end) or YEAR[1]
    if first > last:
        raise BacktestError(f"--start must not be after --end, were {first} and {last}")
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


def day(option: str, text: str) -> date | None:
    """The date that an option was given, None when it was not."""
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise BacktestError(f"{option} must be a date like 2020-01-02, was {text}") from error
