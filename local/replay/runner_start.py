"""Whether the runner that a schedule has started follows: a replay's session is over before a process that was only started would."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from lambdas.common.ledger.ledger import Ledger
from local.replay.schedule import START_RUNNER
from schema.exchange_time import parse_utc

LIMIT, PAUSE = 60.0, 0.05


def starts_the_runner(schedule: str) -> bool:
    """Whether a deployed schedule, `<app>-<name>`, is the one."""
    return schedule.endswith(f"-{START_RUNNER}")


def until_it_follows(outcome: dict[str, Any], ledger: Ledger, *, since: datetime, limit: float = LIMIT) -> dict[str, Any]:
    """The outcome of that schedule once the runner has said, after `since` (this machine's clock), that it hears both sockets; failed if
    it has not within `limit` seconds."""
    deadline = time.monotonic() + limit
    while outcome["status"] == "succeeded":
        beat = ledger.runner_state()
        if beat is not None and beat.state == "following" and parse_utc(beat.beat_at) >= since and beat.heard_orders and beat.heard_data:
            break
        if time.monotonic() > deadline:
            return {"status": "failed", "error": f"the runner does not follow after {limit:g} s; see its log"}
        time.sleep(PAUSE)
    return outcome
