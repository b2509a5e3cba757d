"""Where an exchange begins that is not told where.

At 9:35 in New York: with the bundled bars on 2020-01-02, the year that the project trades; with bars of your own on the first session that
has a year of bars before it, so that there is history to look at and time to trade, and where there is none such on the last one. A start
outside the data is refused: nothing could be traded there.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from local.exchange.recorded_market import RecordedMarket

BUNDLED_START = date(2020, 1, 2)
AFTER_OPEN = timedelta(minutes=5)
YEAR = timedelta(days=365)


def default_start(market: RecordedMarket, *, bundled: bool) -> datetime:
    """The clock's start for these data."""
    first, last = market.span
    earliest = BUNDLED_START if bundled else first + YEAR
    sessions = market.calendar.between(first, last)
    return next((session for session in sessions if session.date >= earliest), sessions[-1]).open + AFTER_OPEN


def require_within(market: RecordedMarket, now: datetime) -> None:
    """Raise `ValueError` for a start before the first day with bars, or after the last."""
    first, last = market.span
    sessions = market.calendar.between(first, last)
    if not sessions[0].midnight <= now <= sessions[-1].midnight + timedelta(days=1):
        raise ValueError(f"now must lie from {first} to {last}, where the data have bars, was {now.isoformat()}")
