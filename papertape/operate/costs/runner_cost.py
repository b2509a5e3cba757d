"""What the runner adds to a month: its task while it lives, the address that it is reached from, its events, and what runs on them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

#: Of a session: events that it raises (one a minute, those of orders, moves), and those of them that a function runs on.
EVENTS, ACTED_ON = 600, 150
PASS_SECONDS = 2.0
BEATS = 180  # an hour
IMAGE_GB = 0.3

RUNNER_ASSUMPTION = (
    f"the runner lives as its schedules say, holidays included, and raises {EVENTS} events a session, on {ACTED_ON} of which "
    f"reconcile runs for {PASS_SECONDS:g} s"
)


@dataclass(frozen=True, kw_only=True)
class RunnerTask:
    """`cpus` and `gb` of the task, and `hours` a month for which it runs."""

    cpus: float
    gb: float
    hours: float

    @classmethod
    def of(cls, task: Mapping[str, Any], crons: Mapping[str, str], *, weeks: float) -> Self:
        """From its definition in the template and the schedules that start and stop it; raises `ValueError` for others than daily ones."""
        starts, stops = (_hour(name, crons) for name in ("start_runner", "stop_runner"))
        return cls(cpus=int(task["Cpu"]) / 1024, gb=int(task["Memory"]) / 1024, hours=(stops - starts) * 5 * weeks)

    def usage(self, runs: Mapping[str, float], *, pass_gb: float, reads: int) -> dict[str, float]:
        """By what `PRICES` names; a run of reconcile takes `pass_gb` of memory and `reads` of the table."""
        sessions = runs["start_runner"]
        acted = ACTED_ON * sessions
        return {
            "task processor": self.hours * self.cpus,
            "task memory": self.hours * self.gb,
            "task image": IMAGE_GB,
            "public address": self.hours,
            "market event": EVENTS * sessions,
            "table write": BEATS * self.hours + 2 * acted,
            "table read": acted * reads,
            "lambda request": acted,
            "lambda time": acted * pass_gb * PASS_SECONDS,
        }


def _hour(name: str, crons: Mapping[str, str]) -> float:
    found = re.fullmatch(r"cron\((\d+) (\d+) \? \* MON-FRI \*\)", crons.get(name, ""))
    if found is None:
        raise ValueError(f"the runner's hours are not known: {name} must be a cron of one time on weekdays, was {crons.get(name)!r}")
    return int(found[1]) / 60 + int(found[2])
