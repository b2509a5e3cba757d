"""Two models side by side: the last targets of a session, whatever its slots are called."""

from __future__ import annotations

from decimal import Decimal

from lambdas.common.ledger.records import Decision, Held, ShadowDecision, Snapshot
from lambdas.common.orders.comparison import side_by_side


def closed(session: str, *, spy: int, ibm: int) -> Snapshot:
    held = {name: Held(quantity=Decimal(1), close=Decimal(close)) for name, close in (("SPY", spy), ("IBM", ibm))}
    return Snapshot(session=session, cash=Decimal(0), equity=Decimal(spy + ibm), positions=held, taken_at=f"{session}T21:05:00Z")


def test_the_last_slot_of_a_session_counts_and_not_the_last_by_its_name() -> None:
    """open+120 is later than open+5, and sorts before it."""
    decisions, watched = [], []
    for slot, time, ours, theirs in (("open+5", "14:35", "IBM", "SPY"), ("open+120", "16:30", "SPY", "IBM")):
        named, at = f"2020-01-02/{slot}", f"2020-01-02T{time}:00Z"
        decisions.append(
            Decision(decision_id=f"agent:{named}", strategy="agent", slot=named, body_sha256="b", received_at=at, weights={ours: 1.0})
        )
        watched.append(ShadowDecision(slot=named, model_version="m", data_as_of="2020-01-02", weights={theirs: 1.0}, time=at))
    closes = [closed("2020-01-02", spy=100, ibm=100), closed("2020-01-03", spy=110, ibm=90)]
    found = side_by_side(closes, reversed(decisions), reversed(watched))
    assert found is not None
    assert (found.sessions, round(found.traded, 9), round(found.watched, 9)) == (1, 0.1, -0.1)
