"""The schedule expressions of EventBridge Scheduler that the stacks use, and when they fire: `cron(35 9 ? * MON-FRI *)` in New York.

Pure. Minutes, hours and days of the week may be *, ?, a number or name, a range, a step or a list; days of the month, months and years
must be every one. Anything else is a CronError that names the expression: a schedule is never fired at a guessed time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from trading_env.errors import PapertapeError

DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")  # 1 to 7
EVERY = frozenset("*?")


class CronError(PapertapeError, ValueError):
    """The expression is none of those that are fired here; the message names it."""


@dataclass(frozen=True, kw_only=True)
class CronSchedule:
    """Minutes, hours and weekdays (0 = Sunday) in `zone`."""

    minutes: frozenset[int]
    hours: frozenset[int]
    weekdays: frozenset[int]
    zone: ZoneInfo

    @classmethod
    def parse(cls, expression: str, *, zone: str) -> Self:
        try:
            minutes, hours, weekdays = _fields(expression)
            return cls(
                minutes=_values(minutes, first=0, last=59),
                hours=_values(hours, first=0, last=23),
                weekdays=frozenset(day - 1 for day in _values(_numbered(weekdays), first=1, last=7)),
                zone=ZoneInfo(zone),
            )
        except (ValueError, ZoneInfoNotFoundError) as error:
            raise CronError(f"schedule {expression} in {zone} cannot be fired by this machine's clock: {error}") from error

    def between(self, after: datetime, until: datetime) -> list[datetime]:
        """Every moment (UTC) at which it fires, later than `after` and not later than `until`.

        A local time that a change of the clocks leaves out does not happen; one that comes twice happens once, the first time.
        """
        day, last = after.astimezone(self.zone).date(), until.astimezone(self.zone).date()
        found = []
        while day <= last:
            if day.isoweekday() % 7 in self.weekdays:
                found += [at for hour in sorted(self.hours) for minute in sorted(self.minutes) if (at := self._instant(day, hour, minute))]
            day += timedelta(days=1)
        return [at for at in found if after < at <= until]

    def next(self, after: datetime) -> datetime:
        """The first moment later than `after`."""
        ahead = timedelta(days=1)
        while not (found := self.between(after, after + ahead)):
            ahead *= 2
        return found[0]

    def _instant(self, day: date, hour: int, minute: int) -> datetime | None:
        local = datetime.combine(day, time(hour, minute), tzinfo=self.zone)
        instant = local.astimezone(UTC)
        return instant if instant.astimezone(self.zone).replace(fold=0) == local else None


def _fields(expression: str) -> tuple[str, str, str]:
    """Minutes, hours and weekdays of an expression that names nothing else."""
    found = re.fullmatch(r"cron\((\S+) (\S+) (\S+) (\S+) (\S+) (\S+)\)", expression.strip())
    if not found or any(field not in EVERY for field in (found[3], found[4], found[6])):
        raise ValueError("only minutes, hours and days of the week may be chosen")
    return found[1], found[2], found[5]


def _numbered(text: str) -> str:
    """Names of days as their numbers."""
    return re.sub(r"[A-Z]{3}", lambda name: str(1 + DAYS.index(name[0])) if name[0] in DAYS else name[0], text)


def _values(text: str, *, first: int, last: int) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        begins = first if low in EVERY else int(low)
        ends = int(high) if high else last if step or low in EVERY else begins
        if not first <= begins <= ends <= last or (step and int(step) < 1):
            raise ValueError(f"{part!r} is not within {first} to {last}")
        found.update(range(begins, ends + 1, int(step or 1)))
    return frozenset(found)
