"""The deployed schedules as this machine's clock fires them: when, how late at most, and what is tried again.

On AWS a schedule is never late by more than its event's greatest age. A laptop sleeps and is switched off, so what must happen before
the next slot (bars, features) or once a week (training, the report) is caught up, the newest firing alone; a slot is decided within its
window or never; the rest is as late as AWS may be, or is missed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from local.paper.cron import CronSchedule
from local.replay.schedule import KEEP_RUNNER, START_RUNNER, STOP_RUNNER
from schema.sections.schedule import Schedule

#: Caught up after an absence, in this order: each needs what the one before has made.
CAUGHT_UP = ("backfill_bars", "build_features", "train", "report")
#: What one turns on and the other off: however long ago, the later of the two is what holds.
SWITCHES = (START_RUNNER, STOP_RUNNER)
STARTING_RUNNER = (START_RUNNER, *KEEP_RUNNER)
RECONCILE = "reconcile"
#: What Lambda waits before the second and the third attempt of an asynchronous call.
PAUSES = (timedelta(minutes=1), timedelta(minutes=2))
#: And what is caught up waits for after that: a laptop's network may be gone for a night.
OWED_PAUSE = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class DeployedSchedule:
    """Fired, and tried again up to `attempts` times, at most `late` after the scheduled time."""

    name: str
    cron: CronSchedule
    attempts: int
    late: timedelta
    slot: str = ""  # of a deciding schedule

    @property
    def deciding(self) -> bool:
        return bool(self.slot)

    def retry_at(self, scheduled: datetime, *, attempt: int, failed: datetime) -> datetime | None:
        """When a failed `attempt` (the first is 1) is followed by another; None: it was the last. What is caught up is never given up."""
        if attempt <= min(self.attempts, len(PAUSES)):
            at = failed + PAUSES[attempt - 1]
        elif self.name in CAUGHT_UP:
            at = failed + OWED_PAUSE
        else:
            return None
        return at if at - scheduled <= self.late else None

    def alarms(self, *, attempt: int, again: bool) -> bool:
        """Whether the failure of `attempt` is a dead letter: AWS would not try again."""
        return attempt == self.attempts + 1 or not again


def deployed_schedules(documents: Iterable[dict[str, Any]], *, prefix: str, schedule: Schedule) -> tuple[DeployedSchedule, ...]:
    """Those of EventBridge Scheduler's GetSchedule `documents` that are enabled, by name. Raises CronError."""
    found = []
    for document in documents:
        if document["State"] != "ENABLED":
            continue
        name = document["Name"].removeprefix(f"{prefix}-")
        policy = document["Target"].get("RetryPolicy", {})
        within = timedelta(seconds=policy.get("MaximumEventAgeInSeconds", 86400))
        slot = schedule.deciding.get(name, "")
        late = timedelta(minutes=schedule.slot_window_minutes) if slot else timedelta.max if name in {*CAUGHT_UP, *SWITCHES} else within
        found.append(
            DeployedSchedule(
                name=name,
                cron=CronSchedule.parse(document["ScheduleExpression"], zone=document.get("ScheduleExpressionTimezone", "UTC")),
                attempts=policy.get("MaximumRetryAttempts", 185),
                late=late,
                slot=slot,
            )
        )
    return tuple(sorted(found, key=lambda one: one.name))
