"""What was mailed of a finding in a session, read from the alerts that health itself wrote. Pure.

A finding is mailed when it begins and, if its rule is about a state, when it is over; one that comes back is mailed again, up to `LIMIT`
times per session, so that what flaps does not fill a mailbox.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lambdas.common.health.facts import MAILED
from lambdas.common.ledger.records import AlertRecord

OVER = f"{MAILED}over:"
LIMIT = 3
#: Before the number of a second time.
AGAIN = "~"


@dataclass
class Mailed:
    """How often each finding of a session was mailed as begun and as over, by key."""

    begun: dict[str, int] = field(default_factory=dict)
    over: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, alerts: Iterable[AlertRecord]) -> Mailed:
        """From the alerts of one session."""
        found = cls()
        for rule in (alert.rule for alert in alerts if alert.rule.startswith(MAILED)):
            counts, prefix = (found.over, OVER) if rule.startswith(OVER) else (found.begun, MAILED)
            key = rule.removeprefix(prefix).partition(AGAIN)[0]
            counts[key] = counts.get(key, 0) + 1
        return found

    @property
    def open(self) -> set[str]:
        return {key for key, begun in self.begun.items() if begun > self.over.get(key, 0)}

    def over_since(self, keys: Iterable[str]) -> set[str]:
        """What was mailed as begun and is not among the findings of now."""
        return self.open - {_name(key) for key in keys}

    def is_news(self, key: str) -> bool:
        """Whether a finding that is there now is to be mailed."""
        key = _name(key)
        return key not in self.open and self.begun.get(key, 0) < LIMIT

    def rule_begun(self, key: str) -> str:
        key = _name(key)
        return f"{MAILED}{key}{_number(self.begun.get(key, 0))}"

    def rule_over(self, key: str) -> str:
        return f"{OVER}{key}{_number(self.over.get(key, 0))}"


def _name(key: str) -> str:
    """An id of another client's order may hold what we count with."""
    return key.replace(AGAIN, "-")


def _number(before: int) -> str:
    return f"{AGAIN}{before + 1}" if before else ""
