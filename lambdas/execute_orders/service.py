"""Accept a decision, a manual order, a flatten or a cancellation, and run its batch within the time budget.

Promises: an id is accepted once; the same id and body get the stored answer (a batch that is still working is continued, which repeats
nothing), another body a 409; a halted app answers 423 and sends nothing; a batch that cannot finish in time answers 202 and is finished
by `reconcile` through the same `Executor`. Nothing is stored before the broker's clock has answered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from lambdas.common import planning
from lambdas.common.answers import shown_decision, shown_order
from lambdas.common.broker import Broker, Clock, Rejected, Unresolved
from lambdas.common.broker_time import iso
from lambdas.common.execution import Executor
from lambdas.common.ledger import AlreadyThere, Fenced, Ledger
from lambdas.common.planning import PlanRefused, View
from lambdas.common.recording import record
from lambdas.common.records import FLATTEN, MANUAL, Decision, Leg
from lambdas.common.telemetry import logger
from lambdas.execute_orders.requests import DecisionRequest, FlattenRequest, OrderRequest
from settings import Settings
from trading_env.orders import Intent, Side, client_order_id

#: From the function's first line; the gateway gives up at 29 s.
BUDGET_SECONDS = 20.0
#: Longer than the function can live, so that only a dead holder's lease runs out.
LEASE_SECONDS = 60.0
LEASE_PATIENCE_SECONDS = 3.0
LEASE_POLL_SECONDS = 0.2


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The edges of one request. `wall` is for the lease only; `started` and `monotonic` are one clock, for the budget."""

    ledger: Ledger
    broker: Broker
    settings: Settings
    owner: str
    code_version: str
    started: float
    monotonic: Callable[[], float]
    wall: Callable[[], float]
    sleep: Callable[[float], None]

    @property
    def deadline(self) -> float:
        return self.started + BUDGET_SECONDS


def accept_decision(request: DecisionRequest, desk: Desk) -> Answer:
    clock = desk.broker.clock()
    body = request.model_dump(mode="json")
    decision = Decision(**body, body_sha256=request.sha256(), received_at=iso(clock.now), code_version=desk.code_version)
    return _accept(decision, clock, desk)


def accept_order(request: OrderRequest, desk: Desk) -> Answer:
    """A manual order is a decision with a plan of one leg, under the caller's key."""
    clock = desk.broker.clock()
    decision_id = f"{MANUAL}:{request.key}"
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
            legs = (_leg(decision, request.symbol, request.side, request.quantity, view.mid(request.symbol)),)
        except PlanRefused as reason:
            return Answer(422, {"errors": [{"field": "symbol", "value": request.symbol, "allowed": str(reason)}]})
        decision = decision.model_copy(
            update={"plan": legs, "buys_final": True, "verdict": "accepted", "window_ends": iso(view.window.ends)}
        )
    return _accept(decision.model_copy(update={"body_sha256": request.sha256()}), clock, desk)


def flatten(request: FlattenRequest, desk: Desk) -> Answer:
    """Let nothing buy any more (`reduce_only`, until a person sets it otherwise) and sell every exact holding.

    Idempotent: a flatten that works is continued, and with nothing held there is nothing to do. Open orders are cancelled first.
    """
    clock = desk.broker.clock()
    desk.ledger.set_trading_state("reduce_only", reason=f"flatten: {request.reason}", time=iso(clock.now), by="flatten")
    decision, number = _last_flatten(clock, desk)
    if decision is None or decision.state == "done":
        for order in desk.broker.open_orders():
            _cancel(order.id, desk)
        try:
            decision = _new_flatten(clock, desk, number=number)
        except PlanRefused as reason:
            return Answer(200, {"state": "done", "verdict": "refused", "reason": str(reason), "orders": []})
    return _accept(decision, clock, desk)


def cancel_order(order_id: str, desk: Desk) -> Answer:
    """Ask the broker to cancel the order with client order id `order_id`, and answer what it says of it then. Passes when halted."""
    order = desk.ledger.order(order_id)
    if order is None:
        return Answer(404, {"message": f"no order {order_id}"})
    if not order.terminal and order.broker_id is not None:
        clock = desk.broker.clock()
        _cancel(order.broker_id, desk)
        seen = desk.broker.order_by_client_id(order_id)
        if seen is not None:
            order = record(desk.ledger, order, seen, now=clock.now)
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
    fence = _lease(desk)
    if fence is None:
        logger.warning("another executor holds the lease", extra={"decision_id": decision.decision_id})
        return _answer(decision, desk)
    try:
        state = desk.ledger.trading_state()
        if state.state == "halted" and fresh:
            decision = decision.model_copy(update={"state": "done", "verdict": "halted", "reason": state.reason})
            desk.ledger.save_decision(decision, fence=fence)
        else:
            decision = _executor(desk, fence).run(decision, clock=clock)
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


def _lease(desk: Desk) -> int | None:
    """Take the lease, waiting a few seconds for a reconcile that started at the same minute."""
    until = min(desk.monotonic() + LEASE_PATIENCE_SECONDS, desk.deadline)
    while (fence := desk.ledger.acquire_lease(desk.owner, now=desk.wall(), seconds=LEASE_SECONDS)) is None:
        if desk.monotonic() + LEASE_POLL_SECONDS >= until:
            return None
        desk.sleep(LEASE_POLL_SECONDS)
    return fence


def _executor(desk: Desk, fence: int) -> Executor:
    return Executor(
        ledger=desk.ledger,
        broker=desk.broker,
        settings=desk.settings,
        fence=fence,
        monotonic=desk.monotonic,
        deadline=desk.deadline,
        sleep=desk.sleep,
    )


def _view(decision: Decision, clock: Clock, desk: Desk, *, symbols: list[str]) -> View:
    window = planning.window_of(decision, broker=desk.broker, clock=clock, settings=desk.settings)
    if (problem := window.problem(clock)) is not None:
        raise PlanRefused(problem)
    return planning.look(desk.broker, clock=clock, window=window, symbols=symbols)


def _leg(decision: Decision, symbol: str, side: Side, quantity: Decimal, price: float) -> Leg:
    intent = Intent(strategy=decision.strategy, slot=decision.slot, symbol=symbol)
    return Leg(symbol=symbol, side=side, quantity=quantity, price=price, client_order_id=client_order_id(intent))


def _last_flatten(clock: Clock, desk: Desk) -> tuple[Decision | None, int]:
    """Return today's newest flatten and its number; (None, 0) if there is none."""
    last, number = None, 0
    while (found := desk.ledger.decision(f"{FLATTEN}:{clock.session_date}#{number + 1}")) is not None:
        last, number = found, number + 1
    return last, number


def _new_flatten(clock: Clock, desk: Desk, *, number: int) -> Decision:
    slot = f"{clock.session_date}#{number + 1}"
    decision = Decision(
        decision_id=f"{FLATTEN}:{slot}",
        strategy=FLATTEN,
        slot=slot,
        body_sha256=slot,
        received_at=iso(clock.now),
        code_version=desk.code_version,
    )
    view = _view(decision, clock, desk, symbols=[])
    if not view.positions:
        raise PlanRefused("nothing is held")
    legs, refused = [], {}
    for symbol, held in sorted(view.positions.items()):
        trade = view.trades.get(symbol)  # of a name to be left whatever its quote
        if trade is None:
            refused[symbol] = f"{symbol} has no last trade"  # and keeps no other name from being sold
        else:
            legs.append(_leg(decision, symbol, "sell", held.quantity, trade.price))
    planned = {"plan": tuple(legs), "refused": refused, "buys_final": True, "verdict": "accepted", "window_ends": iso(view.window.ends)}
    return decision.model_copy(update=planned)


def _cancel(broker_id: str, desk: Desk) -> None:
    try:
        desk.broker.cancel(broker_id)
    except (Rejected, Unresolved) as outcome:
        logger.warning("cancel was not confirmed", extra={"broker_id": broker_id, "reason": str(outcome)})
