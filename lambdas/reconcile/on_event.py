"""What an event of the runner's makes of reconcile: record the order that it names, say what halts, and have a pass for many events.

Promises: an event only says where to look; what is recorded is what the broker answers. An order's fill is recorded before any pass, by
one question and without the executor's lease, as anybody may record what the broker shows. However many events come at once, one run
passes for all of them, again if another came meanwhile, and no more often than every `PAUSE` seconds. It waits for an executor that is at
work; what it cannot wait for, and what comes after its time, is left to the schedule. Failure: as `reconcile`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from lambdas.common.broker.port import BrokerUnavailable, RateLimited
from lambdas.common.ledger.alerts import raise_alert
from lambdas.common.ledger.ledger import LedgerCorrupt, Stale
from lambdas.common.orders.execution_context import ExecutionContext
from lambdas.common.orders.order_sync import OrderSync
from lambdas.common.telemetry import logger
from schema.exchange_time import iso, new_york_date
from schema.realtime.events import MarketEvent, OrderUpdated, TradingStatusChanged

#: Seconds between two passes of one run: the broker answers 200 questions a minute, and a pass asks a handful.
PAUSE = 2.0
#: How often, in seconds, it looks whether an executor has ended.
LOOK = 0.5

#: What an order, or one beside it, cannot be recorded for now: a pass records all others, and then fails of it.
LEFT_TO_THE_PASS = (BrokerUnavailable, RateLimited, LedgerCorrupt, Stale)

Summary = dict[str, Any]


def act_on(event: MarketEvent, context: ExecutionContext, *, one_pass: Callable[[], Summary], time_budget: float) -> Summary:
    """Do what `event` asks for and return what was done; `time_budget`: seconds for which it may go on beginning passes, waits included."""
    done: Summary = {"event": event.detail_type}
    if isinstance(event, TradingStatusChanged):
        done["halted"] = _tell_a_halt(event, context)
    if isinstance(event, OrderUpdated):
        done["order"] = _record(event, context)
        if done["order"] == "known":
            return done
    return {**done, **_pass_for_all(context, one_pass, time_budget=time_budget)}


def _record(event: OrderUpdated, context: ExecutionContext) -> str:
    """Record the order as the broker shows it now, and with the same question the others that can still change: one event is rarely
    alone. `known` where nothing is left to do, for the order and for its decision."""
    ledger = context.ledger
    try:
        order = ledger.order(event.client_order_id)
        if order is None:
            return "not in the ledger"
        if order.terminal:
            decision = ledger.decision(order.decision_id)
            return "known" if decision is None or decision.state == "done" else "ended"
        if order.broker_id is None:
            return "being sent"  # whoever sends it records the first answer, with what it was judged by
        sent = [one for one in ledger.unsettled_orders() if one.broker_id is not None]  # by the index, which may lag
        found = OrderSync(ledger=ledger, broker=context.broker).ask_all([order, *sent], now=event.at)
    except LEFT_TO_THE_PASS as reason:
        logger.warning("left to the pass", extra={"client_order_id": event.client_order_id, "reason": str(reason)})
        return "left to the pass"
    stored = found[order.client_order_id]
    return f"{stored.status}, {stored.filled_quantity} filled"


def _tell_a_halt(event: TradingStatusChanged, context: ExecutionContext) -> bool:
    """Say once a session that a name that is held has been halted."""
    if event.status != "halted" or event.symbol not in context.broker.positions():
        return False
    why = f"{event.code}: {event.reason}" if event.reason else event.code
    raise_alert(
        ledger=context.ledger,
        rule=f"halted:{event.symbol}",
        session=_session(event.at),
        detail=f"{event.symbol} is held and was halted at {iso(event.at)} ({why}); it cannot be traded until it resumes",
        time=iso(event.at),
    )
    return True


def _pass_for_all(context: ExecutionContext, one_pass: Callable[[], Summary], *, time_budget: float) -> Summary:
    ledger, owner = context.ledger, context.owner
    asked = ledger.ask_for_turn(owner, now=context.wall(), seconds=context.budget.lease_seconds)
    if asked is None:
        return {"passes": 0}
    until, passes, last = context.monotonic() + time_budget, 0, Summary()
    try:
        while asked is not None and context.monotonic() < until:
            if passes:
                context.sleep(PAUSE)
            _wait_for_the_executor(context, until=until)
            last, passes = one_pass(), passes + 1
            asked = ledger.end_turn(owner, asked=asked)
    finally:
        if asked is not None:
            ledger.end_turn(owner, asked=None)
    return {"passes": passes, **last}


def _wait_for_the_executor(context: ExecutionContext, *, until: float) -> None:
    while context.monotonic() + LOOK < until and not context.ledger.lease_is_free(now=context.wall()):
        context.sleep(LOOK)


def _session(moment: datetime) -> str:
    return new_york_date(moment).isoformat()
