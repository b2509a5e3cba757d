"""One decision: observe the last close, ask the model that trades, record, send; then let the other one watch.

Promises: the decision id is the strategy and the slot, so the same event decides once; the audit record is written before anything can be
ordered; whatever makes the data, the book or the model doubtful ends in `no-trade` with an alert that names it, never in a guess. A
shadow, and the look back at what the last session cost, can fail in any way without touching the real decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lambdas.common.api.client import Answer, ExecutionApi
from lambdas.common.broker.port import Broker, MarketData
from lambdas.common.lake.lake import Lake
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import AlertRecord, ServedModel, ShadowDecision, Snapshot
from lambdas.common.ledger.roles import roles_now, trader_now
from lambdas.common.orders.splits import splits_between
from lambdas.decide.attribution import attribute_session
from lambdas.decide.data import MarketSnapshot, StaleDataError, market_snapshot, years_needed
from lambdas.decide.decision import AccountAtClose, ObservedState, observe_state, target
from lambdas.decide.endpoint import EndpointError, Scores, ask
from schema.exchange_time import iso, new_york_date
from schema.lake_layout import decision_key
from schema.settings import Settings
from schema.slot import AGENT, decision_id_of
from trading_env.data.features import FEATURE_HASH
from trading_env.data.observation import ObservationError
from trading_env.errors import PapertapeError
from trading_env.evaluation.attribution import AttributionError
from trading_env.simulation.policy import PolicyError, make_policy
from trading_env.simulation.portfolio import PortfolioError

#: The share of a model's inputs that may lie outside of its training's envelope. The worst day of 2008 has 8 % of them there, March 2020
#: 2 %: beyond 10 % it is another world, or broken data.
OUTSIDE_LIMIT = 0.10

Array = NDArray[np.float64]
Result = dict[str, Any]


class NoTrade(PapertapeError):  # noqa: N818 -- an outcome, not an error
    """This slot must pass without an order; `rule` is the health rule that tells why."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Everything outside; `runtime` is SageMaker's runtime client."""

    broker: Broker
    market_data: MarketData
    lake: Lake
    ledger: Ledger
    runtime: Any
    execution: ExecutionApi
    code_version: str


def decide(*, time: datetime, settings: Settings, edges: Edges, slot_name: str | None = None) -> Result:
    """Decide a slot of the session that `time` (UTC) lies in; the only one needs no name.

    Returns what happened; raises what a retry may heal, and ValueError for a slot that is not scheduled.
    """
    session = new_york_date(time)
    if not edges.market_data.sessions(session, session):
        return {"outcome": "skipped", "reason": f"{session} is not a session"}
    slot = str(settings.schedule.slot_of(session, slot_name))
    decision_id = decision_id_of(AGENT, slot)
    if (made := edges.ledger.decision(decision_id)) is not None:
        return {"outcome": "decided before", "decision_id": decision_id, "state": made.state, "verdict": made.verdict}
    try:
        as_of, snapshot, observed = _observe(session=session, settings=settings, edges=edges)
        model = trader_now(edges.ledger, settings)
        _refuse_stale(model, session=session, settings=settings)
        scored = _scores(model, observed=observed, as_of=as_of, runtime=edges.runtime)
        weights = _weights(model, observed=observed, values=scored.values)
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
        "feature_hash": FEATURE_HASH,
        "observation_hash": observed.sha256,
    }
    record = _audit_record(body, model=model, snapshot=snapshot, observed=observed, scored=scored, code_version=edges.code_version)
    edges.lake.put_decision_record(decision_key(session, decision_id), record)
    answer = edges.execution.post_decision(body)
    for symbol, last in snapshot.missing.items():
        since = "the lake has none of it at all" if last is None else f"its last is of {last}"
        detail = f"{symbol} has no bar of {as_of}, {since}; it is left out and its position carried"
        left_out = f"{symbol} is left out of slot {slot}"
        _alert(edges.ledger, rule=f"missing-bar:{symbol}", detail=detail, subject=left_out, session=session, time=time)
    _decide_shadow(slot=slot, traded=model, settings=settings, as_of=as_of, observed=observed, edges=edges, time=time)
    _attribute(snapshot, settings=settings, edges=edges, session=session, time=time)
    return _outcome(
        answer,
        decision_id=decision_id,
        as_of=as_of.isoformat(),
        model_version=model.model_version,
        missing=list(snapshot.missing),
    )


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


def _observe(*, session: date, settings: Settings, edges: Edges) -> tuple[date, MarketSnapshot, ObservedState]:
    # The close before may be of the year before, and then its history begins a year earlier than the session's
    calendar = edges.lake.calendar(years={*years_needed(session), *years_needed(session.replace(year=session.year - 1, day=1))})
    earlier = calendar.before(session)
    if not calendar.is_session(session) or not earlier:
        raise NoTrade("stale-data", f"the lake's calendar does not reach {session}; run backfill_bars")
    as_of = earlier[-1]
    try:
        snapshot = market_snapshot(lake=edges.lake, symbols=settings.universe.symbols, sessions=earlier, as_of=as_of)
    except StaleDataError as error:
        raise NoTrade("stale-data", str(error)) from error
    account = _account(edges=edges, session=session, as_of=as_of)
    try:
        return as_of, snapshot, observe_state(market=snapshot.market, account=account)
    except (ObservationError, ValueError) as error:
        raise NoTrade("no-observation", str(error)) from error


def _account(*, edges: Edges, session: date, as_of: date) -> AccountAtClose:
    """The closing snapshot of `as_of`; before the first decision ever, an account in which nothing is held."""
    ledger, broker = edges.ledger, edges.broker
    snapshot, pinned = ledger.snapshot(as_of.isoformat()), ledger.breakers().account_id
    if snapshot is not None and (pinned is None or snapshot.account_id in {None, pinned}):
        _refuse_pending_splits(snapshot, edges=edges, session=session, as_of=as_of)
        return _from_snapshot(snapshot)
    months = {as_of.isoformat()[:7], session.isoformat()[:7]}
    if ledger.latest_snapshot() is not None or any(ledger.decisions(month) for month in sorted(months)):
        raise NoTrade("book-unknown", f"the ledger has no closing snapshot of {as_of} of this account; see reconcile")
    if held := sorted(broker.positions()):
        what = f"an account without positions, was {', '.join(held)}"
        raise NoTrade("book-unknown", f"before its first closing snapshot a decision needs {what}; reconcile takes it at the close")
    return AccountAtClose(cash=float(broker.account().cash), quantities={}, closes={})


def _refuse_pending_splits(snapshot: Snapshot, *, edges: Edges, session: date, as_of: date) -> None:
    """A position that waits for its split would be sized, and judged, at a price that is not its own."""
    splits = splits_between(edges.market_data, snapshot.positions, first=as_of + timedelta(days=1), last=session)
    if not splits.events:
        return
    held = {symbol: one.quantity for symbol, one in snapshot.positions.items()}
    pending = splits.pending(held, {}, {symbol: position.quantity for symbol, position in edges.broker.positions().items()})
    if pending:
        raise NoTrade("split-pending", "; ".join(pending.values()))


def _from_snapshot(snapshot: Snapshot) -> AccountAtClose:
    return AccountAtClose(
        cash=float(snapshot.cash),
        quantities={symbol: float(held.quantity) for symbol, held in snapshot.positions.items()},
        closes={symbol: float(held.close) for symbol, held in snapshot.positions.items()},
    )


def _refuse_stale(model: ServedModel, *, session: date, settings: Settings) -> None:
    """A model's age counts from the last data it was trained or judged on, else from its deployment."""
    if model.policy != "endpoint":
        return
    age = (session - model.known_until).days
    if age > settings.risk.max_model_age_days:
        limit = settings.risk.max_model_age_days
        raise NoTrade("stale-model", f"model {model.model_version} may be {limit} days old, was {age}; train again with later dates")


def _scores(model: ServedModel, *, observed: ObservedState, as_of: date, runtime: Any) -> Scores:
    if model.policy != "endpoint":
        try:
            return Scores(make_policy(model.spec).scores(observed.observation))
        except PolicyError as error:
            raise NoTrade("model-unavailable", str(error)) from error
    if model.feature_hash != FEATURE_HASH:
        raise NoTrade("model-unavailable", f"model {model.model_version} needs feature table {model.feature_hash}, was {FEATURE_HASH}")
    observation = observed.observation
    try:
        scored = ask(runtime=runtime, model=model, as_of=as_of, symbols=observation.symbols, observation=observation.vector)
    except EndpointError as error:
        raise NoTrade("model-unavailable", str(error)) from error
    _refuse_out_of_envelope(model, scored)
    return scored


def _refuse_out_of_envelope(model: ServedModel, scored: Scores) -> None:
    if scored.outside is not None and scored.outside > OUTSIDE_LIMIT:
        share = f"{scored.outside:.1%} of its inputs lie outside of what it was trained on, at most {OUTSIDE_LIMIT:.0%}"
        raise NoTrade("out-of-envelope", f"model {model.model_version}: {share}")


def _weights(model: ServedModel, *, observed: ObservedState, values: Array) -> dict[str, float]:
    if not observed.tradable.any():
        raise NoTrade("no-observation", f"no name is tradable at the close of {observed.observation.as_of}")
    return target(observed=observed, scores=values, kappa=model.kappa)


def _decide_shadow(
    *, slot: str, traded: ServedModel, settings: Settings, as_of: date, observed: ObservedState, edges: Edges, time: datetime
) -> None:
    """Record what the model that watches would have done with the same observation; its failure is an alert and nothing else."""
    shadow = roles_now(edges.ledger, settings).watches
    if shadow is None or shadow.spec == traded.spec:
        return
    try:
        scored = _scores(shadow, observed=observed, as_of=as_of, runtime=edges.runtime)
        weights = _weights(shadow, observed=observed, values=scored.values)
    except NoTrade as reason:
        failed = NoTrade("shadow-unavailable", str(reason))
        _alert(
            edges.ledger,
            rule=failed.rule,
            detail=str(failed),
            subject=f"The shadow did not decide in slot {slot}",
            session=new_york_date(time),
            time=time,
        )
        return
    edges.ledger.put_shadow_decision(
        ShadowDecision(
            slot=slot,
            model_version=shadow.model_version,
            data_as_of=as_of.isoformat(),
            weights=weights,
            scores=_by_symbol(observed, scored.values),
            observation_hash=observed.sha256,
            time=iso(time),
        )
    )


def _attribute(snapshot: MarketSnapshot, *, settings: Settings, edges: Edges, session: date, time: datetime) -> None:
    """Say what the last session cost; that it cannot be said is an alert and nothing else."""
    try:
        attribute_session(market=snapshot.market, settings=settings, ledger=edges.ledger)
    except (AttributionError, PortfolioError) as error:
        last = f"The session {snapshot.market.sessions[-1]} is not explained"
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
        "inputs_sha256": snapshot.inputs_sha256,
        "quarantined": snapshot.quarantined,
        "missing": list(snapshot.missing),
        "code_version": code_version,
    }


def _by_symbol(observed: ObservedState, values: Array) -> dict[str, float]:
    return {symbol: float(value) for symbol, value in zip(observed.observation.symbols, values, strict=True)}
