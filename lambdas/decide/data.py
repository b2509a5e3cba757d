"""The market as it was known at a close: the lake's raw bars and actions, validated, adjusted, with features.

Promises: nothing after `as_of` enters; history reaches at least `HISTORY_SESSIONS` back where the lake has it. Raises `StaleDataError`
when the lake's newest session is not `as_of`: no decision is ever made on an older close that passes for the last one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from lambdas.common.lake.lake import Lake
from schema.lake_layout import ACTIONS, BARS, actions_key, bars_key
from trading_env.data.bars import validate
from trading_env.data.features import HISTORY_SESSIONS
from trading_env.data.market import Market, build_market
from trading_env.data.raw_lines import action_table, bar_table
from trading_env.errors import PapertapeError

# A year has at least 250 sessions: this many whole years hold the history whatever the date
HISTORY_YEARS = -(-HISTORY_SESSIONS // 250)


class StaleDataError(PapertapeError, RuntimeError):
    """The lake does not reach the close that the decision must observe."""


@dataclass(frozen=True)
class MarketSnapshot:
    """What a decision may rest on: the market up to the close of its last row, and which objects it was made of.

    `missing`: names without a bar at that close, with the session of their last one; None where the history has none.
    """

    market: Market
    inputs_sha256: str
    quarantined: int
    missing: Mapping[str, date | None]

    @property
    def as_of(self) -> date:
        """The session whose close is the last row."""
        return date.fromisoformat(str(self.market.sessions[-1]))


def years_needed(as_of: date) -> range:
    return range(as_of.year - HISTORY_YEARS, as_of.year + 1)


def market_snapshot(*, lake: Lake, symbols: Sequence[str], sessions: Sequence[date], as_of: date) -> MarketSnapshot:
    """Build the market of `symbols` up to the close of `as_of`, which must be the newest session that has bars.

    `sessions` is the exchange's calendar over the years read.
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
    actions = action_table(row for rows in found_actions.values() for row in rows)
    checked = validate(bars, sessions=pd.DatetimeIndex([pd.Timestamp(day) for day in sessions if day <= as_of]))
    market = build_market(checked.bars, actions[actions["ex_date"] <= cut], symbols=tuple(symbols))
    if market.sessions[-1] != np.datetime64(as_of, "D"):
        raise StaleDataError(f"no valid daily bar of {as_of}: {len(checked.quarantined)} rows are in quarantine; run backfill_bars again")
    return MarketSnapshot(
        market=market,
        inputs_sha256=_fingerprint(lake.etags([*found_bars, *found_actions])),
        quarantined=len(checked.quarantined),
        missing=_missing(market),
    )


def _missing(market: Market) -> dict[str, date | None]:
    found: dict[str, date | None] = {}
    for symbol, closes in zip(market.symbols, market.close.T, strict=True):
        if not np.isfinite(closes[-1]):
            days = market.sessions[np.isfinite(closes)]
            found[symbol] = date.fromisoformat(str(days[-1])) if len(days) else None
    return found


def _fingerprint(etags: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(f"{key} {etag}" for key, etag in sorted(etags.items())).encode()).hexdigest()
