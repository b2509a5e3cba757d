"""Exchange time without a broker client: the New York date of an instant, and ISO 8601 in and out."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")


def new_york_date(moment: datetime) -> date:
    return moment.astimezone(NEW_YORK).date()


def parse_utc(text: str) -> datetime:
    """Parse RFC 3339 with its zone, up to nanoseconds, to an aware UTC time of microsecond precision; raise ValueError otherwise."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a time with its zone was expected, was {text}")
    return moment.astimezone(UTC)


def iso(moment: datetime) -> str:
    """Return `moment` as the ledger keeps times: UTC, seconds or microseconds, with a trailing Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
