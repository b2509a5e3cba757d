"""Samples which events a fault is injected into. Pure: a decision is a hash of (seed, kind, subject, occurrence), never of the wall clock.

Promise: the subject is an order's client order id, a read and its moment, or a symbol and its day; the occurrence counts the events of
one kind and subject. So what happens to one order does not depend on the others, and two runs with the same seed and the same requests
have the same faults. Injected faults are counted by kind. One that was drawn for an occurrence is passed to `record`, so that a journal
can restore it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from local.exchange.faults.plan import FaultPlan, OrderFault, RepeatedOrderFault, RequestFault


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedFault:
    """One fault that was injected; the occurrences of a `momentary` subject are forgotten when the clock moves."""

    kind: str
    subject: str
    occurrence: int
    momentary: bool


class FaultSampler:
    """The decisions of a plan, and the count of injected faults by kind."""

    def __init__(self, *, record: Callable[[InjectedFault], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._record = record
        self.use(FaultPlan())

    def use(self, plan: FaultPlan) -> None:
        """Sample `plan` from now on: occurrences start at 0, counts continue."""
        self.plan = plan
        self.inactive = plan.empty
        self._lasting: Counter[tuple[str, str]] = Counter()
        self._momentary: Counter[tuple[str, str]] = Counter()
        self._spent: Counter[tuple[str, datetime]] = Counter()

    def injects(self, fault: RepeatedOrderFault | RequestFault | None, kind: str, subject: str, *, momentary: bool = False) -> bool:
        """Whether a fault is injected into the next event of `subject`; counted and recorded if so."""
        if fault is None or fault.rate == 0:
            return False
        occurrences = self._momentary if momentary else self._lasting
        occurrence = occurrences[kind, subject]
        occurrences[kind, subject] += 1
        if fault.first is not None and occurrence >= fault.first:
            return False
        injected = self.draw(kind, subject, occurrence) < fault.rate
        if injected:
            self.counts[kind] += 1
            self._record(InjectedFault(kind=kind, subject=subject, occurrence=occurrence, momentary=momentary))
        return injected

    def count(self, kind: str) -> None:
        """Count and record an injected fault that nothing was drawn for."""
        self.counts[kind] += 1
        self._record(InjectedFault(kind=kind, subject="", occurrence=0, momentary=True))

    def selects(self, fault: OrderFault | None, kind: str, subject: str) -> bool:
        """Whether the fault is for `subject`, to which it can happen only once; the caller counts it when it takes effect."""
        return fault is not None and self.draw(kind, subject) < fault.rate

    def draw(self, kind: str, subject: str, occurrence: int = 0) -> float:
        """A number in [0, 1): the same for the same seed, kind, subject and occurrence."""
        digest = hashlib.sha256(f"{self.plan.seed}|{kind}|{subject}|{occurrence}".encode(errors="surrogatepass")).digest()
        return int.from_bytes(digest[:6], "big") / 2**48

    def share(self, kind: str, subject: str) -> Decimal:
        """A share from 0.1 to 0.9, in thousandths."""
        return 100 * Decimal("0.001") + int(self.draw(kind, subject) * 801) * Decimal("0.001")

    def count_request(self, account: str, minute: datetime) -> int:
        """How many requests were made of `account` in this minute of the clock, this one included."""
        self._spent = Counter({spent: count for spent, count in self._spent.items() if spent[1] == minute})
        self._spent[account, minute] += 1
        return self._spent[account, minute]

    def restore(self, injected: InjectedFault) -> None:
        """Count an injected fault that was recorded before; it is not drawn again."""
        self.counts[injected.kind] += 1
        occurrences = self._momentary if injected.momentary else self._lasting
        occurrences[injected.kind, injected.subject] = injected.occurrence + 1

    def clock_moved(self) -> None:
        self._momentary.clear()
