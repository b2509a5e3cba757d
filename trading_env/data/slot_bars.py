"""One-minute bars gathered into slot bars: the rows of a market that is decided on several times a session.

A session is cut at its slots. The bar of a slot reaches to the next slot, the last one to the close; what was traded before the first slot
belongs to the first bar. It opens at the first minute from the slot on, which is where a decision made in that slot is filled.

Promises: a bar holds nothing after its end, so that a decision in the next slot knows all of it; none reaches over a night, so prices on
two sides of a split never meet in one. No price is made up: a name without a minute in a slot's window has no bar there, and does not
trade. A slot at or after the close of a shortened session is no row. Slots count from each session's own open, whatever the clocks did.
Failure: `BarsError`, as `validate`, and on slots that are not in order within a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from trading_env.data.bars import BAR_COLUMNS, BarsError, Sessions, validate

MINUTE_COLUMNS = ("symbol", "ts", "open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class SessionHours:
    """Opens and closes (S,) of sessions in order, datetime64[m], UTC."""

    opens: Sessions
    closes: Sessions

    @property
    def minutes(self) -> Sessions:
        """The start of every minute of every session."""
        spans = [np.arange(begin, end) for begin, end in zip(self.opens, self.closes, strict=True)]
        return np.concatenate(spans) if spans else np.empty(0, dtype="datetime64[m]")

    def rows(self, slots: Sequence[int]) -> Sessions:
        """The slots (T,) that begin before their session's close, in order; `slots` are minutes after the open."""
        if not slots or slots[0] < 0 or any(later <= earlier for earlier, later in pairwise(slots)):
            raise BarsError(f"slots must be minutes after the open, in order, was {list(slots)}")
        begins = self.opens[:, None] + np.array(slots, dtype="timedelta64[m]")
        return np.asarray(begins[begins < self.closes[:, None]], dtype="datetime64[m]")


@dataclass(frozen=True)
class SlotBars:
    """What `slot_bars` returns.

    Attributes:
        bars: `BAR_COLUMNS`, sorted by symbol and row; `session` is the bar's slot, UTC, without a zone.
        quarantined: minutes that are not bars, with `reason`, as `validate`.
        outside: how many minutes lie outside of the sessions' hours and were left out.
        late: symbol and `session` of the slots in whose window the name has no minute, but a later one.
    """

    bars: pd.DataFrame
    quarantined: pd.DataFrame
    outside: int
    late: pd.DataFrame


def slot_bars(minutes: pd.DataFrame, *, hours: SessionHours, slots: Sequence[int], window: int) -> SlotBars:
    """Gather `minutes`, `MINUTE_COLUMNS` with a tz-aware `ts` at each minute's start, into one bar per name and slot.

    Args:
        hours: the sessions that the minutes may lie in.
        slots: minutes after the open.
        window: a slot lasts so many minutes; its bar opens with a minute of these.
    """
    missing = [column for column in MINUTE_COLUMNS if column not in minutes.columns]
    if missing or not isinstance(minutes["ts"].dtype, pd.DatetimeTZDtype):
        raise BarsError(f"minutes need {', '.join(MINUTE_COLUMNS)}, with a tz-aware ts; {', '.join(missing) or 'ts'} is not so")
    rows = hours.rows(slots)
    stamped = minutes.assign(session=minutes["ts"].dt.tz_convert("UTC").dt.tz_localize(None))
    inside = np.isin(stamped["session"].to_numpy().astype("datetime64[m]"), hours.minutes)
    checked = validate(stamped.loc[inside, list(BAR_COLUMNS)], sessions=hours.minutes)
    begins = checked.bars["session"].to_numpy().astype("datetime64[m]")
    # A session's minutes before its first slot belong to that slot; a session without a slot has none
    session = np.searchsorted(hours.opens, begins, side="right") - 1
    first = np.searchsorted(rows, hours.opens)
    has_slot = first < np.searchsorted(rows, hours.closes)
    row = np.maximum(np.searchsorted(rows, begins, side="right") - 1, first[session])
    good = checked.bars.assign(row=row, minute=begins)[has_slot[session]]
    slot_of = rows[good["row"].to_numpy()] if len(good) else np.empty(0, dtype="datetime64[m]")
    whole = good.groupby(["symbol", "row"]).agg(high=("high", "max"), low=("low", "min"), close=("close", "last"), volume=("volume", "sum"))
    filled = good[good["minute"].to_numpy() >= slot_of].groupby(["symbol", "row"]).agg(open=("open", "first"), minute=("minute", "first"))
    table = whole.join(filled, how="inner").reset_index()
    slot = rows[table["row"].to_numpy()] if len(table) else np.empty(0, dtype="datetime64[m]")
    in_time = table["minute"].to_numpy() < slot + np.timedelta64(window, "m")
    table["session"] = slot.astype("datetime64[us]")
    bars = table.loc[in_time, list(BAR_COLUMNS)].reset_index(drop=True)
    late = table.loc[~in_time, ["symbol", "session"]].reset_index(drop=True)
    return SlotBars(bars=bars, quarantined=checked.quarantined, outside=int((~inside).sum()), late=late)
