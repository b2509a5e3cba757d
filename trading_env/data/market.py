"""The market as dense arrays: (T rows, A names), what every simulator, backtest and decision reads.

A row is a session, or with several slots a day a slot bar (`slot_bars`): a decision after it, in the next slot, is filled at the next row's
open. Windows of features, episodes and a policy's pace count rows; whatever is judged, or limited per day, counts sessions.

The promise: a row holds only what was known at its close, and the tradable mask says which names may be decided on; no reader needs to
guess whether a NaN is a halt or a mistake. `to_table` and `from_table` are exact inverses, so the lake's table is the market. A date,
symbol or column that is not there raises `MarketError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from trading_env.data.bars import BAR_COLUMNS, Array, BarsError, Mask, Sessions, adjust_forward, as_rows, as_sessions, check_actions
from trading_env.data.corporate_actions import BREAK
from trading_env.data.features import ASSET_FEATURES, CONTEXT, FEATURES, asset_features, context_features, cross_section, features
from trading_env.data.membership import Membership
from trading_env.data.sentiment import SENTIMENT_NAMES, TABLES, FeatureTable
from trading_env.errors import PapertapeError

FEATURE_NAMES = tuple(feature.name for feature in FEATURES)
CONTEXT_NAMES = tuple(feature.name for feature in CONTEXT)
RAW_NAMES = ("open", "high", "low", "close", "volume")
OWN_NAMES = ("session", "symbol", *RAW_NAMES, "split", "dividend", "tradable")
TABLE_COLUMNS = (*OWN_NAMES, *FEATURE_NAMES, *CONTEXT_NAMES)
LEAVING = "leaving"  # a further column where members change

Day = str | date | np.datetime64
Positions = npt.NDArray[np.int64]


class MarketError(PapertapeError, ValueError):
    """A market cannot be built or has no such session, symbol or column; the message names it and what there is."""


@dataclass(frozen=True, eq=False)
class Market:
    """A panel of rows and names.

    Attributes:
        symbols: the A names, in the order of every A axis.
        sessions: (T,) each row's key, strictly increasing: its date, datetime64[D], or its slot, datetime64[m] in UTC. Regular hours begin
            and end on one date in UTC, so a slot's date is its session.
        open, high, low, close, volume: (T, A) raw, unadjusted; NaN where a name has no bar.
        split: (T, A) new shares per old share, effective before the open of row t; 1 where none.
        dividend: (T, A) dollars per share held at the close of row t − 1, paid before the open of row t; 0 where none.
        tradable: (T, A) the name is a member, has a bar at t and all its features and the context are finite: a decision at the close of t
            may use it.
        features: (T, A, F) in the order of `FEATURES`, and behind them `SENTIMENT` where there is any; NaN in warm-up and where there is
            no bar.
        context: (T, G) in the order of `CONTEXT`.
        leaving: (T, A) the name has a bar at t and is no member: what is held of it is sold at the next open. Not given: no name leaves.
    """

    symbols: tuple[str, ...]
    sessions: Sessions
    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    split: Array
    dividend: Array
    tradable: Mask
    features: Array
    context: Array
    leaving: Mask = None  # type: ignore[assignment]  # a mask once made

    def __post_init__(self) -> None:
        if self.leaving is None or not self.leaving.any():
            object.__setattr__(self, LEAVING, np.zeros(self.tradable.shape, dtype=np.bool_))

    def __len__(self) -> int:
        return len(self.sessions)

    @property
    def days(self) -> Sessions:
        """(T,) the session of each row, datetime64[D]."""
        return as_sessions(self.sessions)

    @property
    def by_slot(self) -> bool:
        """Whether rows are slot bars."""
        return bool(self.sessions.dtype == np.dtype("datetime64[m]"))

    @property
    def ends_session(self) -> Mask:
        """(T,) whether no later row is of the same session."""
        return np.append(self.days[1:] != self.days[:-1], np.ones(min(len(self), 1), dtype=np.bool_))

    def index_of(self, session: Day) -> int:
        """The row of a session, its first one where it has several, or of a slot; raises `MarketError` if it isn't in the market."""
        key = _key(session)
        row = int(np.searchsorted(self.sessions, key))
        if row == len(self) or self.sessions[row].astype(key.dtype) != key:
            raise MarketError(f"session must be one of the market's ({self._span()}), was {key}")
        return row

    def span(self, start: Day, end: Day) -> slice:
        """The rows from `start` to `end`, both included: of a session all its rows. Empty if there is none."""
        first, last = _key(start), _key(end)
        stop = np.searchsorted(self.sessions, last + 1) if last.dtype == np.dtype("datetime64[D]") else None
        return slice(
            int(np.searchsorted(self.sessions, first)),
            int(np.searchsorted(self.sessions, last, side="right") if stop is None else stop),
        )

    def rows(self, start: Day, end: Day) -> Market:
        """The sessions from `start` to `end`, both included, as views; raises `MarketError` if there is none.

        Dates between sessions are allowed. Features keep the history that they were computed with.
        """
        rows = self.span(start, end)
        if rows.start >= rows.stop:
            raise MarketError(f"there must be a session from {_key(start)} to {_key(end)}, the market has {self._span()}")
        names = ("sessions", *RAW_NAMES, "split", "dividend", "tradable", "features", "context", LEAVING)
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def only(self, symbols: Sequence[str]) -> Market:
        """The market of some of its names, in the order given. Ranks and context remain those of the whole market."""
        absent = [symbol for symbol in symbols if symbol not in self.symbols]
        if absent or not symbols or len(set(symbols)) < len(symbols):
            raise MarketError(f"symbols must be distinct names of {', '.join(self.symbols)}, was {', '.join(symbols)}")
        columns = [self.symbols.index(symbol) for symbol in symbols]
        names = (*RAW_NAMES, "split", "dividend", "tradable", "features", LEAVING)
        return replace(self, symbols=tuple(symbols), **{name: getattr(self, name)[:, columns] for name in names})

    def alone(self, symbol: str) -> Market:
        """The market of one name, a member throughout: what holding it would have been."""
        one = self.only([symbol])
        tradable = np.isfinite(one.close) & np.isfinite(one.context).all(axis=1, keepdims=True)
        return replace(one, tradable=np.where(one.leaving, tradable, one.tradable), leaving=np.zeros_like(one.leaving))

    def decided(self, on: Mask) -> Market:
        """The market for one who decides at the closes of the rows `on` (T,) alone: elsewhere nothing is tradable, so that nothing is
        ordered by the engine's own rule. What left the universe is sold at the next of them."""
        return replace(self, tradable=self.tradable & on[:, None], leaving=self.leaving & on[:, None])

    def decided_daily(self) -> Market:
        """For one who decides at the sessions' closes alone; itself where a row is a session."""
        return self.decided(self.ends_session) if self.by_slot else self

    def _span(self) -> str:
        return f"{self.sessions[0]} to {self.sessions[-1]}" if len(self) else "no session"


def build_market(bars: pd.DataFrame, actions: pd.DataFrame, *, symbols: Sequence[str], members: Membership | None = None) -> Market:
    """Raw, validated bars and their corporate actions -> forward-adjusted -> features -> `Market`.

    The rows are those in which any of `symbols` has a bar. An action takes effect at the first row from its day on; one after the
    last session, or of another name, has none. From a break on a name's features are those of one that was listed on that day. An action
    that became known late enters the features of the rows from then on; split and dividend have it in its own row.

    Args:
        bars: `BAR_COLUMNS`, as `bars.validate` leaves them.
        actions: `ACTION_COLUMNS`, of any names, and where it came late the first session that knew it, `known`; NaT in time.
        symbols: the names, in the order of the A axis. One without any bar keeps its column, never tradable.
        members: who of them is a member when, everyone always by default. Ranks and context are those of the session's members.

    Raises:
        MarketError: no name, repeated names, no bar, or two bars of one name and session.
        BarsError: an action or a column of `bars` is not valid.
    """
    names = tuple(symbols)
    if not names or len(set(names)) < len(names):
        raise MarketError(f"symbols must be one or more distinct names, was {', '.join(names) or 'none'}")
    missing = [column for column in BAR_COLUMNS if column not in bars.columns]
    if missing:
        raise BarsError(f"columns {', '.join(BAR_COLUMNS)} are needed, {', '.join(missing)} missing")
    own = bars[bars["symbol"].isin(names)]
    if own.empty:
        raise MarketError(f"there must be a bar of {', '.join(names)}, the table has none")
    keys = as_rows(own["session"])
    sessions = np.unique(keys)
    rows, columns = np.searchsorted(sessions, keys), _positions(own["symbol"], names)
    _refuse_duplicates(own, rows * len(names) + columns)

    raw = {column: np.full((len(sessions), len(names)), np.nan) for column in RAW_NAMES}
    for column, values in raw.items():
        values[rows, columns] = own[column].to_numpy(dtype=np.float64)
    events = _events(actions, names, sessions)
    split, dividend, _ = events.applied(len(sessions), len(names))
    member = None if members is None else members.spells(bars).mask(as_sessions(sessions), names)
    values, context = _features(raw, events, split=split, dividend=dividend, member=member)
    # without a bar there is no feature, so what is complete has a bar
    complete: Mask = np.all(np.isfinite(values), axis=-1)
    informed: Mask = np.all(np.isfinite(context), axis=-1, keepdims=True)
    tradable = complete & informed
    market = Market(
        symbols=names, sessions=sessions, **raw, split=split, dividend=dividend, tradable=tradable, features=values, context=context
    )
    if member is None:
        return market
    return replace(market, tradable=tradable & member, leaving=np.isfinite(market.close) & ~member)


def with_sentiment(market: Market, values: Array) -> Market:
    """The market with the columns of `SENTIMENT`, (T, A, len(SENTIMENT)), behind its features; who is tradable does not depend on them."""
    shape = (*market.close.shape, len(SENTIMENT_NAMES))
    if values.shape != shape or market.features.shape[-1] != len(FEATURE_NAMES):
        was = f"{values.shape} behind {market.features.shape[-1]} features"
        raise MarketError(f"sentiment must be of shape {shape} behind the {len(FEATURE_NAMES)} features of the table, was {was}")
    return replace(market, features=np.concatenate([market.features, values], axis=-1))


def table_columns(table: FeatureTable) -> tuple[str, ...]:
    """`TABLE_COLUMNS` of a table, with or without sentiment."""
    return (*OWN_NAMES, *table.features, *CONTEXT_NAMES)


def table_of(rows: pd.DataFrame) -> FeatureTable:
    """Which table these rows are of."""
    return TABLES["daily" if any(name in rows.columns for name in SENTIMENT_NAMES) else "none"]


def table_within(market: Market) -> FeatureTable:
    """Which table the market's features are of."""
    return TABLES["daily" if market.features.shape[-1] == TABLES["daily"].width else "none"]


def to_table(market: Market) -> pd.DataFrame:
    """One row per session and name, `table_columns`, sessions in order and names in the market's order, absent bars included. Where members
    change there is one column more, `LEAVING`."""
    length, names = market.close.shape
    columns: dict[str, object] = {
        "session": np.repeat(market.sessions.astype("datetime64[us]"), names),
        "symbol": pd.array(np.tile(np.array(market.symbols, dtype=object), length), dtype="str"),
    }
    for name in (*RAW_NAMES, "split", "dividend", "tradable"):
        columns[name] = getattr(market, name).ravel()
    columns |= {name: market.features[:, :, column].ravel() for column, name in enumerate(table_within(market).features)}
    columns |= {name: np.repeat(market.context[:, column], names) for column, name in enumerate(CONTEXT_NAMES)}
    if market.leaving.any():
        columns[LEAVING] = market.leaving.ravel()
    return pd.DataFrame(columns)


def from_table(table: pd.DataFrame) -> Market:
    """The `Market` that `to_table` wrote.

    Rows may come in any order of sessions (files of a lake); names keep the order of their first appearance.

    Raises:
        MarketError: a column is missing, or the table is not one row for each session and name.
    """
    columns = table_of(table)
    missing = [column for column in table_columns(columns) if column not in table.columns]
    if missing:
        raise MarketError(f"the table must have the columns of this version's feature table, {', '.join(missing)} missing")
    symbols = tuple(str(symbol) for symbol in pd.unique(table["symbol"]))
    keys = as_rows(table["session"])
    sessions = np.unique(keys)
    cells = np.searchsorted(sessions, keys) * len(symbols) + _positions(table["symbol"], symbols)
    order = np.argsort(cells, kind="stable")
    if not np.array_equal(cells[order], np.arange(len(sessions) * len(symbols))):
        wanted = f"{len(sessions)} sessions and {len(symbols)} names"
        raise MarketError(f"the table must have one row for each of {wanted}, was {len(table)} rows")

    def dense(column: str) -> Array:
        values: Array = table[column].to_numpy(dtype=np.float64)[order].reshape(len(sessions), len(symbols))
        return values

    raw = {name: dense(name) for name in (*RAW_NAMES, "split", "dividend")}
    return Market(
        symbols=symbols,
        sessions=sessions,
        **raw,
        tradable=dense("tradable").astype(bool),
        features=np.stack([dense(name) for name in columns.features], axis=-1),
        context=np.stack([dense(name)[:, 0] for name in CONTEXT_NAMES], axis=-1),
        leaving=dense(LEAVING).astype(bool) if LEAVING in table.columns else np.zeros((len(sessions), len(symbols)), dtype=np.bool_),
    )


def _positions(symbols: pd.Series, names: tuple[str, ...]) -> Positions:
    return pd.Index(names).get_indexer(pd.Index(symbols)).astype(np.int64)


def _key(session: Day) -> np.datetime64:
    """A slot stays what it is, anything else is a date."""
    if isinstance(session, np.datetime64) and session.dtype == np.dtype("datetime64[m]"):
        return session
    try:
        day: np.datetime64 = np.array([session], dtype="datetime64[D]")[0]
    except ValueError as error:
        raise MarketError(f"a session must be a date such as 2020-01-02, was {session!r}") from error
    return day


def _refuse_duplicates(bars: pd.DataFrame, cells: Positions) -> None:
    repeated = pd.Series(cells).duplicated().to_numpy()
    if repeated.any():
        row = bars[repeated].iloc[0]
        raise MarketError(f"there must be one bar per symbol and session, {row['symbol']} has several on {row['session']:%Y-%m-%d}")


@dataclass(frozen=True)
class _Events:
    """Actions by row and name; `known` is the row from which on features may use one, 0 for an action that was known in time."""

    rows: Positions
    columns: Positions
    kinds: npt.NDArray[np.object_]
    values: Array
    known: Positions

    def of(self, which: Mask) -> _Events:
        return _Events(self.rows[which], self.columns[which], self.kinds[which], self.values[which], self.known[which])

    def applied(self, sessions: int, names: int) -> tuple[Array, Array, Mask]:
        """Splits (products), dividends (sums) and breaks, each (sessions, names)."""
        split, dividend, broken = np.ones((sessions, names)), np.zeros((sessions, names)), np.zeros((sessions, names), dtype=np.bool_)
        splits, dividends, breaks = (self.of(self.kinds == kind) for kind in ("split", "dividend", BREAK))
        np.multiply.at(split, (splits.rows, splits.columns), splits.values)
        np.add.at(dividend, (dividends.rows, dividends.columns), dividends.values)
        broken[breaks.rows, breaks.columns] = True
        return split, dividend, broken


def _events(actions: pd.DataFrame, names: tuple[str, ...], sessions: Sessions) -> _Events:
    table = check_actions(actions)
    known = as_sessions(pd.to_datetime(actions["known"])) if "known" in actions.columns else np.full(len(table), np.datetime64("NaT", "D"))
    ex_dates, days = as_sessions(table["ex_date"]), as_sessions(sessions)
    own = table["symbol"].isin(names).to_numpy() & (ex_dates >= days[0]) & (ex_dates <= days[-1])
    return _Events(
        rows=np.searchsorted(days, ex_dates),
        columns=_positions(table["symbol"], names),
        kinds=table["kind"].to_numpy(dtype=object),
        values=table["value"].to_numpy(dtype=np.float64),
        known=np.where(np.isnat(known), 0, _last_rows(days, known)),
    ).of(own)


def _last_rows(days: Sessions, known: Sessions) -> Positions:
    """The last row of each session `known`, whose close is the first thing after which one heard of it; where it has none, the next."""
    first, after = (np.searchsorted(days, known, side=side) for side in ("left", "right"))
    return np.maximum(first, after - 1)


def _features(
    raw: Mapping[str, Array], events: _Events, *, split: Array, dividend: Array, member: Mask | None = None
) -> tuple[Array, Array]:
    """Features (T, A, F) and context (T, G), each row as it was known at its close; ranks and context among members (T, A), or all."""
    if member is None and not events.known.any() and not (events.kinds == BREAK).any():
        whole = adjust_forward(**raw, split=split, dividend=dividend)
        table, context = features(open=whole.open, high=whole.high, low=whole.low, close=whole.close, volume=whole.volume)
        return np.ascontiguousarray(table), context
    asset = np.full((*split.shape, len(ASSET_FEATURES)), np.nan)
    for name in range(split.shape[1]):
        own = events.of(events.columns == name)
        bars = {column: values[:, name] for column, values in raw.items()}
        for begin, end in pairwise([*np.unique([0, *own.known]), len(split)]):
            asset[begin:end, name] = _asset_features(bars, own.of(own.known <= begin))[begin:end]
    return np.concatenate([asset, cross_section(asset, member=member)], axis=-1), context_features(asset, member=member)


def _asset_features(bars: Mapping[str, Array], events: _Events) -> Array:
    """One name's own features (T, F), its bars and events given. What lies before a break is another series."""
    length = len(bars["close"])
    split, dividend, broken = replace(events, columns=np.zeros_like(events.columns)).applied(length, 1)
    found = np.full((length, len(ASSET_FEATURES)), np.nan)
    for begin, end in pairwise(np.unique([0, *np.flatnonzero(broken), length])):
        piece = {column: values[begin:end, None] for column, values in bars.items()}
        adjusted = adjust_forward(**piece, split=split[begin:end], dividend=dividend[begin:end])
        own = np.isfinite(adjusted.close[:, 0])
        series = {column: getattr(adjusted, column)[own, 0] for column in RAW_NAMES}
        found[begin:end][own] = asset_features(**series)
    return found
