"""Every few minutes of the trading day: make the ledger say what the broker says.

Event: {"schedule": "reconcile", "time": "..."}; its time only says why it runs, what is done follows the broker's clock. Every error leaves
the function: it is idempotent, and the schedule repeats it.
"""

from __future__ import annotations

import time
from typing import Any

from lambdas.common import environment
from lambdas.common.broker import broker_from_environment
from lambdas.common.ledger import ledger_from_environment
from lambdas.common.telemetry import entry, logger
from lambdas.reconcile.service import Desk, reconcile


@entry
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 -- the event's time decides nothing
    desk = Desk(
        ledger=ledger_from_environment(),
        broker=broker_from_environment(),
        settings=environment.settings(),
        owner=getattr(context, "aws_request_id", "unknown"),
        started=time.monotonic(),
        monotonic=time.monotonic,
        wall=time.time,
        sleep=time.sleep,
    )
    summary = reconcile(desk)
    logger.info("reconciled", extra={"summary": summary})
    return summary
