"""The vendor's timeframes, and bars put together to them: of minutes up to 23 hours, of days from there on.

Minutes and hours are counted from midnight in New York, so 5Min begins at :00 and :05, and 4Hour at 8:00 and 12:00. A week begins on
Monday, so many months with January. A bar is named by its beginning, whether there was a session at that moment or not; one whose time
has not ended is told as far as it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from re import fullmatch
from typing import Literal

from local.exchange.market.rows import RecordedBar
from local.exchange.sessions import NEW_YORK, new_york_midnight

Unit = Literal["minute", "day", "week", "month"]
ALLOWED = "1-59Min, 1-23Hour, 1Day, 1Week, or 1, 2, 3, 4, 6 or 12Month"
MOST = {"Min": 59, "T": 59, "Hour": 23, "H": 23}
ONCE: dict[str, Unit] = {"Day": "day", "D": "day", "Week": "week", "W": "week"}
MONTHS = (1, 2, 3, 4, 6, 12)


@dataclass(frozen=True, slots=True)
class Timeframe:
    """So many minutes, days, weeks or months."""

    number: int
    unit: Unit

    @property
    def of_minutes(self) -> bool:
        return self.unit == "minute"

    def begins(self, moment: datetime) -> datetime:
        """The beginning of the bar that `moment` lies in, in UTC."""
        local = moment.astimezone(NEW_YORK)
        match self.unit:
            case "minute":
                since = local.hour * 60 + local.minute
                return moment - timedelta(minutes=since % self.number, seconds=local.second, microseconds=local.microsecond)
            case "day":
                return new_york_midnight(local.date())
            case "week":
                return new_york_midnight(local.date() - timedelta(days=local.weekday()))
        return new_york_midnight(date(local.year, local.month - (local.month - 1) % self.number, 1))


def timeframe_of(text: str) -> Timeframe | None:
    """As the vendor writes it, "5Min", "5T", "1Hour", "1D", "3Month"; `None` for what is not among `ALLOWED`."""
    found = fullmatch(r"([1-9][0-9]?)(Min|T|Hour|H|Day|D|Week|W|Month|M)", text)
    if found is None:
        return None
    number, unit = int(found[1]), found[2]
    if unit in MOST:
        minutes = number if unit in ("Min", "T") else 60 * number
        return Timeframe(minutes, "minute") if number <= MOST[unit] else None
    if unit in ONCE:
        return Timeframe(1, ONCE[unit]) if number == 1 else None
    return Timeframe(number, "month") if number in MONTHS else None


def together(bars: Iterable[RecordedBar], begins: Callable[[datetime], datetime], *, descending: bool = False) -> Iterator[RecordedBar]:
    """One bar for those that begin in the same one; `bars` in the order of time, or the other way round if `descending`."""
    for start, group in groupby(bars, key=lambda bar: begins(bar.start)):
        found = list(group)
        first, last = (found[-1], found[0]) if descending else (found[0], found[-1])
        yield RecordedBar(
            start,
            open=first.open,
            high=max(bar.high for bar in found),
            low=min(bar.low for bar in found),
            close=last.close,
            volume=sum(bar.volume for bar in found),
        )
