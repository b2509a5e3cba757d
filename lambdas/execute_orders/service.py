"""Accept a decision, a manual order, a flatten or a cancellation, and run its batch within the time budget.

Promises: an id is accepted once; the same id and body get the stored answer (a batch that is still working is continued, which repeats
nothing), another body a 409; a halted app answers 423 and sends nothing; a batch that cannot finish in time answers 202 and is finished
by `reconcile` through the same `run_batch`. Nothing is stored before the broker's clock has answered.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lambdas.common.api.responses import shown_decision, shown_order
from lambdas.common.broker.port import Clock
from lambdas.common.ledger.ledger import AlreadyThere, Fenced
from lambdas.common.ledger.records import Decision
from lambdas.common.orders import planning
from lambdas.common.orders.cancelling import cancel, cancel_and_wait
from lambdas.common.orders.execution import run_batch
from lambdas.common.orders.execution_context import ExecutionContext
from lambdas.common.orders.order_sync import OrderSync
from lambdas.common.orders.planning import PlanRefused, SlotWindow, View
from lambdas.common.telemetry import logger
from schema.api_requests import DecisionRequest, FlattenRequest, OrderRequest
from schema.exchange_time import iso
from schema.slot import FLATTEN, MANUAL, decision_id_of


class Outcome(NamedTuple):
    status: int
    body: dict[str, Any]


def accept_decision(request: DecisionRequest, context: ExecutionContext) -> Outcome:
    clock = context.broker.clock()
    body = request.model_dump(mode="json")
    decision = Decision(**body, body_sha256=request.sha256(), received_at=iso(clock.now), code_version=context.code_version)
    return _accept(decision, clock, context)


def accept_order(request: OrderRequest, context: ExecutionContext) -> Outcome:
    """A manual order is a decision with a plan of one order, under the caller's key."""
    clock = context.broker.clock()
    decision_id = decision_id_of(MANUAL, request.key)
    stored = context.ledger.decision(decision_id)
    decision = stored or Decision(
        decision_id=decision_id,
        strategy=MANUAL,
        slot=request.key,
        body_sha256="",
        received_at=iso(clock.now),
        code_version=context.code_version,
    )
    if stored is None:
        try:
            view = _view(decision, clock, context, symbols=[request.symbol])
            plan = (planning.planned_order(decision, request.symbol, request.side, request.quantity, view.mid(request.symbol)),)
        except PlanRefused as reason:
            return Outcome(422, {"errors": [{"field": "symbol", "value": request.symbol, "allowed": str(reason)}]})
        decision = decision.model_copy(
            update={"plan": plan, "buys_final": True, "verdict": "accepted", "window_ends": iso(view.window.ends)}
        )
    return _accept(decision.model_copy(update={"body_sha256": request.sha256()}), clock, context)


def flatten(request: FlattenRequest, context: ExecutionContext, *, by: str, time: str) -> Outcome:
    """Let nothing buy any more (`reduce_only`, until a person sets it otherwise) and sell every exact holding; `by` asked, at `time`.

    Idempotent: a flatten that works, or waits for the market to open, is continued, and with nothing held there is nothing to do. Open
    orders are cancelled first, and waited for: what they may still buy is to be sold, and they hold the shares that are. On a closed market
    it is stored for the next session, in which `reconcile` plans and sells, unless trading was resumed meanwhile.
    """
    clock = context.broker.clock()
    context.ledger.set_trading_state("reduce_only", reason=f"flatten: {request.reason}", time=time, by=by)
    window = planning.window_to_leave(context.broker, clock)
    decision, number = _last_flatten(window, context)
    if decision is None or decision.state == "done":
        cancel_and_wait(
            context.broker,
            context.broker.open_orders(),
            until=context.until(context.budget.order_timeout_seconds),
            poll=context.budget.order_poll_seconds,
            monotonic=context.monotonic,
            sleep=context.sleep,
        )
        if not context.broker.positions():
            return Outcome(200, {"state": "done", "verdict": "refused", "reason": "nothing is held", "orders": []})
        decision = _new_flatten(window, clock, context, number=number + 1)
    return _accept(decision, clock, context)


def cancel_order(order_id: str, context: ExecutionContext) -> Outcome:
    """Ask the broker to cancel the order with client order id `order_id`, and answer what it says of it then. Passes when halted."""
    order = context.ledger.order(order_id)
    if order is None:
        return Outcome(404, {"message": f"no order {order_id}"})
    if not order.terminal and order.broker_id is not None:
        clock = context.broker.clock()
        cancel(context.broker, order.broker_id)
        order = OrderSync(ledger=context.ledger, broker=context.broker).ask(order, now=clock.now)
    return Outcome(200 if order.terminal else 202, shown_order(order))


def _accept(decision: Decision, clock: Clock, context: ExecutionContext) -> Outcome:
    fresh = True
    try:
        context.ledger.open_decision(decision)
    except AlreadyThere as there:
        stored = there.stored
        if not isinstance(stored, Decision) or stored.body_sha256 != decision.body_sha256:
            return Outcome(409, {"message": f"{decision.decision_id} was accepted with another body", "decision_id": decision.decision_id})
        if stored.state == "done":
            return _answer(stored, context)
        decision, fresh = stored, False
    fence = context.lease()
    if fence is None:
        logger.warning("another executor holds the lease", extra={"decision_id": decision.decision_id})
        return _answer(decision, context)
    try:
        state = context.ledger.trading_state()
        if state.state == "halted" and fresh:
            decision = decision.model_copy(update={"state": "done", "verdict": "halted", "reason": state.reason})
            context.ledger.save_decision(decision, fence=fence)
        else:
            decision = run_batch(decision, clock=clock, context=context, fence=fence)
    except Fenced:
        logger.warning("the lease has passed on", extra={"decision_id": decision.decision_id})
        decision = context.ledger.decision(decision.decision_id) or decision
    finally:
        context.ledger.release_lease(fence)
    return _answer(decision, context)


def _answer(decision: Decision, context: ExecutionContext) -> Outcome:
    orders = context.ledger.orders_by_id([planned.client_order_id for planned in decision.plan or ()])
    halted = decision.verdict == "halted" and not orders  # before the first order: nothing was accepted
    return Outcome(423 if halted else 200 if decision.state == "done" else 202, shown_decision(decision, orders))


def _view(decision: Decision, clock: Clock, context: ExecutionContext, *, symbols: list[str]) -> View:
    window = planning.window_of(decision, broker=context.broker, clock=clock, settings=context.settings)
    if (problem := window.problem(clock)) is not None:
        raise PlanRefused(problem)
    return planning.look(context.broker, context.market_data, clock=clock, window=window, symbols=symbols, settings=context.settings)


def _last_flatten(window: SlotWindow, context: ExecutionContext) -> tuple[Decision | None, int]:
    """Return the newest flatten of the window's session and its number; (None, 0) if there is none."""
    last, number = None, 0
    while (found := context.ledger.decision(decision_id_of(FLATTEN, f"{window.session}#{number + 1}"))) is not None:
        last, number = found, number + 1
    return last, number


def _new_flatten(window: SlotWindow, clock: Clock, context: ExecutionContext, *, number: int) -> Decision:
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
        code_version=context.code_version,
    )
