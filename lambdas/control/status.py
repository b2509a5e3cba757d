"""What a person wants to know at a glance: may it trade, what does it hold, what is open, what did it decide last and when again.

The newest session is the last that left a trace: a closing snapshot, a decision or an alert, in the month of the last snapshot, the one
after it, or the one of the request. What is said of the market is what reconcile read of the broker last, with its time.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from lambdas.common.api.responses import shown_order
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import BrokerState, Decision, ServedModel, Snapshot, StateChange, TradingState
from lambdas.common.ledger.roles import roles
from schema.api_requests import State
from schema.exchange_time import NEW_YORK, iso, new_york_date, parse_utc
from schema.sections.schedule import Schedule
from schema.settings import Settings
from schema.slot import AGENT, FLATTEN

HISTORY = 5
OPENS = timedelta(hours=9, minutes=30)  # New York

#: What becomes of a flatten that waits for the market to open; in `reduce_only` what it said itself.
OUTLOOK: dict[State, str] = {
    "active": "trading has been resumed since: it will be dropped when the market opens, and nothing is sold",
    "halted": "trading is halted: its sells will be refused when the market opens",
}


def status_of(ledger: Ledger, *, settings: Settings, now: str) -> dict[str, Any]:
    """Read the ledger for the request at `now` (ISO 8601 UTC)."""
    state, breakers = ledger.switches()
    snapshot, seen = ledger.latest_snapshot(), ledger.broker_state()
    months = {now[:7]} | ({snapshot.session[:7], _month_after(snapshot.session)} if snapshot else set())
    decisions = sorted((one for month in months for one in ledger.decisions(month)), key=lambda one: (one.received_at, one.decision_id))
    alerts = [alert for month in sorted(months) for alert in ledger.alerts(month)]
    sessions = [alert.session for alert in alerts] + [one.slot[:10] for one in decisions if one.strategy == AGENT]
    session = max([*sessions, *([snapshot.session] if snapshot else [])], default=None)
    incumbent, shadow = ledger.incumbent(), ledger.shadow()
    who = roles(incumbent, shadow, settings)
    return {
        "warning": who.warning,
        "now": now,
        "trading_state": state.model_dump(mode="json", exclude_none=True),
        "history": [change.model_dump(mode="json", exclude_none=True) for change in _history(ledger, state)],
        "breakers": breakers.tripped,
        "account": breakers.account_id or (None if seen is None else seen.account_id),
        "broker": None if seen is None else seen.model_dump(mode="json"),
        "next_decision": None if seen is None else _next_decision(seen, settings.schedule),
        "session": session,
        "snapshot": None if snapshot is None else snapshot.model_dump(mode="json"),
        "day": _day(ledger, seen),
        "unsettled": [shown_order(order) for order in ledger.unsettled_orders()],
        "waiting": {one.decision_id: _outlook(one, state) for one in ledger.working_decisions() if _waits(one)},
        "last_decision": _shown(decisions[-1], state) if decisions else None,
        "trades": who.trades.role,
        "incumbent": _served(incumbent),
        "shadow": _served(shadow),
        "alerts": [alert.model_dump(mode="json") for alert in alerts if alert.session == session],
    }


def _history(ledger: Ledger, state: TradingState) -> list[StateChange]:
    """The last changes of the trading state, the newest first."""
    if state.since is None:
        return []
    found = [change for month in _two_months(state.since) for change in ledger.state_changes(month)]
    return sorted(found, key=lambda change: change.version, reverse=True)[:HISTORY]


def _two_months(until: str) -> tuple[str, str]:
    first = date.fromisoformat(until[:10]).replace(day=1)
    return (first - timedelta(days=1)).isoformat()[:7], until[:7]


def _next_decision(seen: BrokerState, schedule: Schedule) -> dict[str, str] | None:
    """The first slot that begins after the broker's time: of the session under way, else of the next one."""
    now, following = parse_utc(seen.now), parse_utc(seen.next_open)
    opens = [_midnight(new_york_date(now)) + OPENS] if seen.is_open else []
    slots = ((opened, slot) for opened in (*opens, following) for slot in schedule.slots_of(new_york_date(opened)))
    begins = ((slot.window(opened, minutes=schedule.slot_window_minutes)[0], slot) for opened, slot in slots)
    return next(({"slot": str(slot), "time": iso(moment)} for moment, slot in begins if moment > now), None)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=NEW_YORK)


def _day(ledger: Ledger, seen: BrokerState | None) -> dict[str, str] | None:
    """What the account has won or lost since the close before the day that the broker was seen on."""
    if seen is None:
        return None
    before = ledger.latest_snapshot(before=new_york_date(parse_utc(seen.now)).isoformat())
    return None if before is None or not before.equity else _change(seen.equity, before)


def _change(equity: Decimal, before: Snapshot) -> dict[str, str]:
    return {"since": before.session, "dollars": str(equity - before.equity), "share": f"{float(equity / before.equity) - 1:.6f}"}


def _waits(decision: Decision) -> bool:
    return decision.strategy == FLATTEN and decision.state == "working" and decision.plan is None


def _outlook(decision: Decision, state: TradingState) -> str | None:
    return OUTLOOK.get(state.state, decision.reason)


def _shown(decision: Decision, state: TradingState) -> dict[str, Any]:
    told = {"decision_id", "state", "verdict", "reason", "received_at", "model_version", "refused"}
    fields = {**decision.model_dump(mode="json", include=told), "planned": len(decision.plan or ())}
    return {**fields, "reason": _outlook(decision, state)} if _waits(decision) else fields


def _served(model: ServedModel | None) -> dict[str, Any] | None:
    return None if model is None else model.model_dump(mode="json")


def _month_after(session: str) -> str:
    first = date.fromisoformat(session).replace(day=1)
    return (first + timedelta(days=31)).isoformat()[:7]
