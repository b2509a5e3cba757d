"""The order protocol: brings a decision's batch as far as it can go now, in execute_orders and in reconcile by the same code.

Promises: an intent reaches the broker at most once under its client order id; an order is PENDING in the ledger before it is POSTed, and
trading state, breakers and risk are read after that and before the POST; whatever is not a definite answer leaves the order UNKNOWN until
the broker has been asked, twice and past a grace period, before the same id is sent again; buys go only when every sell has ended and are
sized to the cash that is then there; after the window's end, on the broker's clock, nothing is sent. Starting and resuming are one path:
`run_batch` looks at what is stored and goes on.
Failure: no doubt sends an order. A ledger that cannot be read or written raises botocore's `ClientError`; a lost lease raises `Fenced`; a
broker that cannot be read, or has had enough questions, ends the run early, with the decision still working.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import ROUND_FLOOR, Decimal

from lambdas.common.broker.port import BrokerUnavailable, Clock, Order, RateLimited
from lambdas.common.ledger.alerts import raise_alert
from lambdas.common.ledger.records import Breakers, Decision, OrderRecord, PlannedOrder
from lambdas.common.ledger.roles import trader_now
from lambdas.common.orders import planning, resubmission
from lambdas.common.orders.batch import Batch, BatchRun, BrokerClock, Orders, OutOfTime, WindowClosed
from lambdas.common.orders.broker_updates import note
from lambdas.common.orders.cancelling import cancel_and_wait
from lambdas.common.orders.execution_context import ExecutionContext
from lambdas.common.orders.order_sync import OrderSync
from lambdas.common.orders.planning import PlanRefused, View
from lambdas.common.orders.submission import send, send_again
from lambdas.common.telemetry import logger
from schema.exchange_time import iso, parse_utc
from schema.slot import FLATTEN
from schema.trading_rules import limits_of
from trading_env.orders import risk
from trading_env.orders.order_state import Event, OrderStatus, Side

#: How long an order that the broker does not know may still turn up there, on the broker's clock, counted from when it was last sent.
GRACE = timedelta(seconds=30)


def run_batch(decision: Decision, *, clock: Clock, context: ExecutionContext, fence: int) -> Decision:
    """Advance `decision` and return it as stored; its state is `done` once every order of it has ended.

    `fence` is the fencing number of the lease that the caller holds; `clock` was read after `context.started`.
    """
    run = BatchRun(
        context=context,
        fence=fence,
        clock=BrokerClock(broker=context.broker, monotonic=context.monotonic, latest=clock, read_at=context.started),
        sync=OrderSync(ledger=context.ledger, broker=context.broker),
    )
    try:
        try:
            return _advance(decision, run)
        except (PlanRefused, WindowClosed) as reason:
            return _close_unsent(run.stored(decision), str(reason), run)
    except (OutOfTime, BrokerUnavailable, RateLimited) as pause:
        logger.warning("batch paused", extra={"decision_id": decision.decision_id, "reason": str(pause)})
        return run.stored(decision)


def _advance(decision: Decision, run: BatchRun) -> Decision:
    context = run.context
    window = planning.window_of(decision, broker=run.broker, clock=run.clock.latest, settings=context.settings)
    if planning.waits(decision, window, run.clock.latest):
        return decision
    run.require_window(window)
    if decision.plan is None and decision.strategy == FLATTEN:
        _prepare_to_leave(run)
    orders, missed_before = _resumed(decision, run)
    today = run.ledger.orders_of_day(iso(run.now)[:10])
    doubtful = [order.symbol for order in today if order.in_doubt]
    symbols = [*decision.weights, *(planned.symbol for planned in decision.plan or ()), *doubtful]
    view = planning.look(run.broker, context.market_data, clock=run.clock.latest, window=window, symbols=symbols, settings=context.settings)
    if decision.plan is None:
        plan = planning.plan(decision, view, context.settings)
        fields = {"plan": plan.orders, "refused": plan.refused, "sizing_equity": plan.equity, "window_ends": iso(window.ends)}
        decision = run.store(decision, **fields, verdict="accepted", reason=None)
    batch = Batch(
        run=run,
        window=window,
        decision=decision,
        orders=orders,
        missed_before=missed_before,
        situation=_situation(decision, view, today, run),
        counted={order_id: order.filled_quantity for order_id, order in orders.items()},
        arrivals={symbol: view.mid_or_none(symbol) for symbol in view.quotes},
    )
    if not _trade("sell", batch):
        return batch.decision
    _size_buys(batch)
    if not _trade("buy", batch):
        return batch.decision
    return _finish(batch.decision, batch.orders, run)


def _prepare_to_leave(run: BatchRun) -> None:
    """Cancel what is open, because it holds the shares that are to be sold."""
    if run.ledger.trading_state().state == "active":
        raise PlanRefused("trading was resumed before it could sell")
    _cancel(run.broker.open_orders(), run)


def _resumed(decision: Decision, run: BatchRun) -> tuple[Orders, frozenset[str]]:
    """What an earlier run has sent, as the broker shows it now, and which of it the broker did not have when it was asked before."""
    stored = run.ledger.orders_by_id([planned.client_order_id for planned in decision.plan or ()])
    missed_before = frozenset(order_id for order_id, order in stored.items() if order.missing_since is not None)
    return run.sync.ask_all(stored.values(), now=run.now), missed_before


def _situation(decision: Decision, view: View, today: Sequence[OrderRecord], run: BatchRun) -> risk.Situation:
    """Gather what risk judges by; breakers that trip now are latched in the ledger before anything is sent."""
    state, breakers = run.ledger.switches()
    limits = limits_of(run.context.settings)
    situation = planning.situation(
        view,
        decision=decision,
        state=state.state,
        breakers=breakers,
        today=today,
        model=trader_now(run.ledger, run.context.settings),
    )
    tripped = risk.breakers(situation, limits)
    if breakers.account_id is None or tripped.keys() - breakers.tripped.keys():
        _latch(situation, tripped, view, run)
    return replace(situation, latched=risk.latch(situation, limits))


def _latch(situation: risk.Situation, tripped: dict[str, str], view: View, run: BatchRun) -> None:
    def latched(now: Breakers) -> Breakers:
        first = {} if now.account_id else {"account_id": situation.account, "peak_equity": Decimal(repr(situation.peak_equity))}
        return now.model_copy(update={**first, "tripped": {**tripped, **now.tripped}})

    run.ledger.change_breakers(latched)
    for name, detail in tripped.items():
        raise_alert(ledger=run.ledger, rule=name, session=view.window.session.isoformat(), detail=detail, time=iso(view.now))


def _size_buys(batch: Batch) -> None:
    """Size the buys to the cash that the ended sells have left, once."""
    plan, run = batch.decision.plan or (), batch.run
    planned = [one for one in plan if one.side == "buy"]
    if not planned or batch.decision.buys_final:
        return
    buys = planning.scaled(planned, cash=float(run.broker.account().cash), settings=run.context.settings)
    kept = {one.symbol for one in buys}
    without = {one.symbol: f"{one.symbol}: no cash is left for it" for one in planned if one.symbol not in kept}
    sells = [one for one in plan if one.side == "sell"]
    batch.store(plan=(*sells, *buys), refused={**batch.decision.refused, **without}, buys_final=True)


# --- one side of the plan


def _trade(side: Side, batch: Batch) -> bool:
    """Bring one side of the plan to its end, second attempts included; return whether it got there."""
    while True:
        plan = [planned for planned in batch.decision.plan or () if planned.side == side]
        _send_all(plan, batch)
        if not _wait(plan, batch):
            return False
        for planned in plan:
            batch.count_ended(batch.orders[planned.client_order_id])
        if not _try_again(side, batch):
            return True


def _send_all(plan: Sequence[PlannedOrder], batch: Batch) -> None:
    """Send each order that was not sent, and again what was lost on its way."""
    for planned in plan:
        batch.require_time()
        order = batch.orders.get(planned.client_order_id)
        if order is None:
            batch.orders[planned.client_order_id] = send(planned, batch)
        elif _lost(order, batch.missed_before, batch.run):
            batch.orders[planned.client_order_id] = send_again(order, planned, batch)


def _lost(order: OrderRecord, missed_before: frozenset[str], run: BatchRun) -> bool:
    """Whether the broker did not have it before, does not have it now, and has had the time to show it."""
    waited = run.now - parse_utc(order.sent_at or order.created_at)
    return order.in_doubt and order.client_order_id in missed_before and waited >= GRACE


def _wait(plan: Sequence[PlannedOrder], batch: Batch) -> bool:
    """Ask about the orders until all have ended (True), or until the timeout or the budget (False)."""
    run, context = batch.run, batch.run.context
    until = context.until(context.budget.order_timeout_seconds)
    pause = context.budget.order_poll_seconds
    while waiting := [one for planned in plan if not run.at_rest(one := batch.orders[planned.client_order_id])]:
        if context.monotonic() + pause >= until or any(order.in_doubt for order in waiting):
            return False
        context.sleep(pause)
        pause *= 2
        batch.orders.update(run.sync.ask_all(waiting, now=run.now))
    return True


# --- second attempts


def _try_again(side: Side, batch: Batch) -> bool:
    """Add a second attempt to the plan where one makes sense, name the other names that the broker turned down; False if there are none."""
    decision, run = batch.decision, batch.run
    turned_down = [(planned, order) for planned, order in resubmission.open_refusals(decision, batch.orders) if planned.side == side]
    if not turned_down:
        return False
    again: list[PlannedOrder] = []
    named: dict[str, str] = {}
    short = [one for one, order in turned_down if order.refusal == "buying_power" and resubmission.may_try_again(decision, order)]
    if short:
        account = run.broker.account()
        again += planning.scaled(short, cash=float(min(account.cash, account.buying_power)), settings=run.context.settings)
    for planned, order in turned_down:
        if resubmission.may_try_again(decision, order):
            batch.require_time()
            if order.refusal == "not_fractionable":
                whole = planned.quantity.to_integral_value(rounding=ROUND_FLOOR)
                again += [planned.model_copy(update={"quantity": whole})] if whole else []
            elif order.refusal == "wash_trade" and _cleared(planned, run):
                again.append(planned)
        if planned.symbol not in {one.symbol for one in again}:
            named[planned.symbol] = f"{planned.symbol}: {order.reason}"
    second = [resubmission.again(decision, planned) for planned in again]
    batch.store(plan=(*(decision.plan or ()), *second), refused={**decision.refused, **named})
    return True


def _cleared(planned: PlannedOrder, run: BatchRun) -> bool:
    """Cancel the open orders of the other side, whose they may be, and say whether they are gone."""
    opposite = [order for order in run.broker.open_orders() if order.symbol == planned.symbol and order.side != planned.side]
    for order in opposite:
        if run.ledger.order(order.client_order_id) is None:
            rule, detail = f"cancelled:{order.id}", f"{order.side} {order.quantity} {order.symbol} stood against {planned.client_order_id}"
            session = run.clock.latest.session_date.isoformat()
            raise_alert(ledger=run.ledger, rule=rule, session=session, detail=detail, time=iso(run.now))
    return not _cancel(opposite, run)


def _cancel(orders: Sequence[Order], run: BatchRun) -> list[Order]:
    """Return those that are still open after the timeout."""
    context = run.context
    return cancel_and_wait(
        context.broker,
        orders,
        until=context.until(context.budget.order_timeout_seconds),
        poll=context.budget.order_poll_seconds,
        monotonic=context.monotonic,
        sleep=context.sleep,
    )


# --- ends of a batch


def _close_unsent(decision: Decision, reason: str, run: BatchRun) -> Decision:
    """Nothing more may be sent: ask about what was sent, expire what the broker never had, and name what was not sent."""
    orders, missed_before = _resumed(decision, run)
    for order_id, order in orders.items():
        if _lost(order, missed_before, run):
            detail = "the broker never had it, and its window has ended"
            orders[order_id] = note(run.ledger, order, Event.WINDOW_ENDED, now=run.now, fence=run.fence, reason=detail)
    unsent = {planned.symbol: reason for planned in decision.plan or () if planned.client_order_id not in orders}
    if not all(run.at_rest(order) for order in orders.values()):
        return decision
    verdict = decision.verdict if decision.plan is not None else "refused"
    return _finish(decision.model_copy(update={"reason": reason, "verdict": verdict}), orders, run, unsent)


def _finish(decision: Decision, orders: Orders, run: BatchRun, unsent: dict[str, str] | None = None) -> Decision:
    past = resubmission.superseded(decision.plan or ())
    outcomes = [order for order_id, order in orders.items() if order_id not in past]
    stopped = [order for order in outcomes if order.status in {OrderStatus.REFUSED, OrderStatus.REJECTED}]
    verdict = decision.verdict
    if any(order.risk == "trading_state" for order in stopped):
        verdict = "halted"
    elif stopped or unsent:
        verdict = "partial" if len(stopped) < len(outcomes) else "refused"
    refused = {**decision.refused, **(unsent or {})}
    if decision.strategy == FLATTEN:
        _report_unsold([decision.reason or "", *refused.values(), *planning.unsold(outcomes)], run)
    return run.store(decision, state="done", verdict=verdict, refused=refused)


def _report_unsold(reasons: Sequence[str], run: BatchRun) -> None:
    """Who asked for a flatten may have gone away long ago."""
    if detail := "; ".join(filter(None, reasons)):
        session = run.clock.latest.session_date.isoformat()
        raise_alert(ledger=run.ledger, rule="not-flattened", session=session, detail=detail, time=iso(run.now))
