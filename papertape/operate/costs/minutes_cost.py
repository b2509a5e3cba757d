"""What slot rows add to a month: minutes that every night and every later slot of a session fetch, and the objects that they are kept in.

The decisions of further slots are counted from the schedules, as all decisions are; minutes that a paid plan brings are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from schema.settings import Settings

#: A page of the vendor's, from the question to the rows: gathering takes a tenth of it, on the slower half of a core.
MINUTES_PER_SECOND = 10_000
DAY_MINUTES = 960  # at most, of a name: from 04:00 to 20:00
NIGHTLY_SESSIONS = 7  # as lambdas/backfill_bars

ASSUMPTION = (
    f"a second of a function brings {MINUTES_PER_SECOND:,} minutes; every night asks for those of {NIGHTLY_SESSIONS} sessions, every slot "
    "but a session's first for those since its open; a plan at the vendor is not in it"
)


@dataclass(frozen=True, kw_only=True)
class MinuteBars:
    """`names`, and the `slots` of a session in minutes after its open."""

    names: int
    slots: tuple[int, ...]

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """None where a row is a session."""
        rows = settings.slot_rows
        return None if rows is None else cls(names=len(settings.universe.symbols), slots=rows.slots)

    def usage(self, *, nights: float, decisions: float, backfill_gb: float, decide_gb: float) -> dict[str, float]:
        """By what `PRICES` names, of so many nights and decisions a month; memory in GB."""
        sessions = decisions / len(self.slots)
        by_night = nights * NIGHTLY_SESSIONS * DAY_MINUTES
        by_day = sessions * sum(self.slots[1:])
        return {
            "lambda time": (by_night * backfill_gb + by_day * decide_gb) * self.names / MINUTES_PER_SECOND,
            "s3 write": nights * self.names,
            # An object of each name, and a list of all, by a night that merges and by a decision that looks at this year's
            "s3 read": (nights + decisions) * (self.names + 1),
        }
