"""`papertape lookahead`: whether anything depends on the future, on recorded bars.

Without a function: our own features, sentiment columns of invented posts, the observation, the environment and a policy, each from raw
bars on. With one: a user's, named `path/to/file.py:function`, which gives a DataFrame with one row per bar. It takes one name's bars
(index: sessions; columns open, high, low, close, volume, adjusted), or with symbol `all` every name's in one table (columns symbol,
session and the same five).
What cannot be loaded or run is a `LookaheadCheckError` of one line.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from papertape.market_data import bundled
from schema.settings import Settings, load
from schema.trading_rules import limits_of
from trading_env.data.bars import adjust_forward, as_rows
from trading_env.data.features import CONTEXT, FEATURE_HASH, FEATURES, SCHEMA_VERSION
from trading_env.data.market import Market, build_market
from trading_env.data.sentiment import SENTIMENT, CollectionRun, ScoredPost
from trading_env.errors import PapertapeError
from trading_env.evaluation.lookahead import (
    FILLED,
    FeatureFunction,
    History,
    Leak,
    LookaheadError,
    PostHistory,
    Recorded,
    find_changes,
    find_leaks,
    history_futures,
    market_record,
    open_futures,
    play,
    post_futures,
    post_record,
    trade,
)
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig
from trading_env.simulation.policy import NumpyPolicy, PolicyCard, array_shapes
from trading_env.simulation.portfolio import Costs, Rules
from trading_env.simulation.trees import Trees

SETTINGS = Path(__file__).resolve().parents[2] / "data" / "settings.toml"
COLUMNS = ("open", "high", "low", "close", "volume")
ALL = "all"
#: Row numbers: early ones, where warm-ups are filled, then spread over the history.
EARLY, SPREAD = (2, 20, 60, 150), 10
#: Environment and policy are checked on this many recent sessions, from the decision in row FIRST on; the features are warm by then.
RECENT, FIRST, LATE = 450, 300, 6
#: Invented posts: whose, and how long before a session's close; 0 and below are at it and after it.
SOURCES, HOURS = ("invented",), (9.0, 3.0, 0.0, -2.0)
#: Every cost is on: a fill depends on all that it can depend on.
RULES = Rules(costs=Costs(fee_bps=1.0, slippage_bps=5.0, half_spread_bps=5.0, impact=1.0, max_volume_share=0.05))


class LookaheadCheckError(PapertapeError, ValueError):
    """This cannot be checked; the message says why."""


@dataclass(frozen=True)
class Comparison:
    """What was compared at how many cuts of these sessions, and what changed."""

    what: str
    compared: str
    cuts: int
    leaks: list[Leak]
    sessions: NDArray[np.datetime64]


def run(function: str, *, symbol: str, console: Console, history: History | None = None) -> bool:
    """Print what was checked and each leak; return whether there is none. `history`: the bars to check on, by default the bundled ones."""
    world = history or History(bundled.daily_bars(), bundled.corporate_actions())
    comparisons = [of_function(function, symbol=symbol, history=world)] if function else of_ours(world, settings=load(SETTINGS))
    console.print(_summary(comparisons))
    leaky = [comparison for comparison in comparisons if comparison.leaks]
    for comparison in leaky:
        console.print(_leaks(comparison))
    return not leaky


def of_function(function: str, *, symbol: str, history: History) -> Comparison:
    """A user's feature function on the bars of one name, or on those of all."""
    compute, bars = load_function(function), bars_of(symbol, history)
    sessions = as_rows(bars["session"] if symbol == ALL else pd.DatetimeIndex(bars.index))
    ends = np.flatnonzero(np.append(sessions[1:] != sessions[:-1], True))
    cuts = [int(ends[row]) for row in _spread(len(ends))]
    try:
        leaks = find_leaks(compute, bars, cuts=cuts)
    except LookaheadError as error:
        raise LookaheadCheckError(f"{function}: {error}") from error
    except Exception as error:
        raise LookaheadCheckError(f"{function}: raised {type(error).__name__}: {error}") from error
    return Comparison(function, f"{len(bars):,} bars of {'all names' if symbol == ALL else symbol}", len(cuts), leaks, sessions)


def of_ours(history: History, *, settings: Settings) -> list[Comparison]:
    """Features, observation, environment and policy, each built from the raw bars and events of a world anew; of daily bars, sentiment."""
    names = tuple(sorted(history.bars["symbol"].unique()))
    sessions, cash, limits = _sessions(history), settings.portfolio.initial_cash, limits_of(settings)
    if len(sessions) < FIRST + 2 * LATE:
        raise LookaheadCheckError(f"the check needs {FIRST + 2 * LATE} sessions of bars, was {len(sessions)}")
    recent = History(history.bars[history.bars["session"] >= sessions[-RECENT:][0]], history.actions)
    days = _sessions(recent)
    network = _policy()
    late = [int(row) for row in np.linspace(FIRST + 1, len(days) - 2, LATE)]

    def build(world: History) -> Market:
        return build_market(world.bars, world.actions, symbols=names)

    def environment(market: Market, episode: int) -> BatchedTradingEnv:
        config = EnvConfig(rules=RULES, limits=limits, episode_sessions=episode, start="random", initial_value=cash)
        return BatchedTradingEnv(market, num_envs=2, config=config)

    def played(market: Market) -> Recorded:
        return play(environment, market, start=days[FIRST])

    def traded(market: Market) -> Recorded:
        return trade(lambda _: network, market, rules=RULES, start=days[FIRST + 1], initial_cash=cash, limits=limits)

    def filled(market: Market) -> Recorded:
        every = {**traded(market), **{f"environment {name}": values for name, values in played(market).items()}}
        return {name: values for name, values in every.items() if name.removeprefix("environment ") in FILLED}

    spread = _spread(len(sessions))
    built = find_changes(lambda world: market_record(build(world)), history, cuts=spread, futures=history_futures)
    env = find_changes(lambda world: played(build(world)), recent, cuts=late, futures=history_futures)
    book = find_changes(lambda world: traded(build(world)), recent, cuts=late, futures=history_futures)
    fills = find_changes(filled, build(recent), cuts=late, futures=open_futures)
    observed = [leak for leak in env if leak.column == "observation"]
    rest = [leak for leak in env if leak.column != "observation"]
    columns = f"{len(FEATURES)} columns of {len(names)} names, {len(CONTEXT)} of all"
    sentiment = [_of_posts(days, names, cuts=late)] if days.dtype == np.dtype("datetime64[D]") else []
    return [
        Comparison("features", columns, len(spread), built, sessions),
        *sentiment,
        Comparison("observation", f"the vectors of {len(days) - FIRST} {'sessions' if sentiment else 'slots'}", LATE, observed, days),
        Comparison("environment", "reward, value, growth, costs, turnover", LATE, rest, days),
        Comparison("policy", "scores, weights, orders, book", LATE, book, days),
        Comparison("fills", "orders, cash, costs: nothing after the open", LATE, fills, days),
    ]


def _of_posts(days: NDArray[np.datetime64], names: Sequence[str], *, cuts: Sequence[int]) -> Comparison:
    posts = invented_posts(days, symbols=names)
    told = find_changes(lambda world: post_record(world, symbols=names, sources=SOURCES), posts, cuts=cuts, futures=post_futures)
    return Comparison("sentiment", f"{len(SENTIMENT)} columns of {len(posts.runs):,} answers with invented posts", LATE, told, days)


def invented_posts(days: NDArray[np.datetime64], *, symbols: Sequence[str]) -> PostHistory:
    """A source's answers around each session, some missing, with posts and reposts about some names; no bars come with any posts."""
    rng = np.random.default_rng(0)
    closes: NDArray[np.datetime64] = (days.astype("datetime64[h]") + 21).astype("datetime64[us]")
    runs = []
    for close in closes.astype(object):
        for hours in HOURS:
            at = close.replace(tzinfo=UTC) - timedelta(hours=hours)
            posts = tuple(
                ScoredPost(
                    symbols=tuple(str(name) for name in rng.choice(symbols, size=min(2, len(symbols)), replace=False)),
                    received=at - timedelta(minutes=float(rng.uniform(0, 60))),
                    score=float(rng.uniform(-1, 1)),
                    confidence=float(rng.uniform(0, 1)),
                    fingerprint=str(rng.integers(0, 400)),
                    flagged=bool(rng.random() < 0.1),
                )
                for _ in range(rng.poisson(3.0))
            )
            if rng.random() < 0.9:
                runs.append(CollectionRun(SOURCES[0], at, posts))
    return PostHistory(tuple(runs), closes)


def bars_of(symbol: str, history: History) -> pd.DataFrame:
    """The bars of one name as a feature function gets them, adjusted forward; of all names a table in the order of sessions."""
    names = sorted(history.bars["symbol"].unique())
    if symbol not in (*names, ALL):
        raise LookaheadCheckError(f"--symbol must be {ALL} or one of {', '.join(names)}, was {symbol}")
    market = build_market(history.bars, history.actions, symbols=names if symbol == ALL else (symbol,))
    raw = {name: getattr(market, name) for name in COLUMNS}
    adjusted = adjust_forward(**raw, split=market.split, dividend=market.dividend)
    columns = {name: getattr(adjusted, name).ravel() for name in COLUMNS}
    days = market.sessions.astype("datetime64[us]")
    if symbol != ALL:
        return pd.DataFrame(columns, index=pd.DatetimeIndex(days)).dropna()
    keys = {"symbol": np.tile(names, len(days)), "session": np.repeat(days, len(names))}
    return pd.DataFrame(keys | columns).dropna().reset_index(drop=True)


def load_function(name: str) -> FeatureFunction:
    """The function in `path/to/file.py:function`."""
    path, _, function = name.rpartition(":")
    if not path.endswith(".py") or not Path(path).is_file():
        raise LookaheadCheckError(f"the function must be named path/to/file.py:function, was {name}")
    spec = importlib.util.spec_from_file_location("features_to_check", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise LookaheadCheckError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise LookaheadCheckError(f"{path} has no function {function}")
    compute: Callable[[pd.DataFrame], pd.DataFrame] = found
    return compute


def _policy() -> NumpyPolicy:
    """Network and trees at random: unlike trained ones they certainly depend on everything that they observe, the forecast included."""
    card = PolicyCard(
        features=tuple(feature.name for feature in FEATURES),
        context=tuple(feature.name for feature in CONTEXT),
        feature_hash=FEATURE_HASH,
        schema_version=SCHEMA_VERSION,
        kappa=0.1,
        trained_on=("none",),
        train_start="",
        train_end="",
        seeds=(0, 1),
        code_version="",
        forecast="trees",
    )
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape) for name, shape in array_shapes(seeds=2, inputs=card.inputs).items()}
    nodes = (40, 7)
    trees = Trees(rng.integers(0, len(card.features), nodes), rng.normal(0, 0.1, nodes), rng.normal(size=(40, 8)))
    return NumpyPolicy(arrays | {"sigma": np.ones(card.inputs)} | trees.arrays, card)


def _sessions(history: History) -> NDArray[np.datetime64]:
    return np.unique(as_rows(history.bars["session"]))


def _spread(rows: int) -> list[int]:
    """Rows to cut after: of a short history those that it has."""
    return sorted({row for row in (*EARLY, *np.linspace(min(300, rows // 2), rows - 2, SPREAD).astype(int).tolist()) if row <= rows - 2})


def _summary(comparisons: list[Comparison]) -> Table:
    table = Table(title="No look-ahead? At each cut, what comes after it is replaced, then taken away.", title_justify="left")
    for heading in ("what", "compared up to the cut", "cuts", "verdict"):
        table.add_column(heading, justify="right" if heading == "cuts" else "left")
    for comparison in comparisons:
        verdict = f"{len(comparison.leaks)} depend on the future" if comparison.leaks else "same, bit for bit"
        table.add_row(comparison.what, comparison.compared, str(comparison.cuts), verdict)
    return table


def _leaks(comparison: Comparison) -> Table:
    table = Table(title=f"{comparison.what}: these depend on the future", title_justify="left")
    for heading in ("column", "value of", "changes when what comes after", "is"):
        table.add_column(heading)
    for leak in comparison.leaks:
        done = "taken away" if leak.how == "truncated" else "replaced"
        table.add_row(leak.column, str(comparison.sessions[leak.changed]), str(comparison.sessions[leak.cut]), done)
    return table
