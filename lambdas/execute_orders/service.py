"""Accept a decision, a manual order, a flatten or a cancellation, and run its batch within the time budget.

Promises: an id is accepted once; the same id and body get the stored answer (a batch that is still working is continued, which repeats
nothing), another body a 409; a halted app answers 423 and sends nothing; a batch that cannot finish in time answers 202 and is finished
by `reconcile` through the same `Executor`. Nothing is stored before the broker's clock has answered.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lambdas.common.api.responses import shown_decision, shown_order
from lambdas.common.broker.alpaca import Clock
from lambdas.common.ledger.ledger import AlreadyThere, Fenced
from lambdas.common.ledger.records import FLATTEN, MANUAL, Decision
from lambdas.common.orders import planning
from lambdas.common.orders.cancelling import cancel, cancel_and_wait
from lambdas.common.orders.execution_context import Desk
from lambdas.common.orders.order_sync import Settler
from lambdas.common.orders.planning import PlanRefused, View, Window
from lambdas.common.telemetry import logger
from schema.api_requests import DecisionRequest, FlattenRequest, OrderRequest
from schema.exchange_time import iso
from schema.slot import decision_id_of


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]


def accept_decision(request: DecisionRequest, desk: Desk) -> Answer:
    clock = desk.broker.clock()
    body = request.model_dump(mode="json")
    decision = Decision(**body, body_sha256=request.sha256(), received_at=iso(clock.now), code_version=desk.code_version)
    return _accept(decision, clock, desk)


def accept_order(request: OrderRequest, desk: Desk) -> Answer:
    """A manual order is a decision with a plan of one leg, under the caller's key."""
    clock = desk.broker.clock()
    decision_id = decision_id_of(MANUAL, request.key)
    stored = desk.ledger.decision(decision_id)
    decision = stored or Decision(
        decision_id=decision_id,
        strategy=MANUAL,
        slot=request.key,
        body_sha256="",
        received_at=iso(clock.now),
        code_version=desk.code_version,
    )
    if stored is None:
        try:
            view = _view(decision, clock, desk, symbols=[request.symbol])
            legs = (planning.leg_of(decision, request.symbol, request.side, request.quantity, view.mid(request.symbol)),)
        except PlanRefused as reason:
            return Answer(422, {"errors": [{"field": "symbol", "value": request.symbol, "allowed": str(reason)}]})
        decision = decision.model_copy(
            update={"plan": legs, "buys_final": True, "verdict": "accepted", "window_ends": iso(view.window.ends)}
        )
    return _accept(decision.model_copy(update={"body_sha256": request.sha256()}), clock, desk)


def flatten(request: FlattenRequest, desk: Desk) -> Answer:
    """Let nothing buy any more (`reduce_only`, until a person sets it otherwise) and sell every exact holding.

    Idempotent: a flatten that works, or waits for the market to open, is continued, and with nothing held there is nothing to do. Open
    orders are cancelled first, and waited for: what they may still buy is to be sold, and they hold the shares that are. On a closed market
    it is stored for the next session, in which `reconcile` plans and sells, unless trading was resumed meanwhile.
    """
    clock = desk.broker.clock()
    desk.ledger.set_trading_state("reduce_only", reason=f"flatten: {request.reason}", time=iso(clock.now), by="flatten")
    window = planning.window_to_leave(desk.broker, clock)
    decision, number = _last_flatten(window, desk)
    if decision is None or decision.state == "done":
        cancel_and_wait(
            desk.broker,
            desk.broker.open_orders(),
            until=min(desk.monotonic() + desk.patience.order_patience_seconds, desk.deadline),
            poll=desk.patience.order_poll_seconds,
            monotonic=desk.monotonic,
            sleep=desk.sleep,
        )
        if not desk.broker.positions():
            return Answer(200, {"state": "done", "verdict": "refused", "reason": "nothing is held", "orders": []})
        decision = _new_flatten(window, clock, desk, number=number + 1)
    return _accept(decision, clock, desk)


def cancel_order(order_id: str, desk: Desk) -> Answer:
    """Ask the broker to cancel the order with client order id `order_id`, and answer what it says of it then. Passes when halted."""
    order = desk.ledger.order(order_id)
    if order is None:
        return Answer(404, {"message": f"no order {order_id}"})
    if not order.terminal and order.broker_id is not None:
        clock = desk.broker.clock()
        cancel(desk.broker, order.broker_id)
        order = Settler(ledger=desk.ledger, broker=desk.broker).settle(order, now=clock.now)
    return Answer(200 if order.terminal else 202, shown_order(order))


def _accept(decision: Decision, clock: Clock, desk: Desk) -> Answer:
    fresh = True
    try:
        desk.ledger.open_decision(decision)
    except AlreadyThere as there:
        stored = there.stored
        if not isinstance(stored, Decision) or stored.body_sha256 != decision.body_sha256:
            return Answer(409, {"message": f"{decision.decision_id} was accepted with another body", "decision_id": decision.decision_id})
        if stored.state == "done":
            return _answer(stored, desk)
        decision, fresh = stored, False
    fence = desk.lease()
    if fence is None:
        logger.warning("another executor holds the lease", extra={"decision_id": decision.decision_id})
        return _answer(decision, desk)
    try:
        state = desk.ledger.trading_state()
        if state.state == "halted" and fresh:
            decision = decision.model_copy(update={"state": "done", "verdict": "halted", "reason": state.reason})
            desk.ledger.save_decision(decision, fence=fence)
        else:
            decision = desk.executor(fence).run(decision, clock=clock)
    except Fenced:
        logger.warning("the lease has passed on", extra={"decision_id": decision.decision_id})
        decision = desk.ledger.decision(decision.decision_id) or decision
    finally:
        desk.ledger.release_lease(fence)
    return _answer(decision, desk)


def _answer(decision: Decision, desk: Desk) -> Answer:
    orders = desk.ledger.orders_by_id([leg.client_order_id for leg in decision.plan or ()])
    halted = decision.verdict == "halted" and not orders  # before the first order: nothing was accepted
    return Answer(423 if halted else 200 if decision.state == "done" else 202, shown_decision(decision, orders))


def _view(decision: Decision, clock: Clock, desk: Desk, *, symbols: list[str]) -> View:
    window = planning.window_of(decision, broker=desk.broker, clock=clock, settings=desk.settings)
    if (problem := window.problem(clock)) is not None:
        raise PlanRefused(problem)
    return planning.look(desk.broker, clock=clock, window=window, symbols=symbols, settings=desk.settings)


def _last_flatten(window: Window, desk: Desk) -> tuple[Decision | None, int]:
    """Return the newest flatten of the window's session and its number; (None, 0) if there is none."""
    last, number = None, 0
    while (found := desk.ledger.decision(decision_id_of(FLATTEN, f"{window.session}#{number + 1}"))) is not None:
        last, number = found, number + 1
    return last, number


def _new_flatten(window: Window, clock: Clock, desk: Desk, *, number: int) -> Decision:
    """Without a plan: what is sold is what is held when the market is open."""
    slot = f"{window.session}#{number}"
    closed = window.problem(clock)
    return Decision(
        decision_id=decision_id_of(FLATTEN, slot),
        strategy=FLATTEN,
        slot=slot,
        body_sha256=slot,
        received_at=iso(clock.now),
        verdict="accepted",
        reason=None if closed is None else f"{closed}; it sells from {iso(window.begins)} on, unless trading is resumed before",
        window_ends=iso(window.ends),
        code_version=desk.code_version,
    )
