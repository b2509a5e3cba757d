"""The order protocol: brings a decision's batch as far as it can go now, in execute_orders and in reconcile by the same code.

Promises: an intent reaches the broker at most once under its client order id; an order is PENDING in the ledger before it is POSTed, and
trading state and risk are read after that and before the POST; whatever is not a definite answer leaves the order UNKNOWN until the
broker has been asked, twice and past a grace period, before the same id is sent again; buys go only when every sell is terminal and are
sized to the cash that is then there. Starting and resuming are one path: `run` looks at what is stored and goes on.
Failure: no doubt sends an order. A ledger that cannot be read or written raises botocore's `ClientError`; a lost lease raises `Fenced`; a
broker that cannot be read ends the run early, with the decision still working.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from lambdas.common import planning
from lambdas.common.alerts import raise_alert
from lambdas.common.broker import AlreadyAccepted, Broker, BrokerUnavailable, Clock, RateLimited, Rejected, Unresolved
from lambdas.common.broker_time import iso, parse_utc
from lambdas.common.ledger import AlreadyThere, Ledger
from lambdas.common.planning import PlanRefused, View, Window
from lambdas.common.recording import record
from lambdas.common.records import Breakers, Decision, Leg, OrderRecord
from lambdas.common.telemetry import logger
from settings import Settings
from trading_env import risk

#: How long an order that the broker does not know may still turn up there, on the broker's clock.
GRACE = timedelta(seconds=30)
#: How long one run waits for its orders to become terminal, and the first pause between two questions; each is twice the one before,
#: because every order is asked for and the broker answers 200 questions a minute.
PATIENCE_SECONDS = 5.0
POLL_SECONDS = 0.25


class OutOfTime(Exception):  # noqa: N818 -- an outcome, not an error
    """The run's budget is used up; what is left stays as it is stored."""


@dataclass
class Executor:
    """One run's hands: the edges, the fencing number of the lease it holds, and its time budget.

    `monotonic` and `deadline` are seconds of one monotonic clock; `sleep` waits between questions to the broker, never for the market.
    """

    ledger: Ledger
    broker: Broker
    settings: Settings
    fence: int
    monotonic: Callable[[], float]
    deadline: float
    sleep: Callable[[float], None]
    _situation: risk.Situation = field(init=False, repr=False)

    def run(self, decision: Decision, *, clock: Clock) -> Decision:
        """Advance `decision` and return it as stored; its state is `done` once every order of it is terminal."""
        try:
            window = planning.window_of(decision, broker=self.broker, clock=clock, settings=self.settings)
        except PlanRefused as reason:
            return self._close_unsent(decision, clock.now, str(reason))
        try:
            problem = window.problem(clock)
            if problem is not None:
                return self._close_unsent(decision, clock.now, problem)
            return self._advance(decision, window=window, clock=clock)
        except (OutOfTime, BrokerUnavailable, RateLimited) as pause:
            logger.warning("batch paused", extra={"decision_id": decision.decision_id, "reason": str(pause)})
            return self.ledger.decision(decision.decision_id) or decision

    def settle(self, order: OrderRecord, *, now: datetime) -> OrderRecord:
        """Ask the broker about an order that can still change, and record the answer; never sends."""
        seen = self.broker.order_by_client_id(order.client_order_id)
        if seen is not None:
            return record(self.ledger, order, seen, now=now)
        if order.broker_id is not None:
            return order  # it was there before: the broker's views may disagree for seconds
        if order.missing_since is None or now - parse_utc(order.created_at) < GRACE:
            since = {name: getattr(order, name) or iso(now) for name in ("unknown_since", "missing_since")}
            return self._save(order, status="unknown", updated_at=iso(now), **since)
        return order

    # --- a batch

    def _advance(self, decision: Decision, *, window: Window, clock: Clock) -> Decision:
        symbols = [*decision.weights, *(leg.symbol for leg in decision.plan or ())]
        view = planning.look(self.broker, clock=clock, window=window, symbols=symbols)
        if decision.plan is None:
            try:
                plan = planning.plan(decision, view, self.settings)
            except PlanRefused as reason:
                return self._close_unsent(decision, clock.now, str(reason))
            decision = self._store(
                decision, plan=plan.legs, refused=plan.refused, sizing_equity=plan.equity, window_ends=iso(window.ends), verdict="accepted"
            )
        self._situation = self._observe(decision, view)
        orders = self.ledger.orders_by_id([leg.client_order_id for leg in decision.plan or ()])
        sells = self._work([leg for leg in decision.plan or () if leg.side == "sell"], orders, decision, clock.now)
        if not self._wait(sells, clock.now):
            return decision
        planned = [leg for leg in decision.plan or () if leg.side == "buy"]
        if planned and not decision.buys_final:
            cash = float(self.broker.account().cash)
            buys = planning.scaled(planned, cash=cash, settings=self.settings)
            kept = {leg.symbol for leg in buys}
            without = {leg.symbol: f"{leg.symbol}: no cash is left for it" for leg in planned if leg.symbol not in kept}
            sold = [leg for leg in decision.plan or () if leg.side == "sell"]
            decision = self._store(decision, plan=(*sold, *buys), refused={**decision.refused, **without}, buys_final=True)
        bought = self._work([leg for leg in decision.plan or () if leg.side == "buy"], orders, decision, clock.now)
        if not self._wait(bought, clock.now):
            return decision
        return self._finish(decision, [*sells.values(), *bought.values()])

    def _observe(self, decision: Decision, view: View) -> risk.Situation:
        """Gather what risk judges by; breakers that trip now are latched in the ledger before anything is sent."""
        breakers, limits = self.ledger.breakers(), planning.limits_of(self.settings)
        mine = {leg.client_order_id for leg in decision.plan or ()}
        today = [
            order
            for order in self.ledger.orders_of_day(iso(view.now)[:10])
            if not (order.client_order_id in mine and order.status in {"pending", "unknown"})
        ]
        situation = planning.situation(
            view,
            decision=decision,
            state=self.ledger.trading_state().state,
            breakers=breakers,
            today=today,
            model=self.ledger.incumbent(),
        )
        tripped = risk.breakers(situation, limits)
        if breakers.account_id is None or tripped.keys() - breakers.tripped.keys():
            self._latch(situation, tripped, view)
        return replace(situation, latched=risk.latch(situation, limits))

    def _latch(self, situation: risk.Situation, tripped: dict[str, str], view: View) -> None:
        def latched(now: Breakers) -> Breakers:
            first = {} if now.account_id else {"account_id": situation.account, "peak_equity": Decimal(repr(situation.peak_equity))}
            return now.model_copy(update={**first, "tripped": {**tripped, **now.tripped}})

        self.ledger.change_breakers(latched)
        for name, detail in tripped.items():
            raise_alert(ledger=self.ledger, rule=name, session=view.window.session.isoformat(), detail=detail, time=iso(view.now))

    def _work(self, legs: Sequence[Leg], known: dict[str, OrderRecord], decision: Decision, now: datetime) -> dict[str, OrderRecord]:
        """Send or settle each leg in turn; return the orders by client order id."""
        orders: dict[str, OrderRecord] = {}
        for leg in legs:
            if self.monotonic() >= self.deadline:
                raise OutOfTime(f"the time budget ended before {leg.side} {leg.symbol}")
            order = known.get(leg.client_order_id)
            if order is None:
                order = self._send(leg, decision, now)
            elif order.status in {"pending", "unknown"}:
                order = self._settle_or_resend(order, leg, now)
            orders[order.client_order_id] = order
        return orders

    def _send(self, leg: Leg, decision: Decision, now: datetime) -> OrderRecord:
        order = OrderRecord(
            **leg.model_dump(include={"client_order_id", "symbol", "side", "quantity", "price", "attempt"}),
            decision_id=decision.decision_id,
            slot=decision.slot,
            created_at=iso(now),
        )
        try:
            self.ledger.open_order(order, fence=self.fence)
        except AlreadyThere:
            return self.settle(self.ledger.order(order.client_order_id) or order, now=now)
        return self._post(order, leg, now)

    def _settle_or_resend(self, order: OrderRecord, leg: Leg, now: datetime) -> OrderRecord:
        """Adopt what the broker has; send the same id again only if it was missing before, is missing now, and the grace has passed."""
        missing_before = order.missing_since is not None
        settled = self.settle(order, now=now)
        overdue = now - parse_utc(order.created_at) >= GRACE
        if settled.status in {"pending", "unknown"} and missing_before and overdue:
            return self._post(settled, leg, now)
        return settled

    def _post(self, order: OrderRecord, leg: Leg, now: datetime) -> OrderRecord:
        """Judge, POST once, record. The state is read here, after PENDING and before the POST, for each order anew."""
        proposal = planning.proposed(leg)
        self._situation = replace(self._situation, state=self.ledger.trading_state().state)
        verdict = risk.check_order(proposal, self._situation, planning.limits_of(self.settings))
        if not verdict.allowed:
            logger.warning(
                "order refused", extra={"client_order_id": order.client_order_id, "rule": verdict.rule, "detail": verdict.detail}
            )
            if order.missing_since is not None:
                return order  # an earlier run may have sent it: only the broker or the end of its window settles it
            return self._save(order, status="refused", risk=verdict.rule, reason=verdict.detail, updated_at=iso(now))
        order = order.model_copy(update={"risk": "allowed"})
        try:
            seen = self.broker.submit(proposal)
        except (AlreadyAccepted, Unresolved) as doubt:
            return self._ask(order, now, str(doubt))
        except Rejected as no:
            return self._save(order, status="rejected", reason=str(no), updated_at=iso(now))
        self._situation = risk.after(proposal, self._situation)
        return record(self.ledger, order, seen, now=now)

    def _ask(self, order: OrderRecord, now: datetime, doubt: str) -> OrderRecord:
        """Store UNKNOWN first, then ask: a crash in between must leave the doubt on record."""
        order = self._save(order, status="unknown", reason=doubt, unknown_since=order.unknown_since or iso(now), updated_at=iso(now))
        try:
            return self.settle(order, now=now)
        except BrokerUnavailable as silence:
            logger.warning("unknown stays", extra={"client_order_id": order.client_order_id, "reason": str(silence)})
            return order

    def _wait(self, orders: dict[str, OrderRecord], now: datetime) -> bool:
        """Ask about unfinished orders until all are terminal (True), or until patience or the budget ends (False)."""
        until, pause = min(self.monotonic() + PATIENCE_SECONDS, self.deadline), POLL_SECONDS
        while waiting := [order for order in orders.values() if not order.terminal]:
            if self.monotonic() + pause >= until or any(order.status in {"pending", "unknown"} for order in waiting):
                return False
            self.sleep(pause)
            pause *= 2
            for order in waiting:
                orders[order.client_order_id] = self.settle(order, now=now)
        return True

    # --- ends of a batch

    def _close_unsent(self, decision: Decision, now: datetime, reason: str) -> Decision:
        """Nothing more may be sent: settle what was sent, expire what the broker never had, and name what was not."""
        legs = decision.plan or ()
        orders = self.ledger.orders_by_id([leg.client_order_id for leg in legs])
        for order in [order for order in orders.values() if not order.terminal]:
            orders[order.client_order_id] = self._settle_or_expire(order, now)
        unsent = {leg.symbol: reason for leg in legs if leg.client_order_id not in orders}
        if any(not order.terminal for order in orders.values()):
            return decision
        verdict = decision.verdict if decision.plan is not None else "refused"
        return self._finish(decision.model_copy(update={"reason": reason, "verdict": verdict}), orders.values(), unsent)

    def _settle_or_expire(self, order: OrderRecord, now: datetime) -> OrderRecord:
        missing_before = order.missing_since is not None
        settled = self.settle(order, now=now)
        overdue = now - parse_utc(order.created_at) >= GRACE
        if settled.status in {"pending", "unknown"} and missing_before and overdue:
            reason = "the broker never had it, and its window has ended"
            return self._save(settled, status="expired", reason=reason, updated_at=iso(now))
        return settled

    def _finish(self, decision: Decision, orders: Iterable[OrderRecord], unsent: dict[str, str] | None = None) -> Decision:
        held_back = {**decision.refused, **(unsent or {})}
        outcomes = list(orders)
        stopped = [order for order in outcomes if order.status in {"refused", "rejected"}]
        verdict = decision.verdict
        if any(order.risk == "trading_state" for order in stopped):
            verdict = "halted"
        elif stopped or unsent:
            verdict = "partial" if len(stopped) < len(outcomes) else "refused"
        return self._store(decision, state="done", verdict=verdict, refused=held_back)

    def _store(self, decision: Decision, **changes: object) -> Decision:
        changed = decision.model_copy(update=changes)
        self.ledger.save_decision(changed, fence=self.fence)
        return changed

    def _save(self, order: OrderRecord, **changes: object) -> OrderRecord:
        return self.ledger.save_order(order.model_copy(update=changes))
