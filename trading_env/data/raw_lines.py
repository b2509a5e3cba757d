"""The lake's raw lines as tables: what decide and the features job both read, so that they read it in the same way.

Promises: nothing is dropped or repaired here, judging rows is `bars.validate`'s work; a bar's session is the New York date of its start.
Raises `BarsError` when a line lacks a field or holds a text that is no number or time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd

from trading_env.data.bars import ACTION_COLUMNS, BAR_COLUMNS, PRICE_COLUMNS, QUOTE_COLUMNS, BarsError
from trading_env.data.slot_bars import MINUTE_COLUMNS, SessionHours

Line = Mapping[str, Any]


def bar_table(lines: Iterable[Line], *, by_slot: bool = False) -> pd.DataFrame:
    """Lines of raw/bars -> BAR_COLUMNS; `session` is a tz-naive midnight, or of slot bars the slot, UTC."""
    table = _table(lines, ("symbol", "ts", *PRICE_COLUMNS, "volume"))
    starts = _times(table["ts"])
    zone = "UTC" if by_slot else "America/New_York"
    begins = starts.dt.tz_convert(zone).dt.tz_localize(None)
    table["session"] = begins if by_slot else begins.dt.normalize()
    return _numbers(table, (*PRICE_COLUMNS, "volume"))[list(BAR_COLUMNS)]


def minute_table(lines: Iterable[Line]) -> pd.DataFrame:
    """A vendor's one-minute bars -> MINUTE_COLUMNS; `ts` in UTC."""
    table = _table(lines, MINUTE_COLUMNS)
    table["ts"] = _times(table["ts"])
    return _numbers(table, (*PRICE_COLUMNS, "volume"))


def action_table(lines: Iterable[Line]) -> pd.DataFrame:
    """Lines of raw/actions -> ACTION_COLUMNS and `known`, NaT where a line has none; both dates are tz-naive midnights."""
    rows = list(lines)
    table = _table(rows, ACTION_COLUMNS)
    table["known"] = pd.Series([row.get("known") for row in rows], dtype="object")
    for column in ("ex_date", "known"):
        table[column] = _times(table[column]).dt.tz_localize(None)
    return _numbers(table, ("value",))


def quote_table(lines: Iterable[Line]) -> pd.DataFrame:
    """Lines of raw/quotes -> QUOTE_COLUMNS; `ts` in UTC."""
    table = _table(lines, QUOTE_COLUMNS)
    table["ts"] = _times(table["ts"])
    return _numbers(table, ("bid", "bid_size", "ask", "ask_size"))


def session_index(lines: Iterable[Line]) -> pd.DatetimeIndex:
    """Lines of raw/calendar -> the sessions, tz-naive midnights."""
    return pd.DatetimeIndex(_times(_table(lines, ("session",))["session"]).dt.tz_localize(None))


def session_hours(lines: Iterable[Line]) -> SessionHours:
    """Lines of raw/calendar -> when the sessions open and close, in order."""
    table = _table(lines, ("session", "open", "close"))
    edges = (_times(table[edge]).dt.tz_localize(None).to_numpy().astype("datetime64[m]") for edge in ("open", "close"))
    return SessionHours(*(np.sort(edge) for edge in edges))


def session_closes(lines: Iterable[Line]) -> dict[date, datetime]:
    """Lines of raw/calendar -> when each session closes, UTC."""
    table = _table(lines, ("session", "close"))
    days, closes = _times(table["session"]).dt.date, _times(table["close"]).dt.to_pydatetime()
    return dict(zip(days, closes, strict=True))


def _table(lines: Iterable[Line], columns: tuple[str, ...]) -> pd.DataFrame:
    rows = list(lines)
    for row in rows:
        missing = [column for column in columns if column not in row]
        if missing:
            raise BarsError(f"a raw line needs {', '.join(columns)}; {', '.join(missing)} missing in {dict(row)}")
    return pd.DataFrame.from_records(rows, columns=list(columns))


def _times(column: pd.Series) -> pd.Series:
    try:
        return pd.to_datetime(column, utc=True, format="ISO8601").astype("datetime64[us, UTC]")
    except (TypeError, ValueError) as error:
        raise BarsError(f"{column.name} must hold ISO 8601 times: {error}") from error


def _numbers(table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        return table.astype(dict.fromkeys(columns, "float64"))
    except (TypeError, ValueError) as error:
        raise BarsError(f"{', '.join(columns)} must hold numbers: {error}") from error
