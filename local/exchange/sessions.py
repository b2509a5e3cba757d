"""The exchange's trading days: regular hours of XNYS, half days included.

An `ExchangeCalendar` answers every question about hours from a sorted tuple of sessions; a moment outside the range it was built for is a
`ValueError` that names the moment and the range, never a guess.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import exchange_calendars

NEW_YORK = ZoneInfo("America/New_York")


@dataclass(frozen=True, slots=True)
class ExchangeSession:
    """One trading day; `midnight`, `open` and `close` are UTC, `midnight` being 00:00 in New York."""

    date: date
    midnight: datetime
    open: datetime
    close: datetime


def new_york_midnight(day: date) -> datetime:
    """The UTC moment at which `day` begins in New York."""
    return datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).astimezone(UTC)


def new_york_date(moment: datetime) -> date:
    return moment.astimezone(NEW_YORK).date()


class ExchangeCalendar:
    """Sorted sessions with the lookups that the exchange needs."""

    def __init__(self, sessions: Sequence[ExchangeSession]) -> None:
        if not sessions or any(a.date >= b.date for a, b in pairwise(sessions)):
            raise ValueError(f"sessions must be distinct, sorted and at least one, were {len(sessions)}")
        self.sessions = tuple(sessions)
        self._opens = [session.open for session in sessions]
        self._closes = [session.close for session in sessions]
        self._midnights = [session.midnight for session in sessions]

    @classmethod
    def xnys(cls, *, start: date, end: date) -> ExchangeCalendar:
        """Regular hours of the New York Stock Exchange for `start` to `end`, both inclusive."""
        schedule = exchange_calendars.get_calendar("XNYS", start=start.isoformat(), end=end.isoformat()).schedule
        return cls(
            [
                ExchangeSession(
                    date=day.date(), midnight=new_york_midnight(day.date()), open=opens.to_pydatetime(), close=closes.to_pydatetime()
                )
                for day, opens, closes in zip(schedule.index, schedule["open"], schedule["close"], strict=True)
            ]
        )

    def is_open(self, now: datetime) -> bool:
        started = self.started(now)
        return started is not None and now < started.close

    def started(self, now: datetime) -> ExchangeSession | None:
        """The latest session whose open is at or before `now`."""
        index = bisect_right(self._opens, now) - 1
        return self.sessions[index] if index >= 0 else None

    def next_open(self, now: datetime) -> datetime:
        """The first open strictly after `now`."""
        return self._first(self._opens, now)

    def next_close(self, now: datetime) -> datetime:
        """The first close strictly after `now`."""
        return self._first(self._closes, now)

    def last_close(self, moment: datetime) -> datetime:
        """The last close at or before `moment`; one before the first session is the first."""
        return self._closes[max(0, bisect_right(self._closes, moment) - 1)]

    def between(self, start: date | None, end: date | None) -> tuple[ExchangeSession, ...]:
        """Sessions from `start` to `end`, both inclusive; an absent bound is the calendar's own."""
        return tuple(s for s in self.sessions if (start is None or s.date >= start) and (end is None or s.date <= end))

    def settlement(self, session: ExchangeSession) -> date:
        """The day on which a trade of `session` settles: T+3, from 2017-09-05 T+2, from 2024-05-28 T+1."""
        days = 1 if session.date >= date(2024, 5, 28) else 2 if session.date >= date(2017, 9, 5) else 3
        index = bisect_right(self._midnights, session.midnight) - 1 + days
        if index < len(self.sessions):
            return self.sessions[index].date
        return self.sessions[-1].date + timedelta(days=index - len(self.sessions) + 1)

    def _first(self, moments: list[datetime], now: datetime) -> datetime:
        index = bisect_right(moments, now)
        if index == len(moments):
            raise ValueError(f"the calendar ends on {self.sessions[-1].date}, the clock was {now.isoformat()}")
        return moments[index]
