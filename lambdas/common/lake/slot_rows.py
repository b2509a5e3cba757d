"""A vendor's one-minute bars as the lake's slot rows: what the backfill stores of the past, and what a decision observes of its own day.

Promises: both make equal lines of equal minutes, because this is the one place where they are made; a line is made of a slot that has
ended, and of nothing that begins later; prices are raw, as of daily bars. A vendor that fails raises `BrokerUnavailable`, a line that
cannot be read as a bar `BarsError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from lambdas.common.broker.port import MarketData, Session
from schema.exchange_time import iso
from schema.slot import SlotRows
from trading_env.data.bars import PRICE_COLUMNS, Sessions
from trading_env.data.raw_lines import minute_table
from trading_env.data.slot_bars import SessionHours, slot_bars

MINUTE = timedelta(minutes=1)
Line = dict[str, Any]


@dataclass(frozen=True)
class GatheredSlots:
    """What the vendor's minutes come to.

    Attributes:
        lines: symbol, ts (the slot's instant), open, high, low, close, volume, as daily bars' lines, by symbol and ts.
        quarantined: minutes that are no bars.
        outside: minutes outside of the sessions' hours.
        late: (symbol, ts) of the slots in whose window the name has no minute, but a later one: it has no line there.
    """

    lines: list[Line]
    quarantined: int
    outside: int
    late: list[tuple[str, str]]


def gathered(vendor: MarketData, *, symbols: Sequence[str], hours: SessionHours, until: datetime, rows: SlotRows) -> GatheredSlots:
    """Fetch the minutes of `hours` that have ended by `until`, and gather the slots that have: by the next slot, or the session's close."""
    starts, ends = _spans(hours, rows.slots)
    now = _minute(until)
    ended = starts[ends <= now]
    if not len(ended):
        return GatheredSlots(lines=[], quarantined=0, outside=0, late=[])
    last = _moment(min(now, hours.closes[-1])) - MINUTE
    minutes = vendor.minute_bars(symbols, _moment(hours.opens[0]), last, feed=rows.feed)
    found = slot_bars(minute_table(minutes), hours=hours, slots=rows.slots, window=rows.window)
    bars, late = _of(found.bars, ended), _of(found.late, ended)
    return GatheredSlots(
        lines=[
            {"symbol": symbol, "ts": ts, **dict(zip((*PRICE_COLUMNS, "volume"), values, strict=True))}
            for symbol, ts, values in zip(bars["symbol"], _ts(bars), bars[[*PRICE_COLUMNS, "volume"]].to_numpy().tolist(), strict=True)
        ],
        quarantined=len(found.quarantined),
        outside=found.outside,
        late=list(zip(late["symbol"], _ts(late), strict=True)),
    )


def hours_of(sessions: Sequence[Session]) -> SessionHours:
    """Opens and closes of sessions in order, as minutes (UTC)."""
    opens, closes = ([_minute(edge) for edge in edges] for edges in ((s.open for s in sessions), (s.close for s in sessions)))
    return SessionHours(np.array(opens, dtype="datetime64[m]"), np.array(closes, dtype="datetime64[m]"))


def _spans(hours: SessionHours, slots: Sequence[int]) -> tuple[Sessions, Sessions]:
    """Beginnings and ends of the rows of `hours`."""
    starts = hours.rows(slots)
    closes = hours.closes[np.searchsorted(hours.opens, starts, side="right") - 1]
    following = np.append(starts[1:], closes[-1:])
    return starts, np.minimum(following, closes)


def _of(table: pd.DataFrame, rows: Sessions) -> pd.DataFrame:
    return table[np.isin(table["session"].to_numpy().astype("datetime64[m]"), rows)]


def _ts(table: pd.DataFrame) -> list[str]:
    return [iso(_moment(minute)) for minute in table["session"].to_numpy()]


def _minute(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "m")


def _moment(minute: np.datetime64) -> datetime:
    return datetime.fromtimestamp(int(minute.astype("datetime64[s]").astype(np.int64)), tz=UTC)
