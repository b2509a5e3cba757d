"""The closing snapshots of a ledger, kept in the warm process.

Promise: a snapshot is put once and never changes, so one that was read is not read again; only what is newer than the last known session
is asked for, at each call. Several threads may ask at once. Failure: that of the ledger's reads, after which what was known stays.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from threading import Lock
from typing import NamedTuple

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Snapshot

EVER = "9999-12-31"
FEW = 20  # days


class AccountClose(NamedTuple):
    """One close, in dollars and shares; `held`: (shares, close) by name; `closes`: of what was ordered and is not held."""

    session: str
    equity: float
    cash: float
    held: dict[str, tuple[float, float]]
    closes: dict[str, float]

    def price(self, symbol: str) -> float | None:
        return self.held[symbol][1] if symbol in self.held else self.closes.get(symbol)


class CloseHistory(NamedTuple):
    """All closes, oldest first, and the last two as the ledger has them."""

    closings: tuple[AccountClose, ...] = ()
    last: Snapshot | None = None
    before: Snapshot | None = None

    def close_before(self, day: str) -> Snapshot | None:
        """The last close of a session before `day`, of those two."""
        return next((one for one in (self.last, self.before) if one is not None and one.session < day), None)


class Closings:
    """Those of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = Lock()
        self._known = CloseHistory()

    def so_far(self, *, today: str | None) -> CloseHistory:
        """`today`: the market's day (ISO date) as the broker was seen last; None: not known."""
        with self._lock:
            known = self._known
            newer = self._newer(known.last, today)
            if newer:
                before, last = [None, *(one for one in (known.last, *newer) if one is not None)][-2:]
                self._known = CloseHistory((*known.closings, *(_closing(one) for one in newer)), last, before)
            return self._known

    def _newer(self, last: Snapshot | None, today: str | None) -> list[Snapshot]:
        """By key where few days can have one, so that a question costs the same after ten years."""
        session = "" if last is None else last.session
        if last is not None and today is not None and (days := _days_after(last.session, today)) is not None:
            return self._ledger.snapshots_of(days) if days else []
        return [one for one in self._ledger.snapshots(session, EVER) if one.session > session]


def _days_after(session: str, today: str) -> list[str] | None:
    """From the day after `session` to `today`; None: too many to ask for by key."""
    first, count = date.fromisoformat(session), (date.fromisoformat(today) - date.fromisoformat(session)).days
    return [(first + timedelta(days=one)).isoformat() for one in range(1, count + 1)] if count <= FEW else None


def _closing(snapshot: Snapshot) -> AccountClose:
    return AccountClose(
        session=snapshot.session,
        equity=float(snapshot.equity),
        cash=float(snapshot.cash),
        held={symbol: (float(one.quantity), float(one.close)) for symbol, one in snapshot.positions.items()},
        closes={symbol: float(price) for symbol, price in snapshot.closes.items()},
    )


@lru_cache(maxsize=4)
def closings_of(ledger: Ledger) -> Closings:
    """The same for each request of this process."""
    return Closings(ledger)
