"""Bring the lake's slot rows up to the sessions of a window: the vendor's minutes, fetched and gathered month by month.

Promises: a month is written when it is whole, so what is written stays if a later one fails; running it again changes nothing; a row that
the vendor's minutes restate replaces the old one and is counted; what the vendor does not send stays as it was. Memory holds the minutes of
one month, of so many names at a time that a function of 1 GB bears them. Where no time is left for another month, the summary says where
to go on. A vendor that fails raises `BrokerUnavailable`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Any

from lambdas.backfill_bars.merging import merge_bars
from lambdas.common.broker.port import MarketData, Session
from lambdas.common.lake.lake import Lake
from lambdas.common.lake.slot_rows import GatheredSlots, gathered, hours_of
from lambdas.common.telemetry import logger
from schema.slot import SlotRows

#: Minutes in memory at a time, at about 2 kB each while they are read and gathered.
MINUTES_PER_FETCH = 200_000
#: At most, of a name and day: the vendor's are from 04:00 to 20:00, and those outside of the session's hours are left out here.
MINUTES_A_DAY = 960
#: A month is begun if there is time for one half as long again as the longest so far, a wait for the vendor's budget, and to end.
MARGIN, WAIT_AND_END = 1.5, 90.0


@dataclass(frozen=True, kw_only=True)
class SlotsBackfilled:
    """What one run did with the minutes; counts. `next`: the first session of the month for which there was no time."""

    rows: int
    restated: int
    quarantined: int
    outside: int
    late: int
    silent: tuple[str, ...]
    objects_written: int
    next: date | None

    def summary(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("rows", "restated", "quarantined", "outside", "late")}
        unfinished = {} if self.next is None else {"next": self.next.isoformat()}
        return {**counts, "silent": list(self.silent), "objects_written": self.objects_written, **unfinished}


def backfill_slots(
    *,
    vendor: MarketData,
    lake: Lake,
    symbols: Sequence[str],
    sessions: Sequence[Session],
    rows: SlotRows,
    seconds_left: Callable[[], float],
) -> SlotsBackfilled:
    """Merge the slot rows of `sessions`, which are over and in order, into the lake; at least their first month, whatever time is left."""
    counts, heard = Counter[str](), set[str]()
    longest, unfinished = 0.0, None
    for number, month in enumerate(_months(sessions)):
        began = seconds_left()
        if number and began < MARGIN * longest + WAIT_AND_END:
            unfinished = month[0].date
            break
        hours = hours_of(month)
        for names in _groups(symbols, sessions=month):
            found = gathered(vendor, symbols=names, hours=hours, until=month[-1].close, rows=rows)
            objects, restated = merge_bars(lake, found.lines, rows=rows)
            written = lake.write(objects)
            counts.update(rows=len(found.lines), restated=len(restated), objects_written=len(written))
            counts.update(quarantined=found.quarantined, outside=found.outside, late=len(found.late))
            heard |= {line["symbol"] for line in found.lines}
            _tell(found, month=f"{month[0].date:%Y-%m}", restated=restated)
        longest = max(longest, began - seconds_left())
    return SlotsBackfilled(
        **{name: counts[name] for name in ("rows", "restated", "quarantined", "outside", "late", "objects_written")},
        silent=tuple(symbol for symbol in symbols if symbol not in heard),
        next=unfinished,
    )


def _months(sessions: Sequence[Session]) -> Iterator[list[Session]]:
    return (list(own) for _, own in groupby(sessions, key=lambda session: (session.date.year, session.date.month)))


def _groups(symbols: Sequence[str], *, sessions: Sequence[Session]) -> Iterator[Sequence[str]]:
    size = max(1, MINUTES_PER_FETCH // (MINUTES_A_DAY * len(sessions)))
    return (symbols[first : first + size] for first in range(0, len(symbols), size))


def _tell(found: GatheredSlots, *, month: str, restated: Sequence[str]) -> None:
    """A line per month and kind, whatever their number."""
    logger.info("minutes gathered", extra={"month": month, "rows": len(found.lines), "outside": found.outside})
    if restated:
        logger.warning("slot rows restated", extra={"month": month, "numbers": len(restated), "first": restated[0]})
    if found.quarantined:
        logger.warning("minutes set aside", extra={"month": month, "minutes": found.quarantined})
    if found.late:
        by_name = dict(Counter(symbol for symbol, _ in found.late))
        logger.warning("slots without a minute in their window", extra={"month": month, "slots": by_name})
