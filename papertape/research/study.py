"""What the research commands work on: a market of the bundled bars or of your own, and the settings that go with it.

Promise: with bars of your own and no settings file of your own, what depends on the bars follows from them, and is said: the
universe, the benchmark if it is among them, the dates, as many orders per day as one rebalancing takes, and for short bars a holdout and
folds that fit, which can never pass the gate. A settings file of your own is taken at its word, an option above it; "auto" dates are as of
the newest bar. Failure: `ResearchError`, `OwnBarsError` or `SettingsError`, one line each.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from learning.configuration import folds_of
from papertape.market_data import bundled
from papertape.market_data.own_bars import read_own_bars
from papertape.market_data.own_minutes import read_own_minutes, slots_called
from papertape.market_data.own_sentiment import read_own_sentiment
from papertape.market_data.universes import StudiedUniverse, universe_of
from schema.runs.daily_settings import on_daily_bars
from schema.settings import Settings, TrainingSettings, checked, load, quick
from schema.slot import minutes_of
from schema.training_dates import as_of
from schema.universes import LISTS, MOST_TRADED
from trading_env.data.features import FEATURES
from trading_env.data.market import Market, build_market, with_sentiment
from trading_env.errors import PapertapeError
from trading_env.evaluation.gate import GateThresholds
from trading_env.evaluation.lookahead import History
from trading_env.evaluation.walk_forward import MIN_TRAINING, Fold, WalkForwardError, everything

SETTINGS = Path(__file__).resolve().parents[2] / "data" / "settings.toml"
TRAINED_SHARE = 3  # a third of the sessions lie before the first test, or as many as training needs
MONTH = 21  # sessions: the shortest test of a fold, and the shortest holdout
JUDGED = 2  # sessions at the least, or nothing deviates
HOLDOUT_SHARE = 3  # of what short bars leave to judge on, a third is the holdout


class ResearchError(PapertapeError, ValueError):
    """What was options does not fit the bars; the message names the option or setting and what is allowed."""


@dataclass(frozen=True)
class StudyOptions:
    """The options of a command line that choose bars and settings; None and empty are "not given".

    `until`: train on every session up to this one, with no folds and no holdout. `base`: what stands in for the research settings, on
    daily bars, with dates that follow from the bars; `changes`: what differs from either, section by section, above all that follows.
    `slots`: the bars are of one minute, and decided on at these slots, as `slots_called` reads them.
    """

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
    until: date | None = None
    universe: str = ""
    sentiment: Path | None = None
    base: Path | None = None
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    slots: str = ""


@dataclass(frozen=True)
class Study:
    """`history`: the bars and events that `market` is built from; `notes`: what a user should know of them, a line each; `arguments`: what
    another command needs for the same bars and settings; `own`: dates and sizes follow from the bars, and `dates` says which, for training
    and judging; `everything`: one model is trained on all that lies before live_start.
    """

    settings: Settings
    history: History
    market: Market
    notes: tuple[str, ...]
    bundled: bool
    arguments: str
    own: bool = False
    dates: tuple[str, ...] = ()
    everything: bool = False

    def folds(self) -> tuple[Fold, ...]:
        """The walk-forward's folds over the bars, or the one of `everything` before live_start. Raises ResearchError when bars of one's own
        are too few, with how many would do.
        """
        if self.everything:
            dates = self.settings.training.dates
            return (everything(self.market.sessions, start=dates.start, live_start=dates.live_start),)
        try:
            return _judgeable(folds_of(self.market.sessions, self.settings), self.market)
        except WalkForwardError as error:
            if not self.own:
                raise
            training = self.settings.training
            warm_up = int(np.flatnonzero(self.market.tradable.any(axis=1))[0])
            least = warm_up + _before_a_test(training) + 2 * MONTH
            if self.market.by_slot:
                raise ResearchError(
                    f"{error}; bring more sessions, or decide in more slots: windows of features are counted in slot bars"
                ) from error
            raise ResearchError(
                f"{len(self.market)} sessions are too few to train and judge on: bring {least} or more, {warm_up} for the features, "
                f"{_before_a_test(training)} to train on, {2 * MONTH} to judge; --start, --test-start and --live-start, if given, must "
                "leave them; `papertape backtest` trades such bars as they are"
            ) from error


def _judgeable(folds: tuple[Fold, ...], market: Market) -> tuple[Fold, ...]:
    judged = int(market.rows(folds[0].test_start, folds[-2].test_end).ends_session.sum())
    if judged < JUDGED:
        raise ResearchError(f"{judged} session is left to judge on, {JUDGED} are needed: bring bars of more sessions")
    return folds


def study(options: StudyOptions) -> Study:
    """Read the bars, build the market, settle the settings."""
    base = _base(options)
    history, symbols, notes = _bars(options, base)
    universe = _universe(options, base, history)
    if universe is not None:
        symbols, notes = universe.symbols, [*notes, *universe.notes]
    market = build_market(history.bars, history.actions, symbols=symbols, members=universe.members if universe else None)
    market = _with_sentiment(market, options, base)
    chosen = quick(base) if options.quick else base
    follows = _follows(options, chosen, market) if options.bars is not None and options.settings is None else {}
    if options.until is not None:
        follows = {**follows, "training": _until(options, chosen, market, start=follows.get("training", {}).get("start"))}
    settings = as_of(_settings(chosen, options, symbols=symbols, follows=follows), market.days[-1].astype(object))
    if settings.risk.max_orders_per_day < (orders := _rebalancing(market) * _slots(market)):
        each = f" in each of {_slots(market)} slots" if market.by_slot else ""
        raise ResearchError(
            f"risk.max_orders_per_day must be {orders} or more, one rebalancing of {_rebalancing(market)} names{each}, was "
            f"{settings.risk.max_orders_per_day}; set it in {options.settings or SETTINGS.name}"
        )
    dates: list[str] = []
    if follows and options.until is None:
        training = settings.training
        dates.append(
            f"dates from the bars: training from {training.start}, tests from {training.test_start}, nothing from {training.live_start} on"
        )
        dates += _shortened(chosen, settings)
    return Study(
        settings,
        history,
        market,
        tuple(notes),
        bundled=options.bars is None,
        arguments=_arguments(options),
        own=bool(follows),
        dates=tuple(dates),
        everything=options.until is not None,
    )


def _with_sentiment(market: Market, options: StudyOptions, base: Settings) -> Market:
    """Bars come without posts: what was known of them comes in a file of its own, exactly where the settings read it."""
    file, word = options.sentiment, base.features.sentiment
    if (file is None) != (word == "none"):
        needs = f"{options.settings or SETTINGS.name} has features.sentiment = "
        raise ResearchError(f'{needs}"daily": give --sentiment FILE' if file is None else f'--sentiment {file}: {needs}"none", not "daily"')
    return market if file is None else with_sentiment(market, read_own_sentiment(file, market))


def _shortened(asked: Settings, settings: Settings) -> list[str]:
    """What the bars were too short for, if anything."""
    was, now, bar = asked.training, settings.training, GateThresholds()
    if now.holdout_sessions == was.holdout_sessions:
        return []
    folds = f" and {now.folds} {'fold' if now.folds == 1 else 'folds'} instead of {was.folds}" if now.folds < was.folds else ""
    return [
        f"short bars: a holdout of {now.holdout_sessions} sessions instead of {was.holdout_sessions}{folds}; this can never pass the gate, "
        f"which asks for {bar.min_sessions:,} judged sessions and a holdout of {bar.min_holdout_sessions}"
    ]


def _arguments(options: StudyOptions) -> str:
    words = [] if options.settings is None else ["--settings", str(options.settings)]
    words += [] if options.bars is None else ["--bars", str(options.bars)]
    words += {True: ["--adjusted"], False: ["--raw"], None: []}[options.adjusted]
    words += [] if options.actions is None else ["--actions", str(options.actions)]
    words += ["--symbols", ",".join(options.symbols)] if options.symbols else []
    words += ["--universe", options.universe] if options.universe else []
    words += ["--slots", options.slots] if options.slots else []
    words += [] if options.sentiment is None else ["--sentiment", str(options.sentiment)]
    return "".join(f" {shlex.quote(word)}" for word in words)


def history(options: StudyOptions) -> tuple[History, tuple[str, ...], list[str]]:
    """The bars and events alone, their names, and what a user should know of them."""
    return _bars(options, _base(options))


def _base(options: StudyOptions) -> Settings:
    loaded = load(options.settings or options.base or SETTINGS, research=True)
    settings = _slotted(on_daily_bars(loaded) if options.base and not options.settings else loaded, options)
    # A benchmark is one of the names that are studied, so it is changed with them
    changes = {section: values for section, values in options.changes.items() if section != "universe"}
    if not changes:
        return settings
    document = settings.model_dump()
    _change(document, changes)
    return checked(document, source="settings")


def _slotted(settings: Settings, options: StudyOptions) -> Settings:
    """The settings with the option's slots; a slot's window ends before the next one's begins."""
    if not options.slots:
        return settings
    slots = slots_called(options.slots)
    apart = [minutes_of(later) - minutes_of(earlier) for earlier, later in pairwise(slots)]
    document = settings.model_dump()
    document["training"]["timeframe"] = "1Min"
    document["schedule"] |= {"slots": slots, "slot_window_minutes": min([settings.schedule.slot_window_minutes, *apart])}
    return checked(document, source="settings and --slots")


def _change(document: dict[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> None:
    for section, values in changes.items():
        document[section] = {**(document.get(section) or {}), **values}


def _chosen(options: StudyOptions, base: Settings) -> str:
    if options.universe and options.symbols:
        raise ResearchError(f"--symbols and --universe {options.universe} both choose the names: give one of them")
    if options.universe and options.universe not in LISTS and not options.universe.startswith(MOST_TRADED):
        raise ResearchError(f"--universe must be {', '.join(LISTS)} or {MOST_TRADED}N, was {options.universe}; --symbols takes symbols")
    return options.universe or ("" if options.symbols else base.universe.chosen_by)


def _universe(options: StudyOptions, base: Settings, history: History) -> StudiedUniverse | None:
    chosen = _chosen(options, base)
    return universe_of(chosen, history.bars, adjusted=bool(options.adjusted)) if chosen else None


def _rebalancing(market: Market) -> int:
    """Orders of the largest rebalancing: of every name, or where members change of those of two sessions."""
    if not market.leaving.any():
        return len(market.symbols)
    return int((market.tradable[1:] | market.tradable[:-1]).sum(axis=1).max())


def _bars(options: StudyOptions, base: Settings) -> tuple[History, tuple[str, ...], list[str]]:
    if base.row_slots:
        return _minutes(options, base)
    if options.bars is not None:
        own = read_own_bars(options.bars, adjusted=options.adjusted, actions=options.actions, symbols=options.symbols)
        return History(own.bars, own.actions), options.symbols or own.symbols, own.sentences
    if options.adjusted is not None or options.actions is not None:
        raise ResearchError("--adjusted, --raw and --actions are for bars of your own: give them with --bars FILE")
    daily = bundled.daily_bars()
    bundled_names = sorted(daily["symbol"].unique())
    symbols = tuple(bundled_names) if _chosen(options, base) else options.symbols or base.universe.symbols
    absent = [symbol for symbol in symbols if symbol not in bundled_names]
    if absent:
        raise ResearchError(
            f"the bundled names are {', '.join(bundled_names)}, {', '.join(absent)} is none of them; bring bars with --bars FILE"
        )
    return History(daily, bundled.corporate_actions()), symbols, []


def _minutes(options: StudyOptions, base: Settings) -> tuple[History, tuple[str, ...], list[str]]:
    if options.bars is None:
        raise ResearchError('--slots and timeframe = "1Min" decide on one-minute bars of your own: give them with --bars FILE')
    if options.adjusted and options.actions is not None:
        raise ResearchError(f"--actions {options.actions} is for raw prices; with --adjusted it would count splits and dividends twice")
    own = read_own_minutes(
        options.bars,
        slots=base.row_slots,
        window=base.schedule.slot_window_minutes,
        actions=options.actions,
        symbols=options.symbols,
    )
    return History(own.bars, own.actions), options.symbols or own.symbols, list(own.sentences)


def _slots(market: Market) -> int:
    """The most rows that a session has."""
    return int(np.unique(market.days, return_counts=True)[1].max())


def _follows(options: StudyOptions, base: Settings, market: Market) -> dict[str, Any]:
    """The settings that follow from the bars: from the first session that can be decided on to the last one that there is."""
    usable = np.flatnonzero(market.tradable.any(axis=1))
    if not len(usable):
        raise ResearchError(too_few(market))
    start = options.start or _first_whole(market, int(usable[0]))
    if options.until is not None:
        return {"training": {"start": start}, "risk": _enough_orders(base, market)}
    live_start = options.live_start or market.days[-1].astype(object) + timedelta(days=1)
    every = np.unique(market.days)
    days = every[(every >= np.datetime64(start)) & (every < np.datetime64(live_start))]
    if not len(days):
        raise ResearchError(f"--start and --live-start must hold a session of {market.sessions[0]} to {market.sessions[-1]}")
    purge = _purge(base.training, market)
    least = _before_a_test(base.training, rows=len(market) / len(every), purge=purge)
    test_start = days[min(max(len(days) // TRAINED_SHARE, least), len(days) - 1)].astype(object)
    dates = {"start": start, "test_start": test_start, "live_start": live_start}
    left = int((days >= np.datetime64(options.test_start or test_start)).sum())
    fitting = _fitting(base, options, left=left, least=_shortest(market))
    return {"training": dates | fitting | {"purge_sessions": purge}, "risk": _enough_orders(base, market)}


def too_few(market: Market) -> str:
    """The bars hold no decision: in words, how many there are and how many features take."""
    if not market.by_slot:
        return f"{len(market)} sessions are too few: features need a year of bars before a name can be traded"
    window = max(feature.window for feature in FEATURES)
    return f"{len(market)} slot bars are too few: features need {window} of a name before it can be traded; bring more sessions or slots"


def _enough_orders(base: Settings, market: Market) -> dict[str, int]:
    return {"max_orders_per_day": max(base.risk.max_orders_per_day, _rebalancing(market) * _slots(market))}


def _first_whole(market: Market, row: int) -> date:
    """The first session whose first row is `row` or later: the features are complete in all of it."""
    begins = np.flatnonzero(np.append(True, market.ends_session[:-1]))
    first = begins[begins >= row] if (begins >= row).any() else begins[-1:]
    day: date = market.days[first[0]].astype(object)
    return day


def _purge(training: TrainingSettings, market: Market) -> int:
    """The settings' purge, of sessions; of slot bars as many sessions as hold so many rows, for what it keeps apart reaches over rows."""
    return -(-training.purge_sessions // _slots(market))


def _shortest(market: Market) -> int:
    """Sessions of the shortest test and the shortest holdout: a month, or a session of slot bars."""
    return 1 if market.by_slot else MONTH


def _until(options: StudyOptions, base: Settings, market: Market, *, start: date | None) -> dict[str, Any]:
    """The settings of a training on every session up to `options.until`; no session is judged."""
    given = {"--test-start": options.test_start, "--live-start": options.live_start, "--folds": options.folds}
    if contrary := [option for option, value in given.items() if value is not None]:
        raise ResearchError(f"--until trains one model on all that lies before it: leave {', '.join(contrary)} out")
    until = options.until
    assert until is not None
    first = options.start or start or as_of(base, market.days[-1].astype(object)).training.dates.start
    usable = market.days[market.tradable.any(axis=1) & (market.days >= np.datetime64(first))]
    count, least = int((usable <= np.datetime64(until)).sum()), max(MIN_TRAINING, base.training.episode_sessions) + 1
    if count < least:
        would = f"so {usable[least - 1]} or later would do" if len(usable) >= least else f"the bars end {market.days[-1]}"
        word = "slot bars" if market.by_slot else "sessions"
        raise ResearchError(f"--until {until} leaves {count} {word} to train on from {first} on, {least} are needed, {would}")
    return {"start": first, "test_start": until, "live_start": until + timedelta(days=1), "folds": 1}


def _before_a_test(training: TrainingSettings, *, rows: float = 1, purge: int | None = None) -> int:
    """Sessions, of so many `rows` each, that the first fold needs before its test."""
    return math.ceil((max(MIN_TRAINING, training.episode_sessions) + 1) / rows) + (training.purge_sessions if purge is None else purge)


def _fitting(base: Settings, options: StudyOptions, *, left: int, least: int) -> dict[str, int]:
    """Holdout and folds for the `left` sessions from the first test on: the settings', or less where these are too few."""
    training = base.training
    folds = options.folds or training.folds
    if left >= training.holdout_sessions + folds * least:
        return {}
    holdout = min(training.holdout_sessions, max(least, left // HOLDOUT_SHARE))
    return {"holdout_sessions": holdout, "folds": max(1, min(folds, (left - holdout) // least))}


def _settings(base: Settings, options: StudyOptions, *, symbols: tuple[str, ...], follows: dict[str, Any]) -> Settings:
    given: dict[str, Any] = {name: getattr(options, name) for name in ("start", "test_start", "live_start", "folds", "timesteps")}
    given["seeds"] = None if options.seeds is None else tuple(range(options.seeds))
    document = base.model_dump()
    benchmark = base.universe.benchmark if base.universe.benchmark in symbols else None
    document["universe"] = {"symbols": symbols, "benchmark": benchmark, "chosen_by": _chosen(options, base)}
    document["training"] |= follows.get("training", {}) | {name: value for name, value in given.items() if value is not None}
    document["risk"] |= follows.get("risk", {})
    _change(document, options.changes)
    return checked(document, source="settings and options")
