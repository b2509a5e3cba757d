"""The market of slot bars that a replay trades, straight from the exchange's tables: not by its clock, its wire or the lake.

Every minute from the first session to the last is gathered at once, so agreement with what was deployed, which knew them slot by slot, is
agreement of two paths. Where the minutes are made (`local/exchange/market/made_minutes.py`), they are evidence of nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from local.aws.emulator import ROOT
from local.exchange.recorded_market import MINUTE, MinutesKind, RecordedMarket
from local.exchange.serving import recorded_market
from papertape.market_data import bundled
from papertape.market_data.sessions import hours_between, sessions_between
from schema.settings import Settings
from schema.slot import SlotRows
from trading_env.data.features import HISTORY_SESSIONS
from trading_env.data.market import Market, build_market
from trading_env.data.slot_bars import MINUTE_COLUMNS, slot_bars


def minutes_start(rows: SlotRows, *, first: date) -> date:
    """The session from which minutes must be there, so that the row before session `first` has the whole history of its features."""
    sessions = -(-HISTORY_SESSIONS // len(rows.slots)) + 1
    return date.fromisoformat(sessions_between(first - timedelta(days=2 * sessions + 10), first - timedelta(days=1))[-sessions].date)


def slot_market(
    settings: Settings, rows: SlotRows, *, start: date, end: date, minutes: MinutesKind = "made", data: Path = ROOT / "data"
) -> Market:
    """The universe's slot bars of the sessions from `start` to `end`, both included, with the bundle's corporate actions."""
    recorded = recorded_market(data, minutes=minutes)
    table = pd.DataFrame(
        (row for symbol in settings.universe.symbols for row in _minutes(recorded, symbol, start=start, end=end)),
        columns=list(MINUTE_COLUMNS),
    )
    table["ts"] = table["ts"].astype("datetime64[us, UTC]")
    gathered = slot_bars(table, hours=hours_between(start, end), slots=rows.slots, window=rows.window)
    return build_market(gathered.bars, bundled.corporate_actions(folder=data), symbols=settings.universe.symbols)


def _minutes(market: RecordedMarket, symbol: str, *, start: date, end: date) -> Iterator[tuple[Any, ...]]:
    for session in market.calendar.between(start, end):
        for bar in market.minutes_in(symbol, start=session.open, end=session.close - MINUTE, now=session.close):
            prices = (float(price) for price in (bar.open, bar.high, bar.low, bar.close))
            yield symbol, bar.start, *prices, float(bar.volume)
