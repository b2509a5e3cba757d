"""What a person wants to know at a glance: may it trade, what does it hold, what is open, what did it decide last, what went wrong.

The newest session is the last that left a trace: a closing snapshot, a decision or an alert, in the month of the last snapshot, the one
after it, or the one of the request.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from lambdas.common.api.responses import shown_order
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Decision, ServedModel
from schema.slot import AGENT


def status_of(ledger: Ledger, *, now: str) -> dict[str, Any]:
    """Read the ledger for the request at `now` (ISO 8601 UTC)."""
    state, breakers = ledger.switches()
    snapshot = ledger.latest_snapshot()
    months = {now[:7]} | ({snapshot.session[:7], _month_after(snapshot.session)} if snapshot else set())
    decisions = sorted((one for month in months for one in ledger.decisions(month)), key=lambda one: (one.received_at, one.decision_id))
    alerts = [alert for month in sorted(months) for alert in ledger.alerts(month)]
    sessions = [alert.session for alert in alerts] + [one.slot[:10] for one in decisions if one.strategy == AGENT]
    session = max([*sessions, *([snapshot.session] if snapshot else [])], default=None)
    return {
        "trading_state": state.model_dump(mode="json", exclude_none=True),
        "breakers": breakers.tripped,
        "session": session,
        "snapshot": None if snapshot is None else snapshot.model_dump(mode="json"),
        "unsettled": [shown_order(order) for order in ledger.unsettled_orders()],
        "last_decision": _shown(decisions[-1]) if decisions else None,
        "incumbent": _served(ledger.incumbent()),
        "shadow": _served(ledger.shadow()),
        "alerts": [alert.model_dump(mode="json") for alert in alerts if alert.session == session],
    }


def _shown(decision: Decision) -> dict[str, Any]:
    told = {"decision_id", "state", "verdict", "reason", "received_at", "model_version", "refused"}
    return {**decision.model_dump(mode="json", include=told), "planned": len(decision.plan or ())}


def _served(model: ServedModel | None) -> dict[str, Any] | None:
    return None if model is None else model.model_dump(mode="json")


def _month_after(session: str) -> str:
    first = date.fromisoformat(session).replace(day=1)
    return (first + timedelta(days=31)).isoformat()[:7]
