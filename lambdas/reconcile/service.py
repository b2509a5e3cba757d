"""One pass of reconciliation: finish batches, settle orders, close the session, and notice what is missing.

Promises: reconciling twice changes nothing the second time; a lost ledger sends no order, because only decisions that the ledger holds as
working are run; another executor's lease is respected. "Now" is the broker's clock. A broker that cannot be read raises, and the schedule
tries again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from lambdas.common import planning
from lambdas.common.alerts import raise_alert
from lambdas.common.broker import Broker, Clock, Session
from lambdas.common.broker_time import iso
from lambdas.common.execution import Executor
from lambdas.common.ledger import Fenced, Ledger
from lambdas.common.records import AGENT, Breakers, Snapshot
from lambdas.common.telemetry import logger
from lambdas.reconcile.closing import NoSnapshot, close_session
from settings import Settings
from trading_env import risk

BUDGET_SECONDS = 60.0
LEASE_SECONDS = 150.0  # longer than the function can live
#: The closing auction's print comes a moment after the bell.
CLOSING_PRINT = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The edges of one pass. `wall` is for the lease only; `started` and `monotonic` are one clock, for the budget."""

    ledger: Ledger
    broker: Broker
    settings: Settings
    owner: str
    started: float
    monotonic: Callable[[], float]
    wall: Callable[[], float]
    sleep: Callable[[float], None]


def reconcile(desk: Desk) -> dict[str, Any]:
    """Run one pass and return what it did."""
    clock = desk.broker.clock()
    summary: dict[str, Any] = {"now": iso(clock.now), **_finish(desk, clock)}
    session = next(iter(desk.broker.sessions(clock.session_date, clock.session_date)), None)
    if session is None:
        return {**summary, "session": None}
    summary["session"] = session.date.isoformat()
    _notice_missed_slot(desk, clock, session)
    if clock.now >= session.close + CLOSING_PRINT:
        return {**summary, **_close(desk, clock, session)}
    if clock.is_open:
        _watch_breakers(desk, clock, session)
    return summary


def _finish(desk: Desk, clock: Clock) -> dict[str, Any]:
    """Bring every working decision as far as it goes, and settle orders that no working decision owns."""
    decisions, orders = desk.ledger.working_decisions(), desk.ledger.unsettled_orders()
    if not decisions and not orders:
        return {"finished": 0, "working": 0, "settled": 0}
    fence = desk.ledger.acquire_lease(desk.owner, now=desk.wall(), seconds=LEASE_SECONDS)
    if fence is None:
        logger.warning("another executor holds the lease")
        return {"finished": 0, "working": len(decisions), "settled": 0}
    executor = Executor(
        ledger=desk.ledger,
        broker=desk.broker,
        settings=desk.settings,
        fence=fence,
        monotonic=desk.monotonic,
        deadline=desk.started + BUDGET_SECONDS,
        sleep=desk.sleep,
    )
    try:
        after = [executor.run(decision, clock=clock) for decision in decisions]
        owned = {decision.decision_id for decision in decisions}
        settled = [executor.settle(order, now=clock.now) for order in orders if order.decision_id not in owned]
    except Fenced:
        logger.warning("the lease has passed on")
        return {"finished": 0, "working": len(decisions), "settled": 0}
    finally:
        desk.ledger.release_lease(fence)
    done = sum(decision.state == "done" for decision in after)
    return {"finished": done, "working": len(after) - done, "settled": sum(order.terminal for order in settled)}


def _notice_missed_slot(desk: Desk, clock: Clock, session: Session) -> None:
    schedule = desk.settings.schedule
    ends = session.open + timedelta(minutes=schedule.slot_minutes + schedule.slot_window_minutes)
    slot = f"{session.date.isoformat()}/{schedule.slot}"
    if clock.now < ends or desk.ledger.decision(f"{AGENT}:{slot}") is not None:
        return
    _alert(desk, clock, session, "missed-slot", f"no decision was received for {slot} by {iso(ends)}; see the log of decide")


def _close(desk: Desk, clock: Clock, session: Session) -> dict[str, Any]:
    if desk.ledger.snapshot(session.date.isoformat()) is not None:
        return {"snapshot": "taken before"}
    try:
        closed = close_session(session, ledger=desk.ledger, broker=desk.broker, now=clock.now)
    except NoSnapshot as reason:
        _alert(desk, clock, session, "no-snapshot", str(reason))
        return {"snapshot": f"not taken: {reason}"}
    for symbol, detail in sorted(closed.drift.items()):
        _alert(desk, clock, session, f"drift:{symbol}", f"{detail}; it is adopted as it is, see docs/ledger.md")
    if closed.first:
        _remember(desk, clock, session, closed.snapshot)
    return {"snapshot": "taken", "equity": str(closed.snapshot.equity), "drift": sorted(closed.drift)}


def _remember(desk: Desk, clock: Clock, session: Session, snapshot: Snapshot) -> None:
    """Judge the close by the breakers, then make it what the next session is judged by."""

    def remembered(now: Breakers) -> Breakers:
        closed = {"peak_equity": max(now.peak_equity, snapshot.equity), "last_close_equity": snapshot.equity}
        return _trip(desk, clock, session, now, snapshot.equity).model_copy(update={**closed, "last_close_session": snapshot.session})

    desk.ledger.change_breakers(remembered)


def _watch_breakers(desk: Desk, clock: Clock, session: Session) -> None:
    if not desk.ledger.breakers().peak_equity:
        return  # nothing was traded yet
    equity = desk.broker.account().equity
    desk.ledger.change_breakers(lambda now: _trip(desk, clock, session, now, equity))


def _trip(desk: Desk, clock: Clock, session: Session, breakers: Breakers, equity: Decimal) -> Breakers:
    """Return the breakers with what `equity` trips latched; each speaks once a session."""
    now = float(equity)
    situation = risk.Situation(
        equity=now,
        positions={},
        prices={},
        peak_equity=float(breakers.peak_equity) or now,
        last_close_equity=float(breakers.last_close_equity) or now,
        state="active",
        bar_age_sessions=0,
    )
    tripped = risk.breakers(situation, planning.limits_of(desk.settings))
    fresh = {name: detail for name, detail in tripped.items() if name not in breakers.tripped}
    for name, detail in fresh.items():
        _alert(desk, clock, session, name, f"{detail}; only sells pass until a person sets the trading state to active")
    return breakers.model_copy(update={"tripped": {**breakers.tripped, **fresh}}) if fresh else breakers


def _alert(desk: Desk, clock: Clock, session: Session, rule: str, detail: str) -> None:
    raise_alert(ledger=desk.ledger, rule=rule, session=session.date.isoformat(), detail=detail, time=iso(clock.now))
