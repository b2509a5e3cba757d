"""Fills and the agent's targets by month, those of finished months kept in the warm process: what a chart marks.

Promise: a month is kept when the market's day is ten days after its end; until then it is read again each minute. Failure: that of the
ledger's reads.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from functools import lru_cache
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

from lambdas.common.ledger.ledger import Ledger
from schema.exchange_time import new_york_date, parse_utc
from schema.slot import AGENT

FINAL_AFTER = timedelta(days=10)
T = TypeVar("T")


class DayFills(NamedTuple):
    """What a name's fills of one session and side add up to: shares, and their average price in dollars."""

    session: str
    symbol: str
    side: str
    quantity: float
    price: float


class SessionTarget(NamedTuple):
    """The agent's target weights of a session's decision."""

    session: str
    weights: dict[str, float]


class KeptByMonth(Generic[T]):
    """What `read` makes of a month ("2020-01")."""

    def __init__(self, read: Callable[[str], T]) -> None:
        self._read = read
        self._lock = Lock()
        self._months: dict[str, tuple[str, T]] = {}

    def of(self, month: str, *, today: str, now: str) -> T:
        """`today`: the market's day (ISO date); `now`: of the request, ISO 8601 UTC."""
        until = "" if date.fromisoformat(today) >= _end(month) + FINAL_AFTER else now[:16]
        with self._lock:
            kept = self._months.get(month)
            if kept is None or kept[0] != until:
                kept = self._months[month] = (until, self._read(month))
            return kept[1]


class LedgerMonths(NamedTuple):
    fills: KeptByMonth[tuple[DayFills, ...]]
    targets: KeptByMonth[tuple[SessionTarget, ...]]


@lru_cache(maxsize=4)
def months_of(ledger: Ledger) -> LedgerMonths:
    """The same for each request of this process."""
    return LedgerMonths(fills=KeptByMonth(lambda month: _fills(ledger, month)), targets=KeptByMonth(lambda month: _targets(ledger, month)))


def months_between(first: str, last: str) -> list[str]:
    """From the month of `first` to that of `last` (ISO dates or months), both included."""
    start, end = (int(month[:4]) * 12 + int(month[5:7]) - 1 for month in (first, max(first, last)))
    return [f"{month // 12:04d}-{month % 12 + 1:02d}" for month in range(start, end + 1)]


def _fills(ledger: Ledger, month: str) -> tuple[DayFills, ...]:
    added: dict[tuple[str, str, str], tuple[float, float]] = {}
    for fill in ledger.fills(month):
        key = (new_york_date(parse_utc(fill.time)).isoformat(), fill.symbol, fill.side)
        quantity, dollars = added.get(key, (0.0, 0.0))
        added[key] = (quantity + float(fill.quantity), dollars + float(fill.quantity * fill.price))
    return tuple(DayFills(*key, quantity, dollars / quantity) for key, (quantity, dollars) in sorted(added.items()))


def _targets(ledger: Ledger, month: str) -> tuple[SessionTarget, ...]:
    return tuple(SessionTarget(one.slot[:10], dict(one.weights)) for one in ledger.decisions(month) if one.strategy == AGENT)


def _end(month: str) -> date:
    return (date.fromisoformat(f"{month}-01") + timedelta(days=31)).replace(day=1)
