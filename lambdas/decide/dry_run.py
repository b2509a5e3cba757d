"""What the agent would decide in the slot that is open or comes next, with the newest data and the book as it is now.

Promise: nothing is written, nothing is sent, no alert is raised, whatever the hour and the trading state. What would end in `no-trade` is
told as its rule and reason. Raises ValueError for a slot that is not scheduled, and what the broker or AWS raises when asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from lambdas.common.broker.port import Session
from lambdas.common.ledger.roles import RESTS, rests, trader_now
from lambdas.decide.data import MarketSnapshot
from lambdas.decide.decision import ObservedState
from lambdas.decide.edges import Edges, NoTrade
from lambdas.decide.observing import observe_now
from lambdas.decide.scoring import refuse_stale, scores_of, weights_of
from schema.exchange_time import iso, new_york_date
from schema.settings import Settings
from schema.slot import Slot

NEARBY = timedelta(days=10)  # no two sessions are further apart


def dry_run(*, settings: Settings, edges: Edges, now: datetime | None = None, slot_name: str | None = None) -> dict[str, Any]:
    """`now` (UTC) defaults to the broker's clock.

    `targets` are shares of the invested part of equity by symbol, {} when nothing would be traded; `cash` is the share of equity that stays
    in cash, None when that is not known; `rule` is the health rule that stands in the way, else None; `reason` says either in words.
    """
    now = now or edges.broker.clock().now
    today = new_york_date(now)
    sessions = edges.market_data.sessions(today - NEARBY, today + NEARBY)
    slot, hours = _next_slot(sessions, now=now, settings=settings, name=slot_name)
    closed = [session.date for session in sessions if session.close <= now]
    model = trader_now(edges.ledger, settings)
    told = {"dry_run": True, "slot": str(slot), "strategy": model.policy, "model_version": model.model_version}
    if rests(model, slot, settings):
        return {**told, "targets": {}, "cash": None, "rule": None, "reason": RESTS}
    try:
        snapshot, observed = observe_now(slot=slot, hours=hours, now=now, closed=closed, settings=settings, edges=edges)
        refuse_stale(model, session=slot.session, settings=settings)
        scored = scores_of(model, observed=observed, edges=edges, retries=edges.retries.once())
        weights = weights_of(model, observed=observed, values=scored.values)
    except NoTrade as refusal:
        return {**told, "targets": {}, "cash": None, "rule": refusal.rule, "reason": str(refusal)}
    cash = _left_in_cash(observed, weights, buffer=settings.portfolio.cash_buffer)
    seen = f"the close of {snapshot.as_of}" if snapshot.as_of < slot.session else f"the slot bars up to {_time(snapshot)}"
    reason = f"{model.policy} would decide so for slot {slot}, from {seen}"
    if scored.fallback is not None:
        reason += f"; its package scored, for the endpoint did not: {scored.fallback}"
    return {**told, "targets": weights, "cash": cash, "rule": None, "reason": reason}


def _time(snapshot: MarketSnapshot) -> str:
    return snapshot.newest if snapshot.until is None else iso(snapshot.until)


def _next_slot(sessions: Sequence[Session], *, now: datetime, settings: Settings, name: str | None) -> tuple[Slot, Session]:
    """The first slot, of that name if given, whose window has not ended, and its session."""
    for session in sessions:
        named = (settings.schedule.slot_of(session.date, name),) if name else settings.schedule.slots_of(session.date)
        for slot in named:
            begins, ends = slot.window(session.open, minutes=settings.schedule.slot_window_minutes)
            if ends > now and not (settings.row_slots and begins >= session.close):
                return slot, session
    raise ValueError(f"the broker's calendar must hold a slot within {NEARBY.days} days of {now.isoformat()}, there is none")


def _left_in_cash(observed: ObservedState, weights: dict[str, float], *, buffer: float) -> float:
    foreign = 1 - observed.cash_weight - float(observed.held.sum())
    carried = float(observed.held[~observed.tradable].sum()) + foreign
    return max(0.0, 1 - (1 - buffer) * sum(weights.values()) - carried)
