"""The market as it was known at a close, or in a slot: raw bars and actions, validated, adjusted, with features.

Promises: nothing after the last row enters; history reaches at least `HISTORY_SESSIONS` rows back where the lake has it. Raises
`StaleDataError` when the newest row is not the one that is asked for: no decision is ever made on an older one that passes for the last.
An action that the vendor told late enters from the session on that could know it, so the market of a past decision can be built again as
it was. With slot bars a row is the lake's, or of the running session, which the lake does not hold yet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd

from lambdas.common.lake.lake import Lake, Row
from schema.features.sentiment import reach, sentiment_of
from schema.lake_layout import ACTIONS, actions_key, bars_key, bars_prefix
from schema.slot import SlotRows
from trading_env.data.bars import Sessions, validate
from trading_env.data.corporate_actions import BREAK, known_by, rule_of
from trading_env.data.features import HISTORY_SESSIONS
from trading_env.data.market import Market, build_market, with_sentiment
from trading_env.data.raw_lines import action_table, bar_table
from trading_env.data.sentiment import LOOKBACK, SENTIMENT, closes_of
from trading_env.data.slot_bars import SessionHours
from trading_env.errors import PapertapeError

# A year has at least 250 sessions: this many whole years hold the history whatever the date
HISTORY_YEARS = -(-HISTORY_SESSIONS // 250)


class StaleDataError(PapertapeError, RuntimeError):
    """The lake does not reach the close that the decision must observe."""


@dataclass(frozen=True, kw_only=True)
class KnownAction:
    """A corporate action as the lake has it; `sessions` closes have been observed since its ex-date, that one included."""

    symbol: str
    ex_date: str
    action: str
    value: float | None
    sessions: int

    def __str__(self) -> str:
        amount = "" if self.value is None else f", {self.value:g} per share"
        return f"{self.symbol} {rule_of(self.action).means} ({self.action.replace('_', ' ')} of {self.ex_date}{amount})"


@dataclass(frozen=True)
class ScoredSources:
    """Whose posts are read, and when each session of the calendar closes."""

    sources: tuple[str, ...]
    closes: Mapping[date, datetime]


@dataclass(frozen=True, kw_only=True)
class TodaysRows:
    """What the lake does not hold yet: the lines of the running session's slots that have ended, and the actions of its day."""

    lines: Sequence[Row]
    actions: Sequence[Row]
    quarantined: int


@dataclass(frozen=True, kw_only=True)
class SlotHistory:
    """Which slot rows a market is made of.

    Attributes:
        rows: where sessions are cut.
        hours: the calendar's sessions up to the one of the last row.
        until: when the last row ends, by the next slot or the close: nothing that begins then or later is known.
        today: the running session's rows; None where all lie in the lake.
    """

    rows: SlotRows
    hours: SessionHours
    until: datetime
    today: TodaysRows | None = None

    @property
    def allowed(self) -> Sessions:
        """The rows (T,) that a bar may be of, the last of which must be there."""
        rows = self.hours.rows(self.rows.slots)
        return rows[rows < np.datetime64(self.until.astimezone(UTC).replace(tzinfo=None), "m")]

    def stored(self, allowed: Sessions) -> Sessions:
        """Those of them that the lake must reach."""
        return allowed if self.today is None else allowed[allowed < self.hours.opens[-1]]


@dataclass(frozen=True)
class MarketSnapshot:
    """What a decision may rest on: the market up to the end of its last row, and what it was made of.

    `missing`: names without a bar in that row, with the row of their last one; None where the history has none.
    `broken`: names that are untradable and had an action that cannot be applied, with the newest one.
    `late`: actions that became known after their ex-date, with this session's close.
    `until`: when the last row ended, with slot bars; None where it is a session's.
    """

    market: Market
    inputs_sha256: str
    quarantined: int
    missing: Mapping[str, str | None]
    broken: Mapping[str, KnownAction]
    late: tuple[KnownAction, ...]
    until: datetime | None = None

    @property
    def as_of(self) -> date:
        """The session of the last row."""
        return date.fromisoformat(str(self.market.days[-1]))

    @property
    def newest(self) -> str:
        """The last row in words: its session, or the instant of its slot."""
        return row_named(self.market.sessions[-1])


def row_named(key: np.datetime64) -> str:
    return f"{key}Z" if key.dtype == np.dtype("datetime64[m]") else str(key)


def years_needed(as_of: date) -> range:
    return range(as_of.year - HISTORY_YEARS, as_of.year + 1)


def market_snapshot(
    *,
    lake: Lake,
    symbols: Sequence[str],
    sessions: Sequence[date],
    as_of: date,
    sentiment: ScoredSources | None = None,
    slots: SlotHistory | None = None,
) -> MarketSnapshot:
    """Build the market of `symbols` up to the close of `as_of`, which must be the newest session that has bars.

    `sessions` is the exchange's calendar over the years read. With `sentiment` its columns follow the features, in the last row
    alone: those of other rows, which no decision reads, are NaN. With `slots` the rows are slot bars, the last of them one of `as_of`.
    """
    rows, today = (None, None) if slots is None else (slots.rows, slots.today)
    bar_keys = [bars_key(symbol, year, rows) for symbol in symbols for year in years_needed(as_of)]
    action_keys = [actions_key(symbol) for symbol in symbols]
    found_bars, found_actions = lake.read(bar_keys, prefix=bars_prefix(rows)), lake.read(action_keys, prefix=ACTIONS)
    bars = bar_table((row for lines in found_bars.values() for row in lines), by_slot=rows is not None)
    if slots is None:
        allowed: Sessions = np.array([day for day in sessions if day <= as_of], dtype="datetime64[D]")
        bars = _up_to(bars, allowed[-1:], what="daily bar")
    else:
        allowed = slots.allowed
        bars = _up_to(bars, slots.stored(allowed)[-1:], what="slot bar")
    if today is not None:
        bars = pd.concat([bars, bar_table(today.lines, by_slot=True)], ignore_index=True)
    lines = _known(found_actions.values(), as_of, sessions=sessions, today=today)
    actions = action_table(lines)
    checked = validate(bars, sessions=allowed)
    market = build_market(checked.bars, actions[actions["ex_date"] <= pd.Timestamp(as_of)], symbols=tuple(symbols))
    if market.sessions[-1] != allowed[-1]:
        raise StaleDataError(_not_there(market, allowed[-1], quarantined=len(checked.quarantined), today=today))
    scores: Mapping[str, Any] = {}
    if sentiment is not None:
        market, scores = _with_sentiment(market, lake=lake, scored=sentiment)
    return MarketSnapshot(
        market=market,
        inputs_sha256=_fingerprint(lake.etags([*found_bars, *found_actions, *scores]) | _own(today)),
        quarantined=len(checked.quarantined) + (0 if today is None else today.quarantined),
        missing=_missing(market),
        broken=_broken(market, lines),
        late=tuple(_action(line, market) for line in lines if line.get("known") == as_of.isoformat()),
        until=None if slots is None else slots.until,
    )


def _up_to(bars: pd.DataFrame, last: Sessions, *, what: str) -> pd.DataFrame:
    """The lake's bars up to the row `last` (1,), which must be the newest; none are needed where there is no such row."""
    if not len(last):
        return bars[:0]
    bars = bars[bars["session"] <= pd.Timestamp(last[0])]
    newest = None if bars.empty else np.datetime64(bars["session"].max(), "us").astype(last.dtype)
    if newest != last[0]:
        was = "none" if newest is None else row_named(newest)
        raise StaleDataError(f"the lake's newest {what} must be of {row_named(last[0])}, was {was}; run backfill_bars, then decide again")
    return bars


def _known(found: Iterable[Sequence[Row]], as_of: date, *, sessions: Sequence[date], today: TodaysRows | None) -> list[Mapping[str, Any]]:
    """The actions that could be known. The lake hears of a running session's after its close, so those are the vendor's of today."""
    stored = (row for lines in found for row in lines)
    if today is None:
        return known_by(stored, as_of)
    told = {_content(line) for line in today.actions}
    last = max((day for day in sessions if day < as_of), default=as_of)
    return [*(line for line in known_by(stored, last) if _content(line) not in told), *today.actions]


def _content(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return line["symbol"], line["kind"], line["ex_date"]


def _not_there(market: Market, wanted: np.datetime64, *, quarantined: int, today: TodaysRows | None) -> str:
    if today is not None:
        newest = row_named(market.sessions[-1])
        return f"no name has a bar of the slot {row_named(wanted)}, the newest is of {newest}: the vendor's minutes do not reach it"
    what = "slot" if market.by_slot else "daily"
    return f"no valid {what} bar of {row_named(wanted)}: {quarantined} rows are in quarantine; run backfill_bars again"


def _own(today: TodaysRows | None) -> dict[str, str]:
    """What was read elsewhere than in the lake, as it enters the fingerprint."""
    if today is None:
        return {}
    return {
        name: hashlib.sha256(json.dumps(list(lines), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()
        for name, lines in (("today/bars", today.lines), ("today/actions", today.actions))
    }


def _with_sentiment(market: Market, *, lake: Lake, scored: ScoredSources) -> tuple[Market, Mapping[str, Any]]:
    closes = closes_of(market.sessions[-LOOKBACK - 1 :], scored.closes)
    since, until = reach(closes, first=len(closes) - 1)
    objects = lake.scores(sources=scored.sources, since=since, until=until)
    values = np.full((*market.close.shape, len(SENTIMENT)), np.nan)
    values[-1] = sentiment_of(objects, closes=closes, symbols=market.symbols, sources=scored.sources)[-1]
    return with_sentiment(market, values), objects


def _missing(market: Market) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for symbol, closes in zip(market.symbols, market.close.T, strict=True):
        if not np.isfinite(closes[-1]):
            rows = market.sessions[np.isfinite(closes)]
            found[symbol] = row_named(rows[-1]) if len(rows) else None
    return found


def _broken(market: Market, lines: Iterable[Mapping[str, Any]]) -> dict[str, KnownAction]:
    past = sorted((line for line in lines if line["kind"] == BREAK and line["ex_date"] <= str(market.days[-1])), key=_ex_date)
    found = {line["symbol"]: _action(line, market) for line in past}
    return {symbol: found[symbol] for symbol, may in zip(market.symbols, market.tradable[-1], strict=True) if not may and symbol in found}


def _action(line: Mapping[str, Any], market: Market) -> KnownAction:
    since = int((np.unique(market.days) >= np.datetime64(line["ex_date"], "D")).sum())
    named = {name: line[name] for name in ("symbol", "ex_date", "value")}
    return KnownAction(**named, action=line.get("action", line["kind"]), sessions=since)


def _ex_date(line: Mapping[str, Any]) -> str:
    return str(line["ex_date"])


def _fingerprint(etags: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(f"{key} {etag}" for key, etag in sorted(etags.items())).encode()).hexdigest()
