"""One decision: observe market and book, ask the model that trades, record, send; then let the other one watch.

Promises: the decision id is the strategy and the slot, so the same event decides once; the audit record is written before anything can be
ordered; whatever makes the data, the book or the model doubtful ends in `no-trade` with an alert that names it, never in a guess. A
shadow, and the look back at what the last session cost, can fail in any way without touching the real decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lambdas.common.api.client import Answer
from lambdas.common.broker.port import Session
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import AlertRecord, ServedModel, ShadowDecision
from lambdas.common.ledger.roles import RESTS, rests, roles_now, trader_now
from lambdas.decide.attribution import attribute_session
from lambdas.decide.data import MarketSnapshot
from lambdas.decide.decision import ObservedState
from lambdas.decide.edges import Edges, NoTrade
from lambdas.decide.endpoint import Scores
from lambdas.decide.explaining import explanation_of
from lambdas.decide.notices import notices
from lambdas.decide.observing import observe_slot
from lambdas.decide.scoring import refuse_stale, scores_of, weights_of
from schema.exchange_time import iso, new_york_date
from schema.lake_layout import decision_key
from schema.settings import Settings
from schema.slot import AGENT, Slot, decision_id_of
from trading_env.evaluation.attribution import AttributionError
from trading_env.simulation.portfolio import PortfolioError

Result = dict[str, Any]


def decide(*, time: datetime, settings: Settings, edges: Edges, slot_name: str | None = None) -> Result:
    """Decide a slot of the session that `time` (UTC) lies in; the only one needs no name.

    Returns what happened; raises what a retry may heal, and ValueError for a slot that is not scheduled.
    """
    session = new_york_date(time)
    hours = edges.market_data.sessions(session, session)
    if not hours:
        return {"outcome": "skipped", "reason": f"{session} is not a session"}
    deciding = settings.schedule.slot_of(session, slot_name)
    begins, window_ends = deciding.window(hours[0].open, minutes=settings.schedule.slot_window_minutes)
    retries, slot = edges.retries.within((window_ends - time).total_seconds()), str(deciding)
    decision_id = decision_id_of(AGENT, slot)
    if (made := edges.ledger.decision(decision_id)) is not None:
        return {"outcome": "decided before", "decision_id": decision_id, "state": made.state, "verdict": made.verdict}
    if settings.row_slots and begins >= hours[0].close:
        return {"outcome": "skipped", "reason": f"{session} closes before slot {slot}"}
    model = trader_now(edges.ledger, settings)
    if rests(model, deciding, settings):
        return _rest(deciding, hours=hours[0], settings=settings, edges=edges, time=time)
    try:
        snapshot, observed = observe_slot(slot=deciding, hours=hours[0], settings=settings, edges=edges)
        as_of = snapshot.as_of
        refuse_stale(model, session=session, settings=settings)
        scored = scores_of(model, observed=observed, edges=edges, retries=retries)
        weights = weights_of(model, observed=observed, values=scored.values)
    except NoTrade as reason:
        _alert(edges.ledger, rule=reason.rule, detail=str(reason), subject=f"No decision in slot {slot}", session=session, time=time)
        return {"outcome": "no-trade", "decision_id": decision_id, "rule": reason.rule, "reason": str(reason)}

    body = {
        "decision_id": decision_id,
        "slot": slot,
        "strategy": AGENT,
        "model_version": model.model_version,
        "data_as_of": as_of.isoformat(),
        "weights": weights,
        "scores": _by_symbol(observed, scored.values),
        "feature_hash": observed.feature_hash,
        "observation_hash": observed.sha256,
    }
    record = _audit_record(body, model=model, snapshot=snapshot, observed=observed, scored=scored, code_version=edges.code_version)
    reasons = explanation_of(model, observed=observed, scored=scored, s3=edges.lake.s3)
    edges.lake.put_decision_record(decision_key(session, decision_id), {**record, "explanation": reasons.model_dump(mode="json")})
    _tell_of_fallback(model, scored, slot=slot, ledger=edges.ledger, time=time)
    answer = edges.execution.post_decision(body)
    for symbol, last in snapshot.missing.items():
        since = "the lake has none of it at all" if last is None else f"its last is of {last}"
        detail = f"{symbol} has no bar of {snapshot.newest}, {since}; it is left out and its position carried"
        left_out = f"{symbol} is left out of slot {slot}"
        _alert(edges.ledger, rule=f"missing-bar:{symbol}", detail=detail, subject=left_out, session=session, time=time)
    for one in notices(snapshot, held={symbol for symbol, weight in _by_symbol(observed, observed.held).items() if weight}):
        _alert(edges.ledger, rule=one.rule, detail=one.detail, subject=one.subject, session=session, time=time)
    _decide_shadow(slot=deciding, traded=model, settings=settings, as_of=as_of, observed=observed, edges=edges, time=time)
    _attribute(snapshot, settings=settings, edges=edges, session=session, time=time)
    return _outcome(
        answer,
        decision_id=decision_id,
        as_of=as_of.isoformat(),
        model_version=model.model_version,
        missing=list(snapshot.missing),
        **_reach(snapshot),
    )


def _rest(slot: Slot, *, hours: Session, settings: Settings, edges: Edges, time: datetime) -> Result:
    """Nothing is decided and nothing ordered; a model that watches is asked all the same."""
    result = {"outcome": "rests", "decision_id": decision_id_of(AGENT, slot), "reason": RESTS}
    both = roles_now(edges.ledger, settings)
    if both.watches is None:
        return result
    try:
        snapshot, observed = observe_slot(slot=slot, hours=hours, settings=settings, edges=edges)
    except NoTrade as reason:
        _tell_of_silence(slot, reason, ledger=edges.ledger, time=time)
        return result
    _decide_shadow(slot=slot, traded=both.trades, settings=settings, as_of=snapshot.as_of, observed=observed, edges=edges, time=time)
    return result


def _reach(snapshot: MarketSnapshot) -> dict[str, str]:
    """With slot bars, to what instant the market reaches; a day of daily bars says it all."""
    return {} if snapshot.until is None else {"observed_until": iso(snapshot.until)}


def _outcome(answer: Answer, *, decision_id: str, **fields: Any) -> Result:
    match answer.status:
        case 200 | 202:
            counts = {
                "state": answer.body.get("state"),
                "verdict": answer.body.get("verdict"),
                "orders": len(answer.body.get("orders", [])),
            }
            return {"outcome": "decided", "decision_id": decision_id, **fields, **counts}
        case 423:
            return {"outcome": "halted", "decision_id": decision_id, **fields, "answer": answer.body}
    raise RuntimeError(f"POST /decisions for {decision_id} must answer 200, 202 or 423, was {answer.status}: {answer.body}")


def _alert(ledger: Ledger, *, rule: str, detail: str, subject: str, session: date, time: datetime) -> None:
    """Written to the ledger; `health` mails it."""
    ledger.put_alert(AlertRecord(rule=rule, session=session.isoformat(), subject=subject, detail=detail, time=iso(time)))


def _tell_of_fallback(model: ServedModel, scored: Scores, *, slot: str, ledger: Ledger, time: datetime) -> None:
    if scored.fallback is None:
        return
    rule = "endpoint-fallback" if model.role == "incumbent" else f"endpoint-fallback:{model.role}"
    detail = f"{scored.fallback}; the scores were computed from its package, {model.model_uri}, which has the model's hash"
    subject = f"The {model.role}'s endpoint gave no scores in slot {slot}; its package did"
    _alert(ledger, rule=rule, detail=detail, subject=subject, session=new_york_date(time), time=time)


def _decide_shadow(
    *, slot: Slot, traded: ServedModel, settings: Settings, as_of: date, observed: ObservedState, edges: Edges, time: datetime
) -> None:
    """Record what the model that watches would have done with the same observation; its failure is an alert and nothing else."""
    shadow = roles_now(edges.ledger, settings).watches
    if shadow is None or shadow.spec == traded.spec or rests(shadow, slot, settings):
        return
    try:
        scored = scores_of(shadow, observed=observed, edges=edges, retries=edges.retries.once())
        weights = weights_of(shadow, observed=observed, values=scored.values)
    except NoTrade as reason:
        _tell_of_silence(slot, reason, ledger=edges.ledger, time=time)
        return
    _tell_of_fallback(shadow, scored, slot=str(slot), ledger=edges.ledger, time=time)
    edges.ledger.put_shadow_decision(
        ShadowDecision(
            slot=str(slot),
            model_version=shadow.model_version,
            data_as_of=as_of.isoformat(),
            weights=weights,
            scores=_by_symbol(observed, scored.values),
            observation_hash=observed.sha256,
            explanation=explanation_of(shadow, observed=observed, scored=scored, s3=edges.lake.s3).brief,
            time=iso(time),
        )
    )


def _tell_of_silence(slot: Slot, reason: NoTrade, *, ledger: Ledger, time: datetime) -> None:
    failed = NoTrade("shadow-unavailable", str(reason))
    subject = f"The shadow did not decide in slot {slot}"
    _alert(ledger, rule=failed.rule, detail=str(failed), subject=subject, session=new_york_date(time), time=time)


def _attribute(snapshot: MarketSnapshot, *, settings: Settings, edges: Edges, session: date, time: datetime) -> None:
    """Say what the last session cost; that it cannot be said is an alert and nothing else."""
    try:
        attribute_session(market=snapshot.market, settings=settings, ledger=edges.ledger)
    except (AttributionError, PortfolioError) as error:
        last = f"The session {snapshot.as_of} is not explained"
        _alert(edges.ledger, rule="not-explained", detail=str(error), subject=last, session=session, time=time)


def _audit_record(
    body: Mapping[str, Any], *, model: ServedModel, snapshot: MarketSnapshot, observed: ObservedState, scored: Scores, code_version: str
) -> dict[str, Any]:
    """All that is needed to decide again and get the same weights."""
    return {
        "schema": 1,
        "decision": dict(body),
        "model": model.model_dump(mode="json"),
        "observation": [float(value) for value in observed.observation.vector],
        "symbols": list(observed.observation.symbols),
        "tradable": [bool(value) for value in observed.tradable],
        "held": _by_symbol(observed, observed.held),
        "cash_weight": observed.cash_weight,
        "scores": _by_symbol(observed, scored.values),
        "outside": scored.outside,
        "fallback": scored.fallback,
        "inputs_sha256": snapshot.inputs_sha256,
        **_reach(snapshot),
        "quarantined": snapshot.quarantined,
        "missing": list(snapshot.missing),
        "broken": {symbol: str(action) for symbol, action in snapshot.broken.items()},
        "code_version": code_version,
    }


def _by_symbol(observed: ObservedState, values: NDArray[np.float64]) -> dict[str, float]:
    return {symbol: float(value) for symbol, value in zip(observed.observation.symbols, values, strict=True)}
