"""Raw lakes for tests: bundled real bars, actions and calendar, in the lines that backfill_bars writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import lru_cache

import exchange_calendars
import pandas as pd

from lambdas.common.lake.lake import Lake, Row, pack
from papertape.market_data import bundled
from schema.lake_layout import actions_key, bars_key, calendar_key
from schema.slot import SlotRows


def fill_raw(lake: Lake, *, symbols: Sequence[str], start: str, end: str) -> None:
    """Write the symbols' bars and actions from `start` to `end`, and the calendar from the year of `start` to that after `end`."""
    for key, body in _packed(tuple(symbols), start, end).items():
        lake.s3.put_object(Bucket=lake.raw_bucket, Key=key, Body=body, ContentType="application/gzip")


@lru_cache(maxsize=8)
def _packed(symbols: tuple[str, ...], start: str, end: str) -> dict[str, bytes]:
    objects: dict[str, list[Row]] = {}
    for row in bar_lines(symbols=symbols, start=start, end=end):
        objects.setdefault(bars_key(row["symbol"], int(row["ts"][:4])), []).append(row)
    for row in action_lines(symbols=symbols, end=end):
        objects.setdefault(actions_key(row["symbol"]), []).append(row)
    known = {calendar_key(year) for year in range(int(start[:4]), int(end[:4]) + 2)}
    objects |= {key: rows for key, rows in calendar_objects().items() if key in known}
    return {key: pack(rows) for key, rows in objects.items()}


def bar_lines(*, symbols: Sequence[str], start: str, end: str) -> list[Row]:
    bars = _bars()
    own = bars[bars["symbol"].isin(symbols) & (bars["session"] >= start) & (bars["session"] <= end)]
    starts = own["session"].dt.tz_localize("America/New_York").dt.tz_convert("UTC").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    columns = ["symbol", "open", "high", "low", "close", "volume"]
    return [{**row, "ts": ts} for row, ts in zip(own[columns].to_dict("records"), starts, strict=True)]  # type: ignore[misc]


def action_lines(*, symbols: Sequence[str], end: str) -> list[Row]:
    actions = bundled.corporate_actions()
    own = actions[actions["symbol"].isin(symbols) & (actions["ex_date"] <= end)]
    return [
        {"symbol": row.symbol, "ex_date": f"{row.ex_date:%Y-%m-%d}", "kind": row.kind, "value": float(row.value)}  # type: ignore[arg-type]
        for row in own.itertuples()
    ]


def slot_objects(bars: pd.DataFrame, rows: SlotRows) -> dict[str, list[Row]]:
    """`bars` of `slot_bars` as backfill_bars writes them: each name and year an object."""
    lines = bars.assign(ts=bars["session"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).drop(columns="session")
    found = lines.groupby([bars["symbol"], bars["session"].dt.year])
    return {bars_key(str(symbol), int(year), rows): own.to_dict("records") for (symbol, year), own in found}  # type: ignore[misc]


@lru_cache(maxsize=1)
def calendar_objects() -> dict[str, list[Row]]:
    schedule = exchange_calendars.get_calendar("XNYS", start="2004-01-02", end="2021-12-31").schedule
    objects: dict[str, list[Row]] = {}
    for session, hours in schedule.iterrows():
        day: date = session.date()
        opens, closes = (hours[edge].strftime("%Y-%m-%dT%H:%M:%SZ") for edge in ("open", "close"))
        objects.setdefault(calendar_key(day.year), []).append({"session": day.isoformat(), "open": opens, "close": closes})
    return objects


@lru_cache(maxsize=1)
def _bars() -> pd.DataFrame:
    return bundled.daily_bars().sort_values(["symbol", "session"])
