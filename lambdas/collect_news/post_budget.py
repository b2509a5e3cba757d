"""What X bills: each post that is read. The cap of a month is spent evenly over its days, and never exceeded.

Promise: what a run may read is booked before it is read, and corrected afterwards, so that a run that dies has spent it. A call without an
answer counts as one page, for nobody knows whether it was billed.
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime

from lambdas.common.lake.news import NewsStore
from sources.port import SourceLimited

BILLED = frozenset({"x"})
PAGE_MIN, PAGE_MAX = 10, 100  # posts that X sends at once


@dataclass(frozen=True, kw_only=True)
class PostBudget:
    """The posts of one source in the month of `run`."""

    store: NewsStore
    source: str
    run: datetime
    per_month: int

    def book(self, wanted: int) -> int:
        """Return how many posts may be read now, and count them as read; raise `SourceLimited` where that is less than one page's least."""
        day = self.run.astimezone(UTC)
        due = self.per_month * day.day // monthrange(day.year, day.month)[1]
        read = self.store.posts_read(self.source, self.run)
        granted = min(wanted, due - read)
        if granted < PAGE_MIN:
            raise SourceLimited(
                f"{self.source}: {read} posts were read this month, and {due} of {self.per_month} may be by {day:%Y-%m-%d}: "
                "it goes on with the next day's share, or with more x_posts_per_month in [news]"
            )
        self.store.put_posts_read(self.source, self.run, read + granted)
        return granted

    def correct(self, *, booked: int, read: int) -> None:
        """Count what was read instead of what was booked for it."""
        self.store.put_posts_read(self.source, self.run, self.store.posts_read(self.source, self.run) - booked + read)
