"""What X bills: each post that is read. The cap of a month is released evenly over its days, and never exceeded.

Promise: what a run may read is counted before it is read, and corrected afterwards, so that a run that dies has spent it, and of two at
once none spends the other's. A call without an answer counts as one page, for nobody knows whether it was billed.
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime

from lambdas.common.lake.news import NewsStore
from sources.port import SourceLimited

BILLED = frozenset({"x"})
PAGE_MIN, PAGE_MAX = 10, 100  # posts that X sends at once


class SharePaused(SourceLimited):
    """The day's share is read; the month's is not."""


@dataclass(frozen=True, kw_only=True)
class PostBudget:
    """The posts of one source in the month of `run`."""

    store: NewsStore
    source: str
    run: datetime
    per_month: int

    def book(self, wanted: int) -> int:
        """Count as many posts as may be read now, and return their number.

        Raises `SourceLimited` where the rest of the month's is less than the smallest page, `SharePaused` where that of the days so far is.
        """
        granted = 0

        def more(read: int) -> int:
            nonlocal granted
            granted = min(wanted, self._due(read) - read)
            return read + granted

        self.store.count_posts(self.source, self.run, more)
        return granted

    def correct(self, *, booked: int, read: int) -> None:
        """Count what was read instead of what was booked for it."""
        self.store.count_posts(self.source, self.run, lambda counted: counted - booked + read)

    def _due(self, read: int) -> int:
        """How many may be read up to the end of the day."""
        day = self.run.astimezone(UTC)
        due = self.per_month * day.day // monthrange(day.year, day.month)[1]
        if self.per_month - read < PAGE_MIN:
            raise SourceLimited(
                f"{self.source}: {read} posts of this month's {self.per_month} are read; it goes on next month, or with more "
                "x_posts_per_month in [news]"
            )
        if due - read < PAGE_MIN:
            raise SharePaused(f"{self.source}: {read} posts are read, of {due} up to {day:%Y-%m-%d} and {self.per_month} in the month")
        return due
