"""Daily bars of your own, from CSV or Parquet files as people have them, to the tables that the market is built from.

Promise: columns are recognised by their usual names, times with a zone become the New York session that they lie in, and rows that are not
bars are set aside and counted by reason, as are identical repeats and missing sessions: see `sentences`. Nothing is filled in.
Prices are adjusted or raw because the user says so: what stands beside them (a split, a dividend, an adjusted close) counts once.
Failure: `OwnBarsError`, one line that names the file, the place, the value and what is allowed. What could be read in two ways is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from papertape.market_data.number_forms import PLAIN
from papertape.market_data.own_tables import (
    OwnBarsError,
    dates,
    is_table,
    mapped,
    names,
    numbers,
    place,
    read_table,
    recognised,
    shown,
)
from papertape.market_data.sessions import schedule_between
from schema.runs.request import NumberForm
from trading_env.data.bars import (
    ACTION_COLUMNS,
    BAR_COLUMNS,
    KINDS,
    PRICE_COLUMNS,
    BarsError,
    Validated,
    as_sessions,
    check_actions,
    validate,
)

ROLES = {
    "symbol": ("symbol", "ticker", "tic", "sym", "instrument", "asset"),
    "session": ("session", "date", "datetime", "timestamp", "ts", "time", "day", "t"),
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    "volume": ("volume", "v", "vol"),
}
BESIDE = {
    "adjusted_close": ("adj_close", "adjusted_close", "adjclose", "close_adj"),
    "dividend": ("dividend", "dividends", "ex_dividend", "div", "cash_dividend"),
    "split": ("split", "splits", "stock_splits", "split_ratio", "split_factor"),
}
#: Roles whose cells are numbers.
NUMBERS = (*PRICE_COLUMNS, "volume", *BESIDE)
ACTION_ROLES = {
    "symbol": ROLES["symbol"],
    "ex_date": ("ex_date", "exdate", "ex_dividend_date", "date"),
    "kind": ("kind", "type", "action", "event"),
    "value": ("value", "amount", "ratio"),
}
EARLIEST, LATEST = pd.Timestamp("1950-01-03"), pd.Timestamp("2199-12-31")  # what the calendar reaches
JUMP = 1.45  # overnight, either way: beyond it a split is likelier than news
PLAIN_SPLIT = 1.3  # below it a split cannot be distinguished from a move of the market


@dataclass(frozen=True)
class OwnBars:
    """What a user's files hold.

    Attributes:
        bars, actions: `BAR_COLUMNS` and `ACTION_COLUMNS`, as `build_market` takes them.
        symbols: the names, sorted.
        rows: how many were read, of the names asked for.
        repeats: identical rows left out.
        set_aside: reason -> rows that are not bars.
        gaps: symbol -> sessions without a bar between its first and last one.
        remarks: what was read otherwise than it is written, and what looks wrong and was kept.
    """

    bars: pd.DataFrame
    actions: pd.DataFrame
    symbols: tuple[str, ...]
    rows: int
    repeats: int
    set_aside: dict[str, int]
    gaps: dict[str, int]
    remarks: tuple[str, ...]

    @property
    def sentences(self) -> list[str]:
        """What a user should know about the bars, a line each."""
        first, last = self.bars["session"].min(), self.bars["session"].max()
        lines = [f"{len(self.bars):,} daily bars of {_count(len(self.symbols), 'name')}, {first:%Y-%m-%d} to {last:%Y-%m-%d}"]
        if self.repeats:
            lines.append(f"{_count(self.repeats, 'row')} left out that repeat an identical bar")
        lines += [f"{_count(rows, 'row')} set aside: {reason}" for reason, rows in self.set_aside.items()]
        if self.gaps:
            most = max(self.gaps, key=lambda symbol: self.gaps[symbol])
            lines.append(
                f"{_count(sum(self.gaps.values()), 'session')} missing in {_count(len(self.gaps), 'name')}, most of {most} "
                f"({self.gaps[most]}); a name does not trade on a session without a bar"
            )
        return [*lines, *self.remarks]


def read_own_bars(
    path: Path,
    *,
    adjusted: bool | None = None,
    actions: Path | None = None,
    symbols: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
) -> OwnBars:
    """Read a file, or a folder with one file per name.

    Args:
        path: `.csv`, `.csv.gz` or `.parquet`, one row per name and session; in a folder a file without a symbol column is named after it.
        adjusted: True: prices are continuous across splits and dividends already (with an adjusted close beside them: scaled by it), and
            there are no corporate actions. False: prices are raw, and dividend and split columns beside them are the actions.
            None: nothing was said, which will do unless such columns are there.
        actions: a file of corporate actions (symbol, ex_date, kind, value) for raw prices.
        symbols: the names to read, all by default.
        columns: what each column means, of `ROLES` and `BESIDE`, as the user has confirmed it; without it, columns go by their names.
    """
    if adjusted and actions is not None:
        raise OwnBarsError(f"--actions {actions} is for raw prices; with --adjusted it would count splits and dividends twice")
    table, remarks = _read(path, columns=columns)
    return own_bars_of(only(table, symbols, source=path), adjusted=adjusted, actions=actions, source=path, remarks=remarks)


def own_bars_of(table: pd.DataFrame, *, adjusted: bool | None, actions: Path | None, source: Path, remarks: Sequence[str]) -> OwnBars:
    """The bars of a table of `typed` rows, whole names of a file; `remarks` are those that it has so far."""
    remarks = list(remarks)
    raw = _choose_prices(table, adjusted=adjusted, actions=actions, source=source, remarks=remarks)
    checked = _validated(raw, source=source)
    events = _actions(raw, checked.bars, adjusted=adjusted, path=actions, source=source)
    remarks += jumps(checked.bars, events)
    reasons = checked.quarantined["reason"].value_counts()
    gaps = checked.gaps["symbol"].value_counts()
    return OwnBars(
        bars=checked.bars,
        actions=events,
        symbols=tuple(sorted(checked.bars["symbol"].unique())),
        rows=len(table),
        repeats=int(reasons.get(REPEAT, 0)),
        set_aside={str(reason): int(rows) for reason, rows in reasons.items() if reason != REPEAT},
        gaps={str(symbol): int(missing) for symbol, missing in gaps.items()},
        remarks=tuple(remarks),
    )


REPEAT, CONFLICT = "repeats an identical bar", "conflicts with another bar of its session"


def _read(path: Path, *, columns: Mapping[str, str] | None) -> tuple[pd.DataFrame, list[str]]:
    """symbol, session, stamp, prices, volume and what is beside them; `line` is the row's place in its file."""
    files = sorted(file for file in path.iterdir() if is_table(file)) if path.is_dir() else [path]
    if not files:
        raise OwnBarsError(f"{path}: holds no .csv, .csv.gz or .parquet file")
    named = [file.name.split(".")[0] if path.is_dir() else "" for file in files]
    tables = [typed(read_table(file), file=file, named_after=name, columns=columns) for file, name in zip(files, named, strict=True)]
    table = pd.concat(tables, ignore_index=True)
    return table.drop(columns="written"), dashes(table.loc[table["written"] != table["symbol"], "written"].dropna().unique())


def dashes(written: Iterable[str]) -> list[str]:
    """The remark on names that were written otherwise than the exchanges write them."""
    return [f"{shown(sorted(written))}: read with a dot for the dash, as exchanges write share classes"] if len(list(written)) else []


def typed(
    raw: pd.DataFrame,
    *,
    file: Path,
    named_after: str = "",
    columns: Mapping[str, str] | None = None,
    forms: Mapping[str, NumberForm] | None = None,
) -> pd.DataFrame:
    """Rows of a file as they are meant, each under its number there. `forms`: how the numbers of `columns` are written."""
    roles, forms = {**ROLES, **BESIDE}, forms or {}
    written_as = {(columns or {}).get(column, column): form for column, form in forms.items()}
    found = recognised(raw, roles, source=file) if not columns else mapped(raw, columns, roles=roles, source=file)
    if "symbol" not in found.columns and named_after:
        found = found.assign(symbol=named_after)
    missing = [role for role in ROLES if role not in found.columns]
    if missing:
        hint = "; without a symbol column, give a folder with one file per name" if missing == ["symbol"] else ""
        raise OwnBarsError(
            f"{file}: no column for {', '.join(missing)}, there are {shown([str(column) for column in raw.columns])}; "
            f"{missing[0]} may be called {', '.join(ROLES[missing[0]])}{hint}"
        )
    written, symbol = names(found["symbol"], source=file)
    stamp, session = dates(found["session"], called="date", source=file)
    present = [role for role in NUMBERS if role in found.columns]
    others = sorted(set(forms.values()) - {PLAIN})
    held = {role: numbers(found[role], called=role, source=file, form=written_as.get(role), others=others) for role in present}
    table = pd.DataFrame({"symbol": symbol, "session": session, **held, "written": written, "stamp": stamp})
    return table.assign(file=str(file), row=table.index)


def _place(row: pd.Series) -> str:
    return place(Path(row["file"]), row["row"])


def only(table: pd.DataFrame, symbols: Sequence[str] | None, *, source: Path) -> pd.DataFrame:
    if not symbols:
        return table
    available = sorted(table["symbol"].dropna().unique())
    absent = [symbol for symbol in symbols if symbol not in available]
    if absent:
        raise OwnBarsError(f"{source}: has no bar of {shown(absent)}, it has {shown(available)}")
    return table[table["symbol"].isin(list(symbols))].reset_index(drop=True)


def _choose_prices(table: pd.DataFrame, *, adjusted: bool | None, actions: Path | None, source: Path, remarks: list[str]) -> pd.DataFrame:
    """The table with the prices that were meant; adds to `remarks` what was done with the columns beside them."""
    beside = _columns_beside(table)
    if adjusted is None and actions is None and beside:
        raise OwnBarsError(
            f"{source}: {', '.join(beside)} beside the prices, so say which they are: --adjusted (continuous across splits and dividends) "
            f"or --raw (as they were traded)"
        )
    if adjusted and "adjusted_close" in beside:
        factor = table["adjusted_close"] / table["close"]
        remarks.append("prices are scaled by adjusted close over close, volume is as it stands")
        return table.assign(**{column: table[column] * factor for column in PRICE_COLUMNS})
    unused = [column for column in beside if adjusted or actions is not None or column == "adjusted_close"]
    if unused:
        because = "prices are adjusted" if adjusted else "the actions are given" if actions is not None else "prices are raw"
        remarks.append(f"{', '.join(unused)} not used, for {because}")
    return table


def _columns_beside(table: pd.DataFrame) -> list[str]:
    """The columns beside the prices that say something: an adjusted close that is another, a dividend, a split."""
    beside = []
    if "adjusted_close" in table.columns and not np.allclose(table["adjusted_close"], table["close"], rtol=1e-6, equal_nan=True):
        beside.append("adjusted_close")
    if "dividend" in table.columns and (table["dividend"].fillna(0) != 0).any():
        beside.append("dividend")
    if "split" in table.columns and _is_split(table["split"]).any():
        beside.append("split")
    return beside


def _is_split(ratio: pd.Series) -> pd.Series:
    """Vendors write no split as 0, as 1, or as nothing."""
    return ratio.notna() & ratio.ne(0) & ratio.ne(1)


def _validated(table: pd.DataFrame, *, source: Path) -> Validated:
    _refuse_intraday(table)
    days = table["session"].dropna()
    if days.empty:
        raise OwnBarsError(f"{source}: has no row with a date")
    for day in (days.min(), days.max()):
        if not EARLIEST <= day <= LATEST:
            row = table[table["session"] == day].iloc[0]
            raise OwnBarsError(
                f"{_place(row)}: dates must lie in {EARLIEST:%Y-%m-%d} to {LATEST:%Y-%m-%d}, was {np.datetime64(row['session'], 'D')}"
            )
    calendar = pd.DatetimeIndex(schedule_between(date(days.min().year, 1, 1), days.max().date()).index)
    try:
        checked = validate(table[list(BAR_COLUMNS)], sessions=calendar)
    except BarsError as error:
        raise OwnBarsError(f"{source}: {error}") from error
    conflicts = checked.quarantined[checked.quarantined["reason"] == CONFLICT]
    if not conflicts.empty:
        _refuse_conflict(table, symbol=str(conflicts.iloc[0]["symbol"]), session=conflicts.iloc[0]["session"])
    if checked.bars.empty:
        reasons = ", ".join(f"{rows} rows: {reason}" for reason, rows in checked.quarantined["reason"].value_counts().items())
        raise OwnBarsError(f"{source}: no row is a daily bar of a session of the New York Stock Exchange ({reasons})")
    return checked


def _refuse_intraday(table: pd.DataFrame) -> None:
    stamps = table.drop_duplicates(["symbol", "session", "stamp"])
    again = stamps[stamps.duplicated(["symbol", "session"])]
    if not again.empty:
        row = again.iloc[0]
        raise OwnBarsError(
            f"{_place(row)}: {row['symbol']} has another bar within {row['session']:%Y-%m-%d}, at {row['stamp']}; daily bars are needed, "
            f"one per name and session"
        )


def _refuse_conflict(table: pd.DataFrame, *, symbol: str, session: pd.Timestamp) -> None:
    rows = table[table["symbol"].eq(symbol) & table["session"].eq(session)].drop_duplicates(list(BAR_COLUMNS))
    column = next(name for name in (*PRICE_COLUMNS, "volume") if rows[name].nunique() > 1)
    values = " and ".join(f"{row[column]:.15g} ({_place(row)})" for _, row in rows.iterrows())
    raise OwnBarsError(f"{symbol} has bars of {session:%Y-%m-%d} that differ: {column} is {values}; keep the true one")


def _actions(table: pd.DataFrame, bars: pd.DataFrame, *, adjusted: bool | None, path: Path | None, source: Path) -> pd.DataFrame:
    if path is not None:
        events = _actions_file(path)
        origin = str(path)
    elif adjusted is False:
        events, origin = _actions_beside(table), str(source)
    else:
        events, origin = _no_actions(), str(source)
    try:
        events = check_actions(events)
    except BarsError as error:
        raise OwnBarsError(f"{origin}: {error}") from error
    _refuse_adjusted(events, bars, origin=origin)
    return events


def actions_of(path: Path | None, bars: pd.DataFrame, *, source: Path) -> pd.DataFrame:
    """The corporate actions of a file for raw prices; none without one. Raises OwnBarsError where the prices are adjusted already."""
    return _actions(bars, bars, adjusted=None, path=path, source=source)


def _actions_file(path: Path) -> pd.DataFrame:
    raw = read_table(path)
    found = recognised(raw, ACTION_ROLES, source=path)
    missing = [role for role in ACTION_ROLES if role not in found.columns]
    if missing:
        raise OwnBarsError(f"{path}: no column for {', '.join(missing)}; {', '.join(ACTION_COLUMNS)} are needed")
    kind = found["kind"].astype("str").str.strip().str.lower()
    wrong = found[~kind.isin(KINDS)]
    if not wrong.empty:
        raise OwnBarsError(f"{place(path, wrong.index[0])}: kind must be {' or '.join(KINDS)}, was {wrong.iloc[0]['kind']!r}")
    value = numbers(found["value"], called="value", source=path)
    _, symbol = names(found["symbol"], source=path)
    _, ex_date = dates(found["ex_date"], called="ex_date", source=path)
    return pd.DataFrame({"symbol": symbol, "ex_date": ex_date, "kind": kind, "value": value})


def _actions_beside(table: pd.DataFrame) -> pd.DataFrame:
    events = [_no_actions()]
    rows = table.drop_duplicates(["symbol", "session"])
    for kind, some in (("split", _is_split), ("dividend", lambda paid: paid.notna() & paid.ne(0))):
        if kind in rows.columns:
            own = rows[some(rows[kind])]
            events.append(pd.DataFrame({"symbol": own["symbol"], "ex_date": own["session"], "kind": kind, "value": own[kind]}))
    return pd.concat([part for part in events if not part.empty] or events[:1], ignore_index=True)


def _no_actions() -> pd.DataFrame:
    kinds = {"symbol": "str", "ex_date": "datetime64[us]", "kind": "str", "value": "float64"}
    return pd.DataFrame({column: pd.Series(dtype=kinds[column]) for column in ACTION_COLUMNS})


def _refuse_adjusted(events: pd.DataFrame, bars: pd.DataFrame, *, origin: str) -> None:
    """A split whose price did not move: the prices are adjusted for it, and it would count twice."""
    for event in events[events["kind"].eq("split")].itertuples():
        ratio = float(event.value)  # type: ignore[arg-type]
        own = bars[bars["symbol"] == event.symbol]
        at = int(np.searchsorted(as_sessions(own["session"]), np.datetime64(event.ex_date, "D")))  # type: ignore[call-overload]
        if not 0 < at < len(own) or 1 / PLAIN_SPLIT < ratio < PLAIN_SPLIT:
            continue
        before, after = float(own["close"].iloc[at - 1]), float(own["open"].iloc[at])
        if abs(np.log(before / after)) < abs(np.log(before / after / ratio)):
            raise OwnBarsError(
                f"{origin}: {event.symbol} splits {ratio:g} for 1 on {event.ex_date:%Y-%m-%d}, but its price went from {before:g} to "
                f"{after:g}, so it is adjusted for it already; say --adjusted, or leave such splits out"
            )


def jumps(bars: pd.DataFrame, actions: pd.DataFrame) -> list[str]:
    """A remark when prices jump overnight as they do at a split, without one."""
    before = bars.groupby("symbol")["close"].shift()
    ratio = before / bars["open"]
    splits = pd.MultiIndex.from_frame(actions.loc[actions["kind"].eq("split"), ["symbol", "ex_date"]])
    explained = pd.MultiIndex.from_frame(bars[["symbol", "session"]].assign(session=bars["session"].dt.normalize())).isin(splits)
    odd = bars[((ratio > JUMP) | (ratio < 1 / JUMP)) & ~explained]
    if odd.empty:
        return []
    row = odd.iloc[0]
    return [
        f"{_count(len(odd), 'overnight move')} beyond {JUMP:g} to 1 without a split, the first of {row['symbol']} on "
        f"{row['session']:%Y-%m-%d}, {before[odd.index[0]]:g} to {row['open']:g}: were splits left out?"
    ]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
