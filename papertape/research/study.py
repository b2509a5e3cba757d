"""What the research commands work on: a market of the bundled bars or of your own, and the settings that go with it.

Promise: with bars of your own and no settings file of your own, what depends on the bars follows from them, and `notes` says what: the
universe, the benchmark if it is among them, the dates, and as many orders per day as one rebalancing takes. A settings file of your own is
taken at its word, an option above it. Failure: `ResearchError`, `OwnBarsError` or `SettingsError`, one line each.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from papertape.market_data import bundled
from papertape.market_data.own_bars import read_own_bars
from schema.settings import Settings, checked, load, quick
from trading_env.data.market import Market, build_market
from trading_env.errors import PapertapeError
from trading_env.evaluation.lookahead import History
from trading_env.evaluation.walk_forward import MIN_TRAINING

SETTINGS = Path(__file__).resolve().parents[2] / "data" / "settings.toml"
TRAINED_SHARE = 3  # a third of the sessions lie before the first test, or as many as training needs


class ResearchError(PapertapeError, ValueError):
    """What was options does not fit the bars; the message names the option or setting and what is allowed."""


@dataclass(frozen=True)
class StudyOptions:
    """The options of a command line that choose bars and settings; None and empty are "not given"."""

    settings: Path | None = None
    bars: Path | None = None
    adjusted: bool | None = None
    actions: Path | None = None
    symbols: tuple[str, ...] = ()
    start: date | None = None
    test_start: date | None = None
    live_start: date | None = None
    folds: int | None = None
    seeds: int | None = None
    timesteps: int | None = None
    quick: bool = False


@dataclass(frozen=True)
class Study:
    """`history`: the bars and events that `market` is built from; `notes`: what a user should know, a line each; `arguments`: what another
    command needs for the same bars.
    """

    settings: Settings
    history: History
    market: Market
    notes: tuple[str, ...]
    bundled: bool
    arguments: str


def study(options: StudyOptions) -> Study:
    """Read the bars, build the market, settle the settings."""
    base = load(options.settings or SETTINGS)
    history, symbols, notes = _bars(options, base)
    market = build_market(history.bars, history.actions, symbols=symbols)
    follows = _follows(options, base, market) if options.bars is not None and options.settings is None else {}
    settings = _settings(quick(base) if options.quick else base, options, symbols=symbols, follows=follows)
    if settings.risk.max_orders_per_day < len(symbols):
        raise ResearchError(
            f"risk.max_orders_per_day must be {len(symbols)} or more, one rebalancing of {len(symbols)} names, was "
            f"{settings.risk.max_orders_per_day}; set it in {options.settings or SETTINGS.name}"
        )
    if follows:
        training = settings.training
        notes.append(
            f"dates from the bars: training from {training.start}, tests from {training.test_start}, nothing from {training.live_start} on"
        )
    return Study(settings, history, market, tuple(notes), bundled=options.bars is None, arguments=_arguments(options))


def _arguments(options: StudyOptions) -> str:
    words = [] if options.bars is None else ["--bars", str(options.bars)]
    words += {True: ["--adjusted"], False: ["--raw"], None: []}[options.adjusted]
    words += [] if options.actions is None else ["--actions", str(options.actions)]
    words += ["--symbols", ",".join(options.symbols)] if options.symbols else []
    return "".join(f" {shlex.quote(word)}" for word in words)


def history(options: StudyOptions) -> tuple[History, tuple[str, ...], list[str]]:
    """The bars and events alone, their names, and what a user should know of them."""
    return _bars(options, load(options.settings or SETTINGS))


def _bars(options: StudyOptions, base: Settings) -> tuple[History, tuple[str, ...], list[str]]:
    if options.bars is not None:
        own = read_own_bars(options.bars, adjusted=options.adjusted, actions=options.actions, symbols=options.symbols)
        return History(own.bars, own.actions), options.symbols or own.symbols, own.sentences
    if options.adjusted is not None or options.actions is not None:
        raise ResearchError("--adjusted, --raw and --actions are for bars of your own: give them with --bars FILE")
    daily, symbols = bundled.daily_bars(), options.symbols or base.universe.symbols
    bundled_names = sorted(daily["symbol"].unique())
    absent = [symbol for symbol in symbols if symbol not in bundled_names]
    if absent:
        raise ResearchError(
            f"the bundled names are {', '.join(bundled_names)}, {', '.join(absent)} is none of them; bring bars with --bars FILE"
        )
    return History(daily, bundled.corporate_actions()), symbols, []


def _follows(options: StudyOptions, base: Settings, market: Market) -> dict[str, Any]:
    """The settings that follow from the bars: from the first session that can be decided on to the last one that there is."""
    usable = np.flatnonzero(market.tradable.any(axis=1))
    if not len(usable):
        raise ResearchError(f"{len(market)} sessions are too few: features need a year of bars before a name can be traded")
    start = options.start or market.sessions[usable[0]].astype(object)
    live_start = options.live_start or market.sessions[-1].astype(object) + timedelta(days=1)
    days = market.sessions[(market.sessions >= np.datetime64(start)) & (market.sessions < np.datetime64(live_start))]
    if not len(days):
        raise ResearchError(f"--start and --live-start must hold a session of {market.sessions[0]} to {market.sessions[-1]}")
    training = base.training
    least = max(MIN_TRAINING, training.episode_sessions) + 1 + training.purge_sessions
    test_start = days[min(max(len(days) // TRAINED_SHARE, least), len(days) - 1)].astype(object)
    dates = {"start": start, "test_start": test_start, "live_start": live_start}
    return {"training": dates, "risk": {"max_orders_per_day": max(base.risk.max_orders_per_day, len(market.symbols))}}


def _settings(base: Settings, options: StudyOptions, *, symbols: tuple[str, ...], follows: dict[str, Any]) -> Settings:
    given: dict[str, Any] = {name: getattr(options, name) for name in ("start", "test_start", "live_start", "folds", "timesteps")}
    given["seeds"] = None if options.seeds is None else tuple(range(options.seeds))
    document = base.model_dump()
    benchmark = base.universe.benchmark if base.universe.benchmark in symbols else None
    document["universe"] = {"symbols": symbols, "benchmark": benchmark}
    document["training"] |= follows.get("training", {}) | {name: value for name, value in given.items() if value is not None}
    document["risk"] |= follows.get("risk", {})
    return checked(document, source="settings and options")
