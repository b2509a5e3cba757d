"""The market as it was known at a close: the lake's raw bars and actions, validated, adjusted, with features.

Promises: nothing after `as_of` enters; history reaches at least `HISTORY_SESSIONS` back where the lake has it. Raises `StaleDataError`
when the lake's newest session is not `as_of`: no decision is ever made on an older close that passes for the last one. An action that
the vendor told late enters from the session on that could know it, so the market of a past decision can be built again as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd

from lambdas.common.lake.lake import Lake
from schema.features.sentiment import reach, sentiment_of
from schema.lake_layout import ACTIONS, BARS, actions_key, bars_key
from trading_env.data.bars import validate
from trading_env.data.corporate_actions import BREAK, known_by, rule_of
from trading_env.data.features import HISTORY_SESSIONS
from trading_env.data.market import Market, build_market, with_sentiment
from trading_env.data.raw_lines import action_table, bar_table
from trading_env.data.sentiment import LOOKBACK, SENTIMENT, closes_of
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


@dataclass(frozen=True)
class MarketSnapshot:
    """What a decision may rest on: the market up to the close of its last row, and which objects it was made of.

    `missing`: names without a bar at that close, with the session of their last one; None where the history has none.
    `broken`: names that are untradable and had an action that cannot be applied, with the newest one.
    `late`: actions that became known after their ex-date, with this close.
    """

    market: Market
    inputs_sha256: str
    quarantined: int
    missing: Mapping[str, date | None]
    broken: Mapping[str, KnownAction]
    late: tuple[KnownAction, ...]

    @property
    def as_of(self) -> date:
        """The session whose close is the last row."""
        return date.fromisoformat(str(self.market.sessions[-1]))


def years_needed(as_of: date) -> range:
    return range(as_of.year - HISTORY_YEARS, as_of.year + 1)


def market_snapshot(
    *, lake: Lake, symbols: Sequence[str], sessions: Sequence[date], as_of: date, sentiment: ScoredSources | None = None
) -> MarketSnapshot:
    """Build the market of `symbols` up to the close of `as_of`, which must be the newest session that has bars.

    `sessions` is the exchange's calendar over the years read. With `sentiment` its columns follow the features, in the last row
    alone: those of other rows, which no decision reads, are NaN.
    """
    bar_keys = [bars_key(symbol, year) for symbol in symbols for year in years_needed(as_of)]
    action_keys = [actions_key(symbol) for symbol in symbols]
    found_bars, found_actions = lake.read(bar_keys, prefix=BARS), lake.read(action_keys, prefix=ACTIONS)
    bars = bar_table(row for rows in found_bars.values() for row in rows)
    cut = pd.Timestamp(as_of)
    bars = bars[bars["session"] <= cut]
    if bars.empty or bars["session"].max() != cut:
        newest = "none" if bars.empty else bars["session"].max().date().isoformat()
        raise StaleDataError(f"the lake's newest daily bar must be of {as_of}, was {newest}; run backfill_bars, then decide again")
    lines = known_by((row for rows in found_actions.values() for row in rows), as_of)
    actions = action_table(lines)
    checked = validate(bars, sessions=pd.DatetimeIndex([pd.Timestamp(day) for day in sessions if day <= as_of]))
    market = build_market(checked.bars, actions[actions["ex_date"] <= cut], symbols=tuple(symbols))
    if market.sessions[-1] != np.datetime64(as_of, "D"):
        raise StaleDataError(f"no valid daily bar of {as_of}: {len(checked.quarantined)} rows are in quarantine; run backfill_bars again")
    scores: Mapping[str, Any] = {}
    if sentiment is not None:
        market, scores = _with_sentiment(market, lake=lake, scored=sentiment)
    return MarketSnapshot(
        market=market,
        inputs_sha256=_fingerprint(lake.etags([*found_bars, *found_actions, *scores])),
        quarantined=len(checked.quarantined),
        missing=_missing(market),
        broken=_broken(market, lines),
        late=tuple(_action(line, market) for line in lines if line.get("known") == as_of.isoformat()),
    )


def _with_sentiment(market: Market, *, lake: Lake, scored: ScoredSources) -> tuple[Market, Mapping[str, Any]]:
    closes = closes_of(market.sessions[-LOOKBACK - 1 :], scored.closes)
    since, until = reach(closes, first=len(closes) - 1)
    objects = lake.scores(sources=scored.sources, since=since, until=until)
    values = np.full((*market.close.shape, len(SENTIMENT)), np.nan)
    values[-1] = sentiment_of(objects, closes=closes, symbols=market.symbols, sources=scored.sources)[-1]
    return with_sentiment(market, values), objects


def _missing(market: Market) -> dict[str, date | None]:
    found: dict[str, date | None] = {}
    for symbol, closes in zip(market.symbols, market.close.T, strict=True):
        if not np.isfinite(closes[-1]):
            days = market.sessions[np.isfinite(closes)]
            found[symbol] = date.fromisoformat(str(days[-1])) if len(days) else None
    return found


def _broken(market: Market, lines: Iterable[Mapping[str, Any]]) -> dict[str, KnownAction]:
    past = sorted((line for line in lines if line["kind"] == BREAK and line["ex_date"] <= str(market.sessions[-1])), key=_ex_date)
    found = {line["symbol"]: _action(line, market) for line in past}
    return {symbol: found[symbol] for symbol, may in zip(market.symbols, market.tradable[-1], strict=True) if not may and symbol in found}


def _action(line: Mapping[str, Any], market: Market) -> KnownAction:
    since = int((market.sessions >= np.datetime64(line["ex_date"], "D")).sum())
    named = {name: line[name] for name in ("symbol", "ex_date", "value")}
    return KnownAction(**named, action=line.get("action", line["kind"]), sessions=since)


def _ex_date(line: Mapping[str, Any]) -> str:
    return str(line["ex_date"])


def _fingerprint(etags: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(f"{key} {etag}" for key, etag in sorted(etags.items())).encode()).hexdigest()
