"""One-minute bars of your own, from CSV or Parquet files, gathered into slot bars.

Promise: columns go by their usual names, as for daily bars, and each row's time is its minute's start, with its zone. Minutes outside of
the exchange's hours are left out, minutes that are not bars are set aside by reason, and a name without a minute in a slot's window has
no bar there; all are counted: see `sentences`.
Failure: `OwnBarsError`, one line that names the file, the place, the value and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pandas as pd

from papertape.market_data.own_bars import EARLIEST, LATEST, ROLES, actions_of, jumps, only
from papertape.market_data.own_tables import (
    CLOCK,
    DAY,
    ZONE,
    OwnBarsError,
    is_table,
    names,
    numbers,
    place,
    read_table,
    recognised,
    shown,
)
from papertape.market_data.sessions import hours_between
from schema.slot import minutes_of
from trading_env.data.slot_bars import MINUTE_COLUMNS, SlotBars, slot_bars

SESSION_MINUTES = 390
EVERY = re.compile(r"every:(\d{1,3})")


@dataclass(frozen=True)
class OwnMinutes:
    """`bars` and `actions` as `build_market` takes them, a row per name and slot; `sentences`: what a user should know, a line each."""

    bars: pd.DataFrame
    actions: pd.DataFrame
    symbols: tuple[str, ...]
    sentences: tuple[str, ...]


def slots_called(text: str) -> tuple[str, ...]:
    """`open+5,open+120`, or `every:30` for a slot every 30 minutes of a session, the first one 30 minutes after the open."""
    if found := EVERY.fullmatch(text.strip()):
        step = int(found[1])
        if not 1 <= step < SESSION_MINUTES:
            raise OwnBarsError(f"--slots every:N takes 1 to {SESSION_MINUTES - 1} minutes, was {text}")
        return tuple(f"open+{minute}" for minute in range(step, SESSION_MINUTES, step))
    slots = tuple(word.strip() for word in text.split(","))
    try:
        minutes = [minutes_of(slot) for slot in slots]
    except ValueError as error:
        raise OwnBarsError(f"--slots must be open+<minutes>, with commas between, or every:<minutes>, was {text}: {error}") from error
    if any(later <= earlier for earlier, later in pairwise(minutes)):
        raise OwnBarsError(f"--slots must be in order, each once, was {text}")
    return slots


def read_own_minutes(
    path: Path, *, slots: Sequence[str], window: int, actions: Path | None = None, symbols: Sequence[str] | None = None
) -> OwnMinutes:
    """Read a file, or a folder with one file per name, of one-minute bars, and gather them between `slots` of `window` minutes.

    Prices are continuous across splits and dividends unless `actions` (symbol, ex_date, kind, value) says when they were not.
    """
    table = only(_read(path), symbols, source=path)
    first, last = (moment.tz_localize(None) for moment in (table["ts"].min(), table["ts"].max()))
    if not EARLIEST <= first <= last <= LATEST:
        raise OwnBarsError(f"{path}: times must lie in {EARLIEST:%Y-%m-%d} to {LATEST:%Y-%m-%d}, were {first:%Y-%m-%d} to {last:%Y-%m-%d}")
    hours = hours_between(first.date(), last.date())
    minutes = [minutes_of(slot) for slot in slots]
    found = slot_bars(table, hours=hours, slots=minutes, window=window)
    if found.bars.empty:
        raise OwnBarsError(f"{path}: no row is a one-minute bar within the hours of a session of the New York Stock Exchange")
    events = actions_of(actions, found.bars, source=path)
    lines = _sentences(found, minutes=len(table), slots=slots)
    bars = found.bars.sort_values(["symbol", "session"], ignore_index=True)
    return OwnMinutes(bars, events, tuple(sorted(bars["symbol"].unique())), (*lines, *jumps(bars, events)))


def _sentences(found: SlotBars, *, minutes: int, slots: Sequence[str]) -> list[str]:
    bars = found.bars
    symbols, rows, sessions = bars["symbol"].nunique(), bars["session"].nunique(), bars["session"].dt.normalize()
    lines = [
        f"{minutes:,} minutes of {symbols} names in {rows:,} slot bars of {sessions.nunique()} sessions, "
        f"{sessions.min():%Y-%m-%d} to {sessions.max():%Y-%m-%d}, {len(slots)} slots a session"
    ]
    lines += [f"{found.outside:,} minutes outside of the exchange's hours left out"] if found.outside else []
    lines += [f"{count:,} minutes set aside: {reason}" for reason, count in found.quarantined["reason"].value_counts().items()]
    if absent := symbols * rows - len(bars):
        lines.append(
            f"{absent:,} of {symbols * rows:,} bars missing, {len(found.late):,} where the name traded after the slot's window alone: "
            "a name does not trade in a slot without a bar"
        )
    return lines


def _read(path: Path) -> pd.DataFrame:
    files = sorted(file for file in path.iterdir() if is_table(file)) if path.is_dir() else [path]
    if not files:
        raise OwnBarsError(f"{path}: holds no .csv, .csv.gz or .parquet file")
    return pd.concat([_typed(file, named_after=file.name.split(".")[0] if path.is_dir() else "") for file in files], ignore_index=True)


def _typed(file: Path, *, named_after: str) -> pd.DataFrame:
    found = recognised(read_table(file), ROLES, source=file)
    if "symbol" not in found.columns and named_after:
        found = found.assign(symbol=named_after)
    if missing := [role for role in ROLES if role not in found.columns]:
        raise OwnBarsError(f"{file}: no column for {', '.join(missing)}; {missing[0]} may be called {', '.join(ROLES[missing[0]])}")
    _, symbol = names(found["symbol"], source=file)
    prices = {column: numbers(found[column], called=column, source=file) for column in MINUTE_COLUMNS[2:]}
    return pd.DataFrame({"symbol": symbol, "ts": _moments(found["session"], source=file), **prices})


def _moments(column: pd.Series, *, source: Path) -> pd.Series:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return pd.Series(column.dt.tz_convert("UTC").astype("datetime64[us, UTC]"))
    text = column.astype("str").str.strip().str.replace(r" ?UTC$", "Z", regex=True)
    moments = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    wrong = ~text.str.fullmatch(DAY + CLOCK + ZONE).astype(bool) | moments.isna()
    if wrong.any():
        row = wrong.index[wrong][0]
        like = "a minute with its zone such as 2020-01-02T09:30:00-05:00"
        raise OwnBarsError(f"{place(source, row)}: time must be {like}, was {shown([repr(column[row])])}")
    return pd.Series(moments.astype("datetime64[us, UTC]"))
