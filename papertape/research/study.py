"""What the research commands work on: a market of the bundled bars or of your own, and the settings that go with it.

Promise: with bars of your own and no settings file of your own, what depends on the bars follows from them, and `told` says what: the
universe, the benchmark if it is among them, the dates, and as many orders a day as one rebalancing takes. A settings file of your own is
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

SETTINGS = Path(__file__).resolve().parents[2] / "settings.toml"
TRAINED_SHARE = 3  # a third of the sessions lie before the first test, or as many as training needs


class ResearchError(PapertapeError, ValueError):
    """What was asked does not fit the bars; the message names the option or setting and what is allowed."""


@dataclass(frozen=True)
class Asked:
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
    """`history`: the bars and events that `market` is built from; `told`: what a user should know, a line each; `options`: what another
    command needs for the same bars.
    """

    settings: Settings
    history: History
    market: Market
    told: tuple[str, ...]
    bundled: bool
    options: str


def study(asked: Asked) -> Study:
    """Read the bars, build the market, settle the settings."""
    base = load(asked.settings or SETTINGS)
    history, symbols, told = _bars(asked, base)
    market = build_market(history.bars, history.actions, symbols=symbols)
    follows = _follows(asked, base, market) if asked.bars is not None and asked.settings is None else {}
    settings = _settled(quick(base) if asked.quick else base, asked, symbols=symbols, follows=follows)
    if settings.risk.max_orders_per_day < len(symbols):
        raise ResearchError(
            f"risk.max_orders_per_day must be {len(symbols)} or more, one rebalancing of {len(symbols)} names, was "
            f"{settings.risk.max_orders_per_day}; set it in {asked.settings or SETTINGS.name}"
        )
    if follows:
        training = settings.training
        told.append(
            f"dates from the bars: training from {training.start}, tests from {training.test_start}, nothing from {training.live_start} on"
        )
    return Study(settings, history, market, tuple(told), bundled=asked.bars is None, options=_options(asked))


def _options(asked: Asked) -> str:
    words = [] if asked.bars is None else ["--bars", str(asked.bars)]
    words += {True: ["--adjusted"], False: ["--raw"], None: []}[asked.adjusted]
    words += [] if asked.actions is None else ["--actions", str(asked.actions)]
    words += ["--symbols", ",".join(asked.symbols)] if asked.symbols else []
    return "".join(f" {shlex.quote(word)}" for word in words)


def history(asked: Asked) -> tuple[History, tuple[str, ...], list[str]]:
    """The bars and events alone, their names, and what a user should know of them."""
    return _bars(asked, load(asked.settings or SETTINGS))


def _bars(asked: Asked, base: Settings) -> tuple[History, tuple[str, ...], list[str]]:
    if asked.bars is not None:
        own = read_own_bars(asked.bars, adjusted=asked.adjusted, actions=asked.actions, symbols=asked.symbols)
        return History(own.bars, own.actions), asked.symbols or own.symbols, own.sentences
    if asked.adjusted is not None or asked.actions is not None:
        raise ResearchError("--adjusted, --raw and --actions are for bars of your own: give them with --bars FILE")
    daily, symbols = bundled.daily_bars(), asked.symbols or base.universe.symbols
    known = sorted(daily["symbol"].unique())
    absent = [symbol for symbol in symbols if symbol not in known]
    if absent:
        raise ResearchError(f"the bundled names are {', '.join(known)}, {', '.join(absent)} is none of them; bring bars with --bars FILE")
    return History(daily, bundled.corporate_actions()), symbols, []


def _follows(asked: Asked, base: Settings, market: Market) -> dict[str, Any]:
    """The settings that follow from the bars: from the first session that can be decided on to the last one that there is."""
    usable = np.flatnonzero(market.tradable.any(axis=1))
    if not len(usable):
        raise ResearchError(f"{len(market)} sessions are too few: features need a year of bars before a name can be traded")
    start = asked.start or market.sessions[usable[0]].astype(object)
    live_start = asked.live_start or market.sessions[-1].astype(object) + timedelta(days=1)
    days = market.sessions[(market.sessions >= np.datetime64(start)) & (market.sessions < np.datetime64(live_start))]
    if not len(days):
        raise ResearchError(f"--start and --live-start must hold a session of {market.sessions[0]} to {market.sessions[-1]}")
    training = base.training
    least = max(MIN_TRAINING, training.episode_sessions) + 1 + training.purge_sessions
    test_start = days[min(max(len(days) // TRAINED_SHARE, least), len(days) - 1)].astype(object)
    dates = {"start": start, "test_start": test_start, "live_start": live_start}
    return {"training": dates, "risk": {"max_orders_per_day": max(base.risk.max_orders_per_day, len(market.symbols))}}


def _settled(base: Settings, asked: Asked, *, symbols: tuple[str, ...], follows: dict[str, Any]) -> Settings:
    given: dict[str, Any] = {name: getattr(asked, name) for name in ("start", "test_start", "live_start", "folds", "timesteps")}
    given["seeds"] = None if asked.seeds is None else tuple(range(asked.seeds))
    document = base.model_dump()
    benchmark = base.universe.benchmark if base.universe.benchmark in symbols else None
    document["universe"] = {"symbols": symbols, "benchmark": benchmark}
    document["training"] |= follows.get("training", {}) | {name: value for name, value in given.items() if value is not None}
    document["risk"] |= follows.get("risk", {})
    return checked(document, source="settings and options")
