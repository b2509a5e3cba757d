"""What people run and import: the command line, market data, research, reports, and the commands of an operator.

In a notebook, with costs and risk limits on as they are when it trades:

    import papertape

    mine = papertape.study("mine.csv", adjusted=True)                    # without a file: the bundled bars
    found = papertape.backtest(mine, "out/train", start="2019-01-02")    # or an object with name, kappa and scores(observation)
    found.skill[10].information_ratio_kappa, found.curve, found.trades
    books = papertape.environment(mine, books=64, end="2018-12-31")      # Gymnasium's vector environment, to train something else in

What a call cannot do raises a `PapertapeError` of one line. Importing this loads nothing; each call imports what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from papertape.research.backtest import ComparedBacktest
    from papertape.research.study import Study
    from trading_env.simulation.env import BatchedTradingEnv
    from trading_env.simulation.policy import Policy

__all__ = ["backtest", "environment", "study"]


def study(
    bars: str | PathLike[str] | None = None,
    *,
    adjusted: bool | None = None,
    actions: str | PathLike[str] | None = None,
    symbols: Sequence[str] = (),
    settings: str | PathLike[str] | None = None,
    slots: str = "",
) -> Study:
    """Bars and the settings that go with them, as the command line reads `--bars`, `--adjusted` or `--raw`, `--actions`, `--symbols`,
    `--settings` and, for minute bars, `--slots`. Without `bars`: the bundled ones, 2005 to 2021. `.market` is what trades, `.settings` how,
    `.notes` what to know of them.
    """
    from pathlib import Path

    from papertape.research.study import StudyOptions
    from papertape.research.study import study as chosen

    file, events, own = (None if path is None else Path(path) for path in (bars, actions, settings))
    return chosen(StudyOptions(settings=own, bars=file, adjusted=adjusted, actions=events, symbols=tuple(symbols), slots=slots))


def backtest(
    study: Study,
    policy: str | PathLike[str] | Policy = "equal-weight",
    *,
    start: str | date | None = None,
    end: str | date | None = None,
    dividends: str = "",
) -> ComparedBacktest:
    """Trade `policy` from `start` to `end`, both included, beside equal weight (daily, and at the policy's kappa) and the benchmark.

    `policy`: what `--policy` takes (equal-weight, random:<seed>, a model, a run's folder), or an object of yours: `name`, `kappa` in
    (0, 1], and `scores(observation)`, one finite number per name. Costs and risk limits are the settings'; `.skill` has excess and
    information ratios at 0, 10 and 20 bp per side. Without dates: as `papertape backtest`.
    """
    from os import fspath

    from papertape.research.backtest import compare

    chosen = fspath(policy) if isinstance(policy, PathLike) else policy
    return compare(study, chosen, start=_day("start", start), end=_day("end", end), dividends=dividends)


def environment(study: Study, *, books: int = 64, start: str | date | None = None, end: str | date | None = None) -> BatchedTradingEnv:
    """`books` books over the study's bars from `start` to `end`, in Gymnasium's vector interface, under the settings' costs, rules, risk
    limits, reward, kappa, episode length and names per episode. Give `end`, and what follows is out of sample.
    """
    from schema.trading_rules import limits_of, rules_of
    from trading_env.simulation.env import BatchedTradingEnv, EnvConfig
    from trading_env.simulation.rewards import Reward

    settings, market = study.settings, study.market
    training, names = settings.training, len(market.symbols)
    config = EnvConfig(
        rules=rules_of(settings),
        kappa=settings.portfolio.kappa,
        episode_sessions=training.episode_sessions,
        initial_value=settings.portfolio.initial_cash,
        limits=limits_of(settings),
        reward=Reward(**settings.reward.model_dump()),
        names=training.names_per_episode if training.names_per_episode < names else None,
    )
    rows = market.rows(_day("start", start) or market.sessions[0], _day("end", end) or market.sessions[-1])
    return BatchedTradingEnv(rows, num_envs=books, config=config)


def _day(option: str, given: str | date | None) -> date | None:
    from papertape.research.backtest import day

    return day(option, given) if isinstance(given, str) else given


def __dir__() -> list[str]:
    return __all__
