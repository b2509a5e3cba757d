"""Every few minutes of the trading day: make the ledger say what the broker says.

Event: {"schedule": "reconcile", "time": "..."}; its time only says why it runs, what is done follows the broker's clock. Every error leaves
the function: it is idempotent, and the schedule repeats it.
"""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field

from lambdas.common import environment
from lambdas.common.broker.connection import broker_from_environment, market_data_from_environment
from lambdas.common.environment import TimeBudget
from lambdas.common.ledger.ledger import ledger_from_environment
from lambdas.common.orders.execution_context import ExecutionContext
from lambdas.common.telemetry import entry, logger
from lambdas.reconcile.archiving import archive_from_environment, keep_or_alert
from lambdas.reconcile.service import reconcile
from schema.settings import deployed


class ReconcileVariables(TimeBudget):
    """Nobody waits for it: it has most of its two minutes, and does not wait for the lease either, because it comes again."""

    batch_budget_seconds: float = Field(default=60.0, ge=0, le=840)
    lease_seconds: float = Field(default=150.0, gt=0, le=900)
    lease_timeout_seconds: float = Field(default=0.0, ge=0, le=60)


@entry
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 -- the event's time decides nothing
    run = ExecutionContext(
        ledger=ledger_from_environment(),
        broker=broker_from_environment(),
        market_data=market_data_from_environment(),
        settings=deployed(),
        owner=getattr(context, "aws_request_id", "unknown"),
        started=time.monotonic(),
        monotonic=time.monotonic,
        wall=time.time,
        sleep=time.sleep,
        budget=environment.read(ReconcileVariables),
    )

    def archive(session: str, now: str) -> str:
        return keep_or_alert(archive_from_environment(run.ledger), session=session, now=now)

    summary = reconcile(run, archive=archive)
    logger.info("reconciled", extra={"summary": summary})
    return summary
