"""Does anything depend on the future? Checked by taking the future away, and by replacing it.

Promise: what is recorded of a whole world (bars, a market) is recorded again, for each cut t, with everything after t taken away, and with
everything after t replaced. A name any of whose values at or before t then differ, in a single bit, is a `Leak` that names it, the cut
and the first changed row. `find_leaks` does so for a feature function; `market_record`, `post_record`, `play` and `trade` record our
features, sentiment columns, an environment and a policy for `find_changes`. No leak at the cuts that were tried is evidence, not proof,
for what peeks only on days that were not tried.
What may use t + 1: a decision at the close of t is filled at the open of t + 1 and valued at its close. So what is decided is recorded
at t, and the fill, the book, its value and the reward at t + 1, where they are known; `open_futures` shows that the fill knows of t + 1
no more than the open and the volume.
Failure: `LookaheadError` when what is recorded has not one row per session, changes its names, cannot do without the future at all, or
differs between two runs on the same world (what is not deterministic can be neither checked nor used).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from trading_env.data.market import CONTEXT_NAMES, RAW_NAMES, Day, Market, table_within
from trading_env.data.observation import Observation, observe
from trading_env.data.sentiment import SENTIMENT_NAMES, CollectionRun, Instants, sentiment_features
from trading_env.errors import PapertapeError
from trading_env.evaluation.backtest import backtest
from trading_env.orders.risk import Limits
from trading_env.simulation.policy import Policy, weights_from_scores
from trading_env.simulation.portfolio import Rules

#: Bars to one row of features a bar: of one name (index: sessions), or of many, in the order of sessions, with columns session and symbol.
FeatureFunction = Callable[[pd.DataFrame], pd.DataFrame]
How = Literal["truncated", "poisoned"]
World = TypeVar("World")
#: Name -> values whose first axis is the row (session) at which they are known.
Recorded = Mapping[str, NDArray[Any]]
#: The worlds that are the given one up to the row, and another one after it.
Futures = Callable[[World, int], Iterator[tuple[How, World]]]

#: Replaced prices and volumes are these times those of other days, so that not even the ratio of two of them survives the cut.
POISON = 7.3
TICK = timedelta(microseconds=1)


#: What `trade` and `play` record that is known at the open.
FILLED = ("cash", "costs", "dividends", "turnover", "deltas", "quantities")


class LookaheadError(PapertapeError, ValueError):
    """This cannot be checked; the message says what was given and what is needed."""


@dataclass(frozen=True)
class Leak:
    """`column` at `changed` (row number) is another value when what comes after row `cut` is taken away or replaced."""

    column: str
    cut: int
    changed: int
    how: How


def find_changes(record: Callable[[World], Recorded], world: World, *, cuts: Sequence[int], futures: Futures[World]) -> list[Leak]:
    """The first leak of each name that has one, in the order of the names.

    `cuts`: row numbers in [0, T - 2]. Raises LookaheadError, and whatever `record` raises on the whole world.
    """
    whole = {name: np.asarray(values, dtype=np.float64) for name, values in record(world).items()}
    last = min(len(values) for values in whole.values()) - 2
    if wrong := [cut for cut in cuts if not 0 <= cut <= last]:
        raise LookaheadError(f"cuts must lie in [0, {last}] for {last + 2} rows, was {wrong[0]}")
    if changed := _first_changes(whole, record(world), rows=last + 2):
        raise LookaheadError(f"the same input must give the same values, {next(iter(changed))} differed between two runs")
    leaks: dict[str, Leak] = {}
    for cut in cuts:
        for how, other in futures(world, cut):
            try:
                again = record(other)
            except LookaheadError:
                raise
            except Exception as error:
                if leaks:  # what was found already says more than that it fails without a future
                    break
                raise LookaheadError(f"with what comes after row {cut} {how}: raised {type(error).__name__}: {error}") from error
            for name, row in _first_changes(whole, again, rows=cut + 1).items():
                leaks.setdefault(name, Leak(name, cut, row, how))
    return [leaks[name] for name in whole if name in leaks]


def find_leaks(compute: FeatureFunction, bars: pd.DataFrame, *, cuts: Sequence[int]) -> list[Leak]:
    """`find_changes` of the columns that a feature function computes; of many names' bars, cuts are last rows of their sessions."""
    return find_changes(lambda table: _columns(compute, table), bars, cuts=cuts, futures=bar_futures)


def bar_futures(bars: pd.DataFrame, cut: int) -> Iterator[tuple[How, pd.DataFrame]]:
    """Later numbers backwards and several times as large, and no later rows."""
    poisoned = bars.copy()
    numbers = [column for column in bars.columns if pd.api.types.is_numeric_dtype(bars[column])]
    poisoned.loc[:, numbers] = np.vstack([bars[numbers].iloc[: cut + 1], bars[numbers].iloc[:cut:-1] * POISON])
    yield "poisoned", poisoned
    yield "truncated", bars.iloc[: cut + 1].copy()


@dataclass(frozen=True)
class History:
    """What a market is built of: `BAR_COLUMNS` and `ACTION_COLUMNS` of many names."""

    bars: pd.DataFrame
    actions: pd.DataFrame


def history_futures(history: History, cut: int) -> Iterator[tuple[How, History]]:
    """Other later bars and events, with a split of every name on the session after; and none. Row numbers count sessions, or slots."""
    sessions = history.bars["session"].drop_duplicates().sort_values()
    days = sessions.dt.normalize()
    bars = history.bars.sort_values("session", kind="stable", ignore_index=True)
    rows = int((bars["session"] <= sessions.iloc[cut]).sum())
    later = history.actions["ex_date"] > sessions.iloc[cut]
    # Smaller dividends: one may not exceed the price, which is another name's now
    others = history.actions.assign(value=history.actions["value"].where(~later, history.actions["value"] / POISON))
    following = days[days > days.iloc[cut]].head(1)  # none where the cut lies in the last session
    splits = following.to_frame("ex_date").merge(pd.DataFrame({"symbol": bars["symbol"].unique()}), how="cross")
    splits = splits.assign(kind="split", value=3.0)
    actions = {"poisoned": pd.concat([others, splits.astype({"ex_date": others["ex_date"].dtype})]), "truncated": history.actions[~later]}
    for how, table in bar_futures(bars, rows - 1):
        yield how, History(table, actions[how])


@dataclass(frozen=True)
class PostHistory:
    """What sentiment columns are computed of: scored posts, and the instants (T,) at which the sessions close."""

    runs: tuple[CollectionRun, ...]
    closes: Instants


def post_futures(history: PostHistory, cut: int) -> Iterator[tuple[How, PostHistory]]:
    """Later runs that fail, and later posts that say the opposite, of other names, unflagged and again and again; and none."""
    close: datetime = history.closes[cut].astype("datetime64[us]").astype(object).replace(tzinfo=UTC)
    past, others = [], []
    for run in history.runs:
        known = tuple(post for post in run.posts if post.received <= close)
        past.append(replace(run, at=min(run.at, close), posts=known, answered=run.answered and run.at <= close))
        later = [replace(post, score=-post.score, confidence=1.0, flagged=False) for post in run.posts if post.received > close]
        if later:
            names = later[-1].symbols
            others.append(replace(run, at=max(run.at, close + TICK), posts=tuple(replace(post, symbols=names) for post in later * 3)))
    yield "poisoned", PostHistory((*others, *past), history.closes)
    yield "truncated", PostHistory(tuple(past), history.closes[: cut + 1])


def post_record(history: PostHistory, *, symbols: Sequence[str], sources: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Every sentiment column by name, (T, A)."""
    values = sentiment_features(history.runs, closes=history.closes, symbols=symbols, sources=sources)
    return {name: values[:, :, column] for column, name in enumerate(SENTIMENT_NAMES)}


def market_futures(market: Market, cut: int) -> Iterator[tuple[How, Market]]:
    """Later rows backwards, prices, volumes and features other ones; and no later rows."""
    later: dict[str, Any] = {name: getattr(market, name)[:cut:-1] for name in ("split", "dividend", "tradable", "leaving")}
    later |= {name: getattr(market, name)[:cut:-1] * POISON for name in RAW_NAMES}
    later |= {name: getattr(market, name)[:cut:-1] * POISON + 1 for name in ("features", "context")}
    later = {name: np.concatenate([getattr(market, name)[: cut + 1], values]) for name, values in later.items()}
    yield "poisoned", replace(market, **later)
    yield "truncated", market.rows(market.sessions[0], market.sessions[cut])


def open_futures(market: Market, cut: int) -> Iterator[tuple[How, Market]]:
    """Known is row `cut` up to its open, and the volume that its bar will have; its close, what follows from it, and later rows are others.

    For what a fill gives, `FILLED`: it may not depend on the rest of the session that it opens.
    """
    changed = {name: getattr(market, name).copy() for name in ("high", "low", "close", "features", "context")}
    for values in changed.values():
        values[cut] *= POISON
    for how, other in market_futures(replace(market, **changed), cut):
        if how == "poisoned":
            yield how, other


def market_record(market: Market) -> dict[str, NDArray[Any]]:
    """Every column of a market by name: (T, A), and (T,) for the context."""
    record = {name: getattr(market, name) for name in (*RAW_NAMES, "split", "dividend", "tradable", "leaving")}
    record |= {name: market.features[:, :, column] for column, name in enumerate(table_within(market).features)}
    return record | {name: market.context[:, column] for column, name in enumerate(CONTEXT_NAMES)}


def play(make: Callable[[Market, int], VectorEnv[Any, Any, Any]], market: Market, *, start: Day, seed: int = 0) -> dict[str, NDArray[Any]]:
    """What the N books of an environment get from an episode from `start` to the market's end, under seeded random actions.

    `make(market, sessions)` gives the environment with episodes of so many sessions, which start where
    `reset(options={"session": start})` says. Returns `observation` (T, N, width), `reward` (T, N) and each (N,) array of infos.
    """
    first = market.index_of(start)
    environment = make(market, len(market) - 1 - first)
    environment.action_space.seed(seed)
    observation, _ = environment.reset(seed=seed, options={"session": start})
    rows = [{"observation": observation}]
    for _ in range(first + 1, len(market)):
        observation, reward, _, ended, info = environment.step(environment.action_space.sample())
        numbers = {name: value for name, value in info.items() if not name.startswith(("_", "final_"))}
        rows.append({"observation": np.stack(info["final_obs"]) if ended.any() else observation, "reward": reward, **numbers})
    return {name: _by_row([row.get(name) for row in rows], before=first) for name in rows[-1]}


def trade(
    make: Callable[[Market], Policy], market: Market, *, rules: Rules, start: Day, initial_cash: float, limits: Limits | None = None
) -> dict[str, NDArray[Any]]:
    """What `make(market)`'s policy decides from the session before `start` to the market's last one, and the book it leads to.

    Returns `scores` and `weights` (T, A) at the row that was observed, the one at the last row included, and what a backtest holds.
    """
    policy = make(market)
    result = backtest(market, policy, rules=rules, start=start, end=market.sessions[-1], initial_cash=initial_cash, limits=limits)
    last, held, cash_weight = len(market) - 1, result.held[-1], float(result.cash[-1] / result.equity[-1])
    vector = observe(market.features[last], market.context[last], market.tradable[last], held, cash_weight)
    scores = policy.scores(Observation(as_of=market.sessions[last], symbols=market.symbols, vector=vector))
    weights = weights_from_scores(scores[None], held[None], market.tradable[[last]], kappa=policy.kappa, leaving=market.leaving[[last]])
    first = market.index_of(result.sessions[0])
    decided = {"scores": [*result.scores, scores], "weights": [*result.weights, weights[0]]}
    book = ("equity", "cash", "costs", "dividends", "turnover", "deltas", "quantities", "held")
    record = {name: _by_row(values, before=first - 1) for name, values in decided.items()}
    return record | {name: _by_row(list(getattr(result, name)), before=first) for name in book}


def _by_row(values: Sequence[Any], *, before: int) -> NDArray[np.float64]:
    """(T, ...) from one value per row; NaN for None and for the rows before."""
    shape = np.shape(values[-1])
    return np.stack([np.full(shape, np.nan)] * before + [np.full(shape, np.nan) if value is None else value for value in values])


def _columns(compute: FeatureFunction, bars: pd.DataFrame) -> dict[str, NDArray[Any]]:
    found = compute(bars.copy())
    if not isinstance(found, pd.DataFrame) or len(found) != len(bars):
        shape = f"{len(found)} rows" if isinstance(found, pd.DataFrame) else type(found).__name__
        raise LookaheadError(f"features must be a DataFrame with one row per bar, {len(bars)}, was {shape}")
    if found.index.is_unique and found.index.isin(bars.index).all():  # grouping by name leaves rows in another order
        found = found.loc[bars.index]
    return {str(column): np.asarray(found[column], dtype=np.float64) for column in found.columns}


def _first_changes(whole: Recorded, other: Recorded, *, rows: int) -> dict[str, int]:
    """Name -> the first of `rows` rows where it differs; NaN equals NaN, 0.0 is not -0.0."""
    if list(whole) != list(other):
        raise LookaheadError(f"the columns must not depend on the bars, was {list(whole)} and {list(other)}")
    changes = {}
    for name in whole:
        ours, theirs = (np.ascontiguousarray(values[name][:rows], dtype=np.float64) for values in (whole, other))
        if ours.shape != theirs.shape:
            raise LookaheadError(f"{name} must have {rows} rows of shape {ours.shape[1:]}, was {theirs.shape}")
        same = (ours.view(np.int64) == theirs.view(np.int64)) | (np.isnan(ours) & np.isnan(theirs))
        if not same.all():
            changes[name] = int(np.argmin(same.reshape(rows, -1).all(axis=1)))
    return changes
