"""Bring the lake's raw daily bars, corporate actions and calendar up to the broker's last completed session.

Promises: running it again changes nothing; a bar that the vendor restates replaces the old one and is counted and named; what the
vendor does not send stays as it was. A vendor that answers for none of the symbols raises `BackfillError`: silence is not an empty
market. Nothing is read or written before every vendor answer has arrived.

A session's bar of the same evening lacks the volume of the hours after the close; each of the next nights asks for it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from lambdas.backfill_bars.actions import LATE_WITHIN, Span, merge
from lambdas.backfill_bars.merging import merge_bars
from lambdas.common.broker.port import MarketData, Session
from lambdas.common.lake.lake import Lake, Row
from schema.exchange_time import iso, new_york_date, parse_utc
from schema.lake_layout import ACTIONS, BARS, CALENDAR, actions_key, bars_key, calendar_key
from trading_env.errors import PapertapeError

NIGHTLY_SESSIONS = 7


class BackfillError(PapertapeError, RuntimeError):
    """The vendor's answer cannot be stored."""


@dataclass(frozen=True)
class BackfillWindow:
    """Inclusive session dates to fetch. `completed`: the last session of all, whose decision is the first to know what is fetched now."""

    start: date
    end: date
    actions_start: date
    completed: date


@dataclass(frozen=True)
class Backfilled:
    """What one run did; counts of rows, each restated bar as "symbol session field old -> new", each action that came late."""

    start: date
    end: date
    bars: int
    actions: int
    restated: tuple[str, ...]
    late: tuple[str, ...]
    silent: tuple[str, ...]
    objects_written: int

    def summary(self) -> dict[str, Any]:
        return {
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "bars": self.bars,
            "actions": self.actions,
            "restated": len(self.restated),
            "late": len(self.late),
            "silent": list(self.silent),
            "objects_written": self.objects_written,
        }


def nightly_window(*, sessions: Sequence[Session], now: datetime) -> BackfillWindow:
    """The last sessions that have closed by `now`; raises `BackfillError` when there is none."""
    closed = [session.date for session in sessions if session.close <= now][-NIGHTLY_SESSIONS:]
    if not closed:
        raise BackfillError(f"the broker's calendar has no completed session before {now.isoformat()}")
    last = closed[-1]
    return BackfillWindow(start=closed[0], end=last, actions_start=last - LATE_WITHIN, completed=last)


def backfill(*, vendor: MarketData, lake: Lake, symbols: Sequence[str], window: BackfillWindow) -> Backfilled:
    """Merge the vendor's bars and actions of `window` into the lake; the calendar is written to the end of the next year."""
    bars = vendor.daily_bars(symbols, window.start, window.end)
    actions = vendor.corporate_actions(symbols, window.actions_start, window.end)
    sessions = vendor.sessions(date(window.start.year, 1, 1), date(window.end.year + 1, 12, 31))
    if not bars:
        raise BackfillError(f"the vendor sent no bar of {len(symbols)} symbols from {window.start} to {window.end}")

    merged, restated = merge_bars(lake, bars)
    found, late = _merge_actions(lake, actions, symbols, window)
    written = lake.write(merged | found | _calendar(lake, sessions))
    sent = {row["symbol"] for row in bars}
    return Backfilled(
        start=window.start,
        end=window.end,
        bars=len(bars),
        actions=len(actions),
        restated=tuple(restated),
        late=tuple(late),
        silent=tuple(symbol for symbol in symbols if symbol not in sent),
        objects_written=len(written),
    )


def _merge_actions(
    lake: Lake, actions: Sequence[Row], symbols: Sequence[str], window: BackfillWindow
) -> tuple[dict[str, list[Row]], list[str]]:
    """The objects to write, and the actions that came late. What lies before a name's first bar has nothing to be applied to."""
    stored = lake.read(map(actions_key, symbols), prefix=ACTIONS)
    objects: dict[str, list[Row]] = {}
    late: list[str] = []
    for symbol, bars in _stored_bars(lake, symbols, window).items():
        begins = window.start if bars is None else min(bars.first, window.start)
        found = merge(
            stored.get(actions_key(symbol), ()),
            [row for row in actions if row["symbol"] == symbol],
            first=max(window.actions_start, begins),
            last=window.end,
            bars=bars,
            known=window.completed,
        )
        late += [f"{symbol} {row['ex_date']} {row['action']}" for row in found.late]
        if found.rows or actions_key(symbol) in stored:
            objects[actions_key(symbol)] = found.rows
    return objects, late


def _stored_bars(lake: Lake, symbols: Sequence[str], window: BackfillWindow) -> dict[str, Span | None]:
    """By name, the sessions that the lake has bars of, as far as they lie in the years of `window`."""
    years = range(window.actions_start.year, window.end.year + 1)
    keys = {symbol: [bars_key(symbol, year) for year in years] for symbol in symbols}
    stored = lake.read([key for own in keys.values() for key in own], prefix=BARS)
    spans: dict[str, Span | None] = {}
    for symbol, own in keys.items():
        rows = [row for key in own for row in stored.get(key, ())]
        first, last = (new_york_date(parse_utc(row["ts"])) for row in (rows[0], rows[-1])) if rows else (None, None)
        spans[symbol] = Span(first, last) if first and last else None
    return spans


def _calendar(lake: Lake, sessions: Iterable[Session]) -> dict[str, list[Row]]:
    years: dict[str, list[Row]] = {}
    for session in sessions:
        row = {"session": session.date.isoformat(), "open": iso(session.open), "close": iso(session.close)}
        years.setdefault(calendar_key(session.date.year), []).append(row)
    lake.read(years, prefix=CALENDAR)
    return years
