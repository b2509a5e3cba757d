"""One order on its way to the broker: put into the ledger, judged, POSTed once, and its outcome recorded.

Promises: an order is PENDING in the ledger before it is POSTed; trading state, breakers and risk are read after that and before the POST,
for each order anew; whatever is not a definite answer is stored as UNKNOWN before the broker is asked about it.
Failure: as in `execution`; nothing here resolves a doubt in favour of sending.
"""

from __future__ import annotations

from dataclasses import replace

from lambdas.common.broker.port import AlreadyAccepted, BrokerUnavailable, Rejected, Unresolved
from lambdas.common.ledger.ledger import AlreadyThere
from lambdas.common.ledger.records import OrderRecord, PlannedOrder
from lambdas.common.orders import planning
from lambdas.common.orders.batch import Batch
from lambdas.common.orders.broker_updates import note
from lambdas.common.telemetry import logger
from schema.exchange_time import iso
from schema.trading_rules import limits_of
from trading_env.orders import risk
from trading_env.orders.order_state import Event


def send(planned: PlannedOrder, batch: Batch) -> OrderRecord:
    """Send an order for the first time, unless the ledger has it: then only ask."""
    run = batch.run
    order = OrderRecord(
        **planned.model_dump(include={"client_order_id", "symbol", "side", "quantity", "price", "attempt"}),
        decision_id=batch.decision.decision_id,
        slot=batch.decision.slot,
        created_at=iso(run.now),
        arrival_price=batch.arrivals.get(planned.symbol),
    )
    try:
        run.ledger.open_order(order, fence=run.fence)
    except AlreadyThere:
        return run.sync.ask(run.ledger.order(order.client_order_id) or order, now=run.now)
    return _post(order, planned, batch)


def send_again(order: OrderRecord, planned: PlannedOrder, batch: Batch) -> OrderRecord:
    """Send the same id once more; that it is sent is stored first, so that the grace counts from here."""
    run = batch.run
    batch.situation = risk.without(planning.proposed(planned), batch.situation)
    sent = {"sent_at": iso(run.now), "missing_since": None}
    order = note(run.ledger, order, Event.SENT, now=run.now, fence=run.fence, **sent)
    return _post(order, planned, batch) if order.in_doubt else order


def _post(order: OrderRecord, planned: PlannedOrder, batch: Batch) -> OrderRecord:
    """Judge, POST once, record."""
    run, now = batch.run, batch.run.now
    verdict = _judge(planned, batch)
    if not verdict.allowed:
        refused = {"client_order_id": order.client_order_id, "rule": verdict.rule, "detail": verdict.detail}
        logger.warning("order refused", extra=refused)
        if order.unknown_since is not None:  # an earlier run may have sent it: only the broker, or the window's end, resolves it
            batch.count_working(planned)
            return order
        return note(run.ledger, order, Event.REFUSED, now=now, risk=verdict.rule, reason=verdict.detail)
    order = order.model_copy(update={"risk": "allowed"})
    doubt: Exception
    try:
        response = run.broker.submit(planning.proposed(planned), retry_timeout=batch.seconds_to_send())
    except Rejected as no:
        if not isinstance(no, AlreadyAccepted) and order.unknown_since is None:
            return note(run.ledger, order, Event.TURNED_DOWN, now=now, risk="allowed", reason=str(no), refusal=no.refusal)
        doubt = no  # it was accepted before, or may have been: a refusal of the second POST says nothing about the first
    except Unresolved as lost:
        doubt = lost
    else:
        batch.count_working(planned)
        return run.sync.apply(order, response, now=now)
    batch.count_working(planned)
    return _record_doubt(order, str(doubt), batch)


def _judge(planned: PlannedOrder, batch: Batch) -> risk.RiskVerdict:
    """Read the trading state and the breakers as they are now, and let risk decide."""
    state, breakers = batch.run.ledger.switches()
    batch.situation = replace(batch.situation, state=state.state, latched=batch.situation.latched | breakers.tripped.keys())
    return risk.check_order(planning.proposed(planned), batch.situation, limits_of(batch.run.context.settings))


def _record_doubt(order: OrderRecord, doubt: str, batch: Batch) -> OrderRecord:
    """Store UNKNOWN first, then ask: a crash in between must leave the doubt on record."""
    run, now = batch.run, batch.run.now
    since = order.unknown_since or iso(now)
    order = note(run.ledger, order, Event.DOUBT, now=now, risk=order.risk, reason=doubt, unknown_since=since)
    try:
        return run.sync.ask(order, now=now)
    except BrokerUnavailable as silence:
        logger.warning("unknown stays", extra={"client_order_id": order.client_order_id, "reason": str(silence)})
        return order
