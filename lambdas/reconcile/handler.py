"""Every few minutes of the trading day, and on the runner's events: make the ledger say what the broker says.

Event: {"schedule": "reconcile", "time": "..."}, or an envelope of the bus (`schema.realtime.events`). Either only says why it runs: what is
done follows the broker's clock. Every error leaves the function: it is idempotent, and the schedule repeats it.
"""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field

from lambdas.common import environment
from lambdas.common.broker.connection import broker_from_environment, market_data_from_environment
from lambdas.common.environment import TimeBudget
from lambdas.common.ledger.ledger import ledger_from_environment
from lambdas.common.market_events import market_event_of
from lambdas.common.orders.execution_context import ExecutionContext
from lambdas.common.telemetry import entry, logger
from lambdas.reconcile.archiving import archive_from_environment, keep_or_alert
from lambdas.reconcile.on_event import act_on
from lambdas.reconcile.service import reconcile
from schema.settings import deployed


class ReconcileVariables(TimeBudget):
    """Nobody waits for it: it has most of its two minutes, and does not wait for the lease either, because it comes again.

    `event_seconds`: how long a run on events goes on beginning passes.
    """

    batch_budget_seconds: float = Field(default=60.0, ge=0, le=840)
    lease_seconds: float = Field(default=150.0, gt=0, le=900)
    lease_timeout_seconds: float = Field(default=0.0, ge=0, le=60)
    event_seconds: float = Field(default=45.0, ge=0, le=50)


@entry
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    owner, variables, found = getattr(context, "aws_request_id", "unknown"), environment.read(ReconcileVariables), market_event_of(event)

    def one_pass() -> dict[str, Any]:
        run = _context(owner, variables)

        def archive(session: str, now: str) -> str:
            return keep_or_alert(archive_from_environment(run.ledger, run.settings), session=session, now=now)

        return reconcile(run, archive=archive)

    if found is None:
        summary = one_pass()
    else:
        summary = act_on(found, _context(owner, variables), one_pass=one_pass, time_budget=variables.event_seconds)
    logger.info("reconciled", extra={"summary": summary})
    return summary


def _context(owner: str, variables: ReconcileVariables) -> ExecutionContext:
    return ExecutionContext(
        ledger=ledger_from_environment(),
        broker=broker_from_environment(),
        market_data=market_data_from_environment(),
        settings=deployed(),
        owner=owner,
        started=time.monotonic(),
        monotonic=time.monotonic,
        wall=time.time,
        sleep=time.sleep,
        budget=variables,
    )
