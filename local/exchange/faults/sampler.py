"""Which event a fault plan strikes. Pure: a decision is a hash of (seed, kind, subject, occurrence), never of the wall clock.

Promise: the subject is an order's client order id, a read and its moment, or a symbol and its day; the occurrence counts the events of one
kind and subject. So what happens to one order does not depend on the others, and two runs with the same seed and the same requests have
the same faults. What struck is counted by kind. What an occurrence decided is told to `record`, so that a journal can bring it back.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from local.exchange.faults.plan import FaultPlan, OrderChance, RepeatedOrderChance, RequestChance


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One event that was struck; the occurrences of a `momentary` subject are forgotten when the clock moves."""

    kind: str
    subject: str
    occurrence: int
    momentary: bool


class Fate:
    """The decisions of a plan, and the count of those that struck."""

    def __init__(self, *, record: Callable[[Strike], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._record = record
        self.take_up(FaultPlan())

    def take_up(self, plan: FaultPlan) -> None:
        """Decide by `plan` from now on: occurrences begin anew, counts go on."""
        self.plan = plan
        self.quiet = plan.quiet
        self._lasting: Counter[tuple[str, str]] = Counter()
        self._momentary: Counter[tuple[str, str]] = Counter()
        self._spent: Counter[tuple[str, datetime]] = Counter()

    def strikes(self, chance: RepeatedOrderChance | RequestChance | None, kind: str, subject: str, *, momentary: bool = False) -> bool:
        """Whether the next event of `subject` is struck; counted and recorded if so."""
        if chance is None or chance.rate == 0:
            return False
        occurrences = self._momentary if momentary else self._lasting
        occurrence = occurrences[kind, subject]
        occurrences[kind, subject] += 1
        if chance.first is not None and occurrence >= chance.first:
            return False
        struck = self.draw(kind, subject, occurrence) < chance.rate
        if struck:
            self.counts[kind] += 1
            self._record(Strike(kind=kind, subject=subject, occurrence=occurrence, momentary=momentary))
        return struck

    def note(self, kind: str) -> None:
        """Count a strike that nothing was drawn for."""
        self.counts[kind] += 1
        self._record(Strike(kind=kind, subject="", occurrence=0, momentary=True))

    def befalls(self, chance: OrderChance | None, kind: str, subject: str) -> bool:
        """Whether `subject`, to which this can happen once only, is struck; whoever asks counts it when it takes effect."""
        return chance is not None and self.draw(kind, subject) < chance.rate

    def draw(self, kind: str, subject: str, occurrence: int = 0) -> float:
        """A number in [0, 1): the same for the same seed, kind, subject and occurrence."""
        digest = hashlib.sha256(f"{self.plan.seed}|{kind}|{subject}|{occurrence}".encode()).digest()
        return int.from_bytes(digest[:6], "big") / 2**48

    def share(self, kind: str, subject: str) -> Decimal:
        """A share from 0.1 to 0.9, in thousandths."""
        return 100 * Decimal("0.001") + int(self.draw(kind, subject) * 801) * Decimal("0.001")

    def spend(self, account: str, minute: datetime) -> int:
        """How many requests were made of `account` in this minute of the clock, this one included."""
        self._spent = Counter({spent: count for spent, count in self._spent.items() if spent[1] == minute})
        self._spent[account, minute] += 1
        return self._spent[account, minute]

    def recall(self, strike: Strike) -> None:
        """A strike that was recorded before: counted, and not drawn again."""
        self.counts[strike.kind] += 1
        occurrences = self._momentary if strike.momentary else self._lasting
        occurrences[strike.kind, strike.subject] = strike.occurrence + 1

    def clock_moved(self) -> None:
        self._momentary.clear()
