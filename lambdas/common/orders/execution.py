"""The order protocol: brings a decision's batch as far as it can go now, in execute_orders and in reconcile by the same code.

Promises: an intent reaches the broker at most once under its client order id; an order is PENDING in the ledger before it is POSTed, and
trading state, breakers and risk are read after that and before the POST; whatever is not a definite answer leaves the order UNKNOWN until
the broker has been asked, twice and past a grace period, before the same id is sent again; buys go only when every sell has ended and are
sized to the cash that is then there; after the window's end, on the broker's clock, nothing is sent. Starting and resuming are one path:
`run` looks at what is stored and goes on.
Failure: no doubt sends an order. A ledger that cannot be read or written raises botocore's `ClientError`; a lost lease raises `Fenced`; a
broker that cannot be read, or has had enough questions, ends the run early, with the decision still working.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import ROUND_FLOOR, Decimal

from lambdas.common.broker.port import (
    AlreadyAccepted,
    Broker,
    BrokerUnavailable,
    Clock,
    MarketData,
    Order,
    RateLimited,
    Rejected,
    Unresolved,
)
from lambdas.common.environment import Patience
from lambdas.common.ledger.alerts import raise_alert
from lambdas.common.ledger.ledger import AlreadyThere, Ledger
from lambdas.common.ledger.records import FLATTEN, Breakers, Decision, Leg, OrderRecord, Side
from lambdas.common.orders import planning, resubmission
from lambdas.common.orders.broker_updates import note
from lambdas.common.orders.cancelling import cancel_and_wait
from lambdas.common.orders.order_sync import Settler
from lambdas.common.orders.planning import PlanRefused, View, Window
from lambdas.common.telemetry import logger
from schema.exchange_time import iso, parse_utc
from schema.settings import Settings
from schema.trading_rules import limits_of
from trading_env.errors import PapertapeError
from trading_env.orders import risk
from trading_env.orders.order_state import Event, Status

#: How long an order that the broker does not know may still turn up there, on the broker's clock, counted from when it was last sent.
GRACE = timedelta(seconds=30)
#: After so long a run asks the broker for the time again, so that no order of a slow batch goes out after its window.
CLOCK_SECONDS = 5.0

Orders = dict[str, OrderRecord]


class OutOfTime(PapertapeError):  # noqa: N818 -- an outcome, not an error
    """The run's budget is used up; what is left stays as it is stored."""


class WindowClosed(PapertapeError):  # noqa: N818 -- an outcome, not an error
    """Nothing more of this decision may be sent; the message says why."""


@dataclass
class Executor:
    """One run's hands: the edges, the fencing number of the lease it holds, and its time budget.

    `monotonic`, `started` and `deadline` are seconds of one monotonic clock; `sleep` waits between questions to the broker, never for the
    market. The clock that `run` is given was read after `started`.
    """

    ledger: Ledger
    broker: Broker
    market_data: MarketData
    settings: Settings
    fence: int
    monotonic: Callable[[], float]
    started: float
    deadline: float
    sleep: Callable[[float], None]
    patience: Patience = field(default_factory=Patience)
    _settler: Settler = field(init=False, repr=False)
    _situation: risk.Situation = field(init=False, repr=False)
    _filled_in_view: dict[str, Decimal] = field(init=False, repr=False, default_factory=dict)
    _arrivals: dict[str, float | None] = field(init=False, repr=False, default_factory=dict)
    _clock: Clock = field(init=False, repr=False)
    _clock_read: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._settler = Settler(ledger=self.ledger, broker=self.broker)

    def run(self, decision: Decision, *, clock: Clock) -> Decision:
        """Advance `decision` and return it as stored; its state is `done` once every order of it has ended."""
        self._clock, self._clock_read = clock, self.started
        try:
            try:
                window = planning.window_of(decision, broker=self.broker, clock=clock, settings=self.settings)
                if planning.waits(decision, window, clock):
                    return decision
                self._require_window(window)
                return self._advance(decision, window)
            except (PlanRefused, WindowClosed) as reason:
                return self._close_unsent(self.ledger.decision(decision.decision_id) or decision, str(reason))
        except (OutOfTime, BrokerUnavailable, RateLimited) as pause:
            logger.warning("batch paused", extra={"decision_id": decision.decision_id, "reason": str(pause)})
            return self.ledger.decision(decision.decision_id) or decision

    def settle(self, order: OrderRecord, *, now: datetime) -> OrderRecord:
        """Ask the broker about an order that can still change, and record the answer; never sends."""
        return self._settler.settle(order, now=now)

    def settle_all(self, orders: Iterable[OrderRecord], *, now: datetime) -> Orders:
        """Ask about several orders with as few questions as there can be; return them by client order id."""
        return self._settler.settle_all(orders, now=now)

    # --- a batch

    def _advance(self, decision: Decision, window: Window) -> Decision:
        if decision.plan is None and decision.strategy == FLATTEN:
            self._prepare_to_leave()
        orders, missed_before = self._resumed(decision)
        today = self.ledger.orders_of_day(iso(self._clock.now)[:10])
        doubtful = [order.symbol for order in today if order.in_doubt]
        symbols = [*decision.weights, *(leg.symbol for leg in decision.plan or ()), *doubtful]
        view = planning.look(self.broker, self.market_data, clock=self._clock, window=window, symbols=symbols, settings=self.settings)
        self._filled_in_view = {order_id: order.filled_quantity for order_id, order in orders.items()}
        self._arrivals = {symbol: view.middle(symbol) for symbol in view.quotes}
        if decision.plan is None:
            plan = planning.plan(decision, view, self.settings)
            planned = {"plan": plan.legs, "refused": plan.refused, "sizing_equity": plan.equity, "window_ends": iso(window.ends)}
            decision = self._store(decision, **planned, verdict="accepted", reason=None)
        self._situation = self._observe(decision, view, today)
        batch = _Batch(window, orders, missed_before)
        decision, ended = self._trade("sell", decision, batch)
        if not ended:
            return decision
        decision = self._with_final_buys(decision)
        decision, ended = self._trade("buy", decision, batch)
        return self._finish(decision, orders) if ended else decision

    def _prepare_to_leave(self) -> None:
        """Cancel what is open, because it holds the shares that are to be sold."""
        if self.ledger.trading_state().state == "active":
            raise PlanRefused("trading was resumed before it could sell")
        self._cancel(self.broker.open_orders())

    def _resumed(self, decision: Decision) -> tuple[Orders, set[str]]:
        """What an earlier run has sent, as the broker tells it now, and which of it the broker did not have when it was asked before."""
        stored = self.ledger.orders_by_id([leg.client_order_id for leg in decision.plan or ()])
        missed_before = {order_id for order_id, order in stored.items() if order.missing_since is not None}
        return self._settler.settle_all(stored.values(), now=self._clock.now), missed_before

    def _observe(self, decision: Decision, view: View, today: Sequence[OrderRecord]) -> risk.Situation:
        """Gather what risk judges by; breakers that trip now are latched in the ledger before anything is sent."""
        state, breakers = self.ledger.switches()
        limits = limits_of(self.settings)
        situation = planning.situation(
            view,
            decision=decision,
            state=state.state,
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

    def _with_final_buys(self, decision: Decision) -> Decision:
        """Size the buys to the cash that the ended sells have left, once."""
        planned = [leg for leg in decision.plan or () if leg.side == "buy"]
        if not planned or decision.buys_final:
            return decision
        buys = planning.scaled(planned, cash=float(self.broker.account().cash), settings=self.settings)
        kept = {leg.symbol for leg in buys}
        without = {leg.symbol: f"{leg.symbol}: no cash is left for it" for leg in planned if leg.symbol not in kept}
        sold = [leg for leg in decision.plan or () if leg.side == "sell"]
        return self._store(decision, plan=(*sold, *buys), refused={**decision.refused, **without}, buys_final=True)

    def _trade(self, side: Side, decision: Decision, batch: _Batch) -> tuple[Decision, bool]:
        """Bring one side of the plan to its end, second attempts included; return whether it got there."""
        while True:
            legs = [leg for leg in decision.plan or () if leg.side == side]
            self._work(legs, decision, batch)
            if not self._wait(legs, batch.orders):
                return decision, False
            for leg in legs:
                self._absorb(batch.orders[leg.client_order_id])
            following = self._after_refusals(decision, batch, side)
            if following == decision:
                return decision, True
            decision = following

    def _work(self, legs: Sequence[Leg], decision: Decision, batch: _Batch) -> None:
        """Send each leg that was not sent, and again what was lost on its way."""
        for leg in legs:
            self._require_time(batch.window)
            order = batch.orders.get(leg.client_order_id)
            if order is None:
                batch.orders[leg.client_order_id] = self._send(leg, decision, batch.window)
            elif self._lost(order, batch.missed_before):
                batch.orders[leg.client_order_id] = self._send_again(order, leg, batch.window)

    def _require_time(self, window: Window) -> None:
        if self.monotonic() >= self.deadline:
            raise OutOfTime("the time budget has ended")
        if self.monotonic() - self._clock_read > CLOCK_SECONDS:
            self._clock, self._clock_read = self.broker.clock(), self.monotonic()
        self._require_window(window)

    def _require_window(self, window: Window) -> None:
        if (problem := window.problem(self._clock)) is not None:
            raise WindowClosed(problem)

    def _lost(self, order: OrderRecord, missed_before: set[str]) -> bool:
        """Whether the broker did not have it before, does not have it now, and has had the time to show it."""
        waited = self._clock.now - parse_utc(order.sent_at or order.created_at)
        return order.in_doubt and order.client_order_id in missed_before and waited >= GRACE

    # --- one order

    def _send(self, leg: Leg, decision: Decision, window: Window) -> OrderRecord:
        order = OrderRecord(
            **leg.model_dump(include={"client_order_id", "symbol", "side", "quantity", "price", "attempt"}),
            decision_id=decision.decision_id,
            slot=decision.slot,
            created_at=iso(self._clock.now),
            arrival_price=self._arrivals.get(leg.symbol),
        )
        try:
            self.ledger.open_order(order, fence=self.fence)
        except AlreadyThere:
            return self.settle(self.ledger.order(order.client_order_id) or order, now=self._clock.now)
        return self._post(order, leg, window)

    def _send_again(self, order: OrderRecord, leg: Leg, window: Window) -> OrderRecord:
        """Send the same id once more; that it is sent is stored first, so that the grace counts from here."""
        self._situation = risk.without(planning.proposed(leg), self._situation)
        sent = {"sent_at": iso(self._clock.now), "missing_since": None}
        order = note(self.ledger, order, Event.SENT, now=self._clock.now, fence=self.fence, **sent)
        return self._post(order, leg, window) if order.in_doubt else order

    def _post(self, order: OrderRecord, leg: Leg, window: Window) -> OrderRecord:
        """Judge, POST once, record. State and breakers are read here, after PENDING and before the POST, for each order anew."""
        proposal, now = planning.proposed(leg), self._clock.now
        state, breakers = self.ledger.switches()
        self._situation = replace(self._situation, state=state.state, latched=self._situation.latched | breakers.tripped.keys())
        verdict = risk.check_order(proposal, self._situation, limits_of(self.settings))
        if not verdict.allowed:
            logger.warning(
                "order refused", extra={"client_order_id": order.client_order_id, "rule": verdict.rule, "detail": verdict.detail}
            )
            if order.unknown_since is not None:  # an earlier run may have sent it: only the broker, or the window's end, settles it
                self._situation = risk.working(proposal, self._situation)
                return order
            return note(self.ledger, order, Event.REFUSED, now=now, risk=verdict.rule, reason=verdict.detail)
        order = order.model_copy(update={"risk": "allowed"})
        doubt: Exception
        try:
            until = min(self.deadline - self.monotonic(), window.seconds_left(now) - CLOCK_SECONDS)
            seen = self.broker.submit(proposal, retry_timeout=until)
        except Rejected as no:
            if not isinstance(no, AlreadyAccepted) and order.unknown_since is None:
                return note(self.ledger, order, Event.TURNED_DOWN, now=now, risk="allowed", reason=str(no), refusal=no.refusal)
            doubt = no  # it was accepted before, or may have been: a refusal of the second POST says nothing about the first
        except Unresolved as lost:
            doubt = lost
        else:
            self._situation = risk.working(proposal, self._situation)
            return self._settler.take(order, seen, now=now)
        self._situation = risk.working(proposal, self._situation)
        return self._ask(order, str(doubt))

    def _ask(self, order: OrderRecord, doubt: str) -> OrderRecord:
        """Store UNKNOWN first, then ask: a crash in between must leave the doubt on record."""
        now = self._clock.now
        since = order.unknown_since or iso(now)
        order = note(self.ledger, order, Event.DOUBT, now=now, risk=order.risk, reason=doubt, unknown_since=since)
        try:
            return self.settle(order, now=now)
        except BrokerUnavailable as silence:
            logger.warning("unknown stays", extra={"client_order_id": order.client_order_id, "reason": str(silence)})
            return order

    def _wait(self, legs: Sequence[Leg], orders: Orders) -> bool:
        """Ask about the legs' orders until all have ended (True), or until patience or the budget ends (False)."""
        until = min(self.monotonic() + self.patience.order_patience_seconds, self.deadline)
        pause = self.patience.order_poll_seconds
        while waiting := [one for leg in legs if not self._at_rest(one := orders[leg.client_order_id])]:
            if self.monotonic() + pause >= until or any(order.in_doubt for order in waiting):
                return False
            self.sleep(pause)
            pause *= 2
            orders.update(self._settler.settle_all(waiting, now=self._clock.now))
        return True

    def _at_rest(self, order: OrderRecord) -> bool:
        """Whether a batch has nothing to wait for: what contradicts the ledger has halted trading, and is a person's to resolve."""
        return order.terminal or order.client_order_id in self._settler.contradicted

    def _absorb(self, order: OrderRecord) -> None:
        """Let an ended order make, or take, the room that its fills do."""
        moved = order.filled_quantity - self._filled_in_view.get(order.client_order_id, Decimal(0))
        self._filled_in_view[order.client_order_id] = order.filled_quantity
        self._situation = risk.ended(order.client_order_id, order.symbol, order.side, self._situation, filled=float(moved))

    # --- second attempts

    def _after_refusals(self, decision: Decision, batch: _Batch, side: Side) -> Decision:
        """Add a second attempt to the plan where one makes sense, and name the other names that the broker turned down."""
        turned_down = [(leg, order) for leg, order in resubmission.open_refusals(decision, batch.orders) if leg.side == side]
        if not turned_down:
            return decision
        legs: list[Leg] = []
        named: dict[str, str] = {}
        short = [leg for leg, order in turned_down if order.refusal == "buying_power" and resubmission.may_try_again(decision, order)]
        if short:
            account = self.broker.account()
            legs += planning.scaled(short, cash=float(min(account.cash, account.buying_power)), settings=self.settings)
        for leg, order in turned_down:
            if resubmission.may_try_again(decision, order):
                self._require_time(batch.window)
                if order.refusal == "not_fractionable":
                    whole = leg.quantity.to_integral_value(rounding=ROUND_FLOOR)
                    legs += [leg.model_copy(update={"quantity": whole})] if whole else []
                elif order.refusal == "wash_trade" and self._cleared(leg):
                    legs.append(leg)
            if leg.symbol not in {one.symbol for one in legs}:
                named[leg.symbol] = f"{leg.symbol}: {order.reason}"
        second = [resubmission.again(decision, leg) for leg in legs]
        return self._store(decision, plan=(*(decision.plan or ()), *second), refused={**decision.refused, **named})

    def _cleared(self, leg: Leg) -> bool:
        """Cancel the open orders of the other side, whose they may be, and say whether they are gone."""
        opposite = [order for order in self.broker.open_orders() if order.symbol == leg.symbol and order.side != leg.side]
        for order in opposite:
            if self.ledger.order(order.client_order_id) is None:
                rule, detail = f"cancelled:{order.id}", f"{order.side} {order.quantity} {order.symbol} stood against {leg.client_order_id}"
                now = self._clock.now
                raise_alert(ledger=self.ledger, rule=rule, session=self._clock.session_date.isoformat(), detail=detail, time=iso(now))
        return not self._cancel(opposite)

    def _cancel(self, orders: Sequence[Order]) -> list[Order]:
        """Return those that are still open when patience ends."""
        return cancel_and_wait(
            self.broker,
            orders,
            until=min(self.monotonic() + self.patience.order_patience_seconds, self.deadline),
            poll=self.patience.order_poll_seconds,
            monotonic=self.monotonic,
            sleep=self.sleep,
        )

    # --- ends of a batch

    def _close_unsent(self, decision: Decision, reason: str) -> Decision:
        """Nothing more may be sent: settle what was sent, expire what the broker never had, and name what was not."""
        orders, missed_before = self._resumed(decision)
        now = self._clock.now
        for order_id, order in orders.items():
            if self._lost(order, missed_before):
                told = "the broker never had it, and its window has ended"
                orders[order_id] = note(self.ledger, order, Event.WINDOW_ENDED, now=now, fence=self.fence, reason=told)
        unsent = {leg.symbol: reason for leg in decision.plan or () if leg.client_order_id not in orders}
        if not all(self._at_rest(order) for order in orders.values()):
            return decision
        verdict = decision.verdict if decision.plan is not None else "refused"
        return self._finish(decision.model_copy(update={"reason": reason, "verdict": verdict}), orders, unsent)

    def _finish(self, decision: Decision, orders: Orders, unsent: dict[str, str] | None = None) -> Decision:
        past = resubmission.superseded(decision.plan or ())
        outcomes = [order for order_id, order in orders.items() if order_id not in past]
        stopped = [order for order in outcomes if order.status in {Status.REFUSED, Status.REJECTED}]
        verdict = decision.verdict
        if any(order.risk == "trading_state" for order in stopped):
            verdict = "halted"
        elif stopped or unsent:
            verdict = "partial" if len(stopped) < len(outcomes) else "refused"
        refused = {**decision.refused, **(unsent or {})}
        if decision.strategy == FLATTEN:
            self._tell_what_is_left([decision.reason or "", *refused.values(), *planning.unsold(outcomes)])
        return self._store(decision, state="done", verdict=verdict, refused=refused)

    def _tell_what_is_left(self, reasons: Sequence[str]) -> None:
        """Who asked for a flatten may have gone away long ago."""
        if detail := "; ".join(filter(None, reasons)):
            session = self._clock.session_date.isoformat()
            raise_alert(ledger=self.ledger, rule="not-flattened", session=session, detail=detail, time=iso(self._clock.now))

    def _store(self, decision: Decision, **changes: object) -> Decision:
        changed = decision.model_copy(update=changes)
        self.ledger.save_decision(changed, fence=self.fence)
        return changed


@dataclass(frozen=True)
class _Batch:
    """The orders of the plan so far, by client order id, and those that the broker did not have when it was asked in an earlier run."""

    window: Window
    orders: Orders
    missed_before: set[str]
