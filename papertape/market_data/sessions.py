"""The sessions of the recorded year, as XNYS kept them, half days included."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

import exchange_calendars
import pandas as pd

from trading_env.data.slot_bars import SessionHours

NEW_YORK = ZoneInfo("America/New_York")
YEAR = (date(2020, 1, 2), date(2020, 12, 31))


@dataclass(frozen=True, kw_only=True)
class TradingSession:
    """One session of the exchange's calendar: its open and close, aware datetimes in UTC, and its number from 0."""

    number: int
    opens: datetime
    closes: datetime

    @property
    def date(self) -> str:
        return self.opens.astimezone(NEW_YORK).date().isoformat()


def sessions_between(start: date, end: date) -> list[TradingSession]:
    """The exchange's sessions from `start` to `end`, both included."""
    schedule = schedule_between(start, end)
    return [
        TradingSession(number=number, opens=opens.to_pydatetime(), closes=closes.to_pydatetime())
        for number, (opens, closes) in enumerate(zip(schedule["open"], schedule["close"], strict=True))
    ]


def hours_between(start: date, end: date) -> SessionHours:
    """When the exchange's sessions from `start` to `end`, both included, open and close."""
    within = schedule_between(start, end)
    opens, closes = (within[name].dt.tz_localize(None).to_numpy().astype("datetime64[m]") for name in ("open", "close"))
    return SessionHours(opens, closes)


def schedule_between(start: date, end: date) -> pd.DataFrame:
    """The `open` and `close` in UTC of each session from `start` to `end`, both included, by the session's date."""
    # Whole decades: a calendar of a week takes as long to make as one of thirty years
    return _schedule(start.year // 10 * 10, end.year // 10 * 10 + 9).loc[start.isoformat() : end.isoformat()]


@lru_cache(maxsize=4)
def _schedule(first: int, last: int) -> pd.DataFrame:
    schedule: pd.DataFrame = exchange_calendars.get_calendar("XNYS", start=f"{first}-01-01", end=f"{last}-12-31").schedule
    return schedule
