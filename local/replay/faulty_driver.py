"""Recorded sessions through the deployed schedules while the exchange misbehaves, with the books judged after each session.

A firing that fails is repeated as its schedule on AWS would: twice, one minute and then two minutes later on the exchange's clock. What
still fails is left to the next firing, and counted. Reconcile is fired only as long as it has something to do; nothing else is left out
between the slot and the evening. Promise: each session is judged by the exchange's own books, never by what was shown to the functions
(`JudgedSession`). Failure: `FaultyReplayError` when a firing fails of anything but the broker, trading was halted, or a session has no
snapshot.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Decision, Fill, OrderRecord
from lambdas.common.orders.execution import GRACE
from local.replay import schedule as replay_schedule
from local.replay.driver import Day, compare, duplicates
from local.replay.local_deployment import LocalDeployment
from local.replay.schedule import ScheduleEntry
from papertape.market_data.sessions import TradingSession
from schema.exchange_time import iso, parse_utc
from schema.settings import Settings
from schema.slot import AGENT, decision_id_of, minutes_of
from trading_env.errors import PapertapeError

#: Minutes after the slot, and after the close, at which reconcile is fired if it has something to do.
AFTER_SLOT = (1, 3, 5, 10, 15, 20, 25, 35)
AFTER_CLOSE = (2, 5, 10, 15, 20)
#: A failed firing is repeated after so long, as Lambda repeats an asynchronous invocation.
REPEATS = (timedelta(minutes=1), timedelta(minutes=2))
#: What a function says of a broker that did not answer its question, or not now, and what `decide` says when the execution API could not
#: be told. An order that got no answer is not among them: whoever sent it has to ask, so that must not leave a function.
UNREACHED = re.compile(
    r"""(POST[ ]/decisions:[ ]no[ ]answer[ ]\(503:[ ]{'message':[ ]['"]BrokerUnavailable:[ ])?
        GET[ ]http\S+[ ]failed[ ]\(((429|5\d\d):[ ]|(ConnectionError|ConnectTimeout|ReadTimeout)\))""",
    re.VERBOSE,
)
AT_NO_TIME = "9999-12-31T00:00:00Z"
#: Weights are ratios of sums in binary, and a bought share is worth what it cost before slippage.
ROUNDING = 1e-9


class FaultyReplayError(PapertapeError, RuntimeError):
    """The run cannot go on or proves nothing; the message says since when and why."""


@dataclass(frozen=True, kw_only=True)
class JudgedSession:
    """One session's end: the ledger beside the books, and what is wrong by the books alone."""

    day: Day
    decision: Decision | None
    orders: tuple[OrderRecord, ...]
    fills: tuple[Fill, ...]
    fees: Decimal
    accepted: int
    duplicates: int
    breaches: tuple[str, ...]


@dataclass(kw_only=True)
class FaultyReplay:
    """One run: `sessions` as they end, and over all of them what was fired, repeated, given up, and in doubt for too long."""

    deployment: LocalDeployment
    settings: Settings
    sessions: list[JudgedSession] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    given_up: int = 0
    overdue: set[tuple[str, str]] = field(default_factory=set)
    longest_doubt: timedelta = timedelta(0)
    faults: Mapping[str, int] = field(default_factory=dict)
    accepted_again: int = 0
    _ledger: Ledger = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._ledger = self.deployment.ledger

    def run(self, sessions: Iterable[TradingSession]) -> Iterator[JudgedSession]:
        """Trade `sessions` from where the exchange's clock stands, none that is over; each is yielded when it has been judged."""
        entries = planned(self.settings)
        prefix = f"{self.settings.name}-"
        replay_schedule.check(entries, [name.removeprefix(prefix) for name in self.deployment.schedules()])
        begun = parse_utc(self.deployment.exchange.books(since=AT_NO_TIME)["now"])
        for session in sessions:
            clocks = ((time + entry.later, entry.schedule) for entry in entries for time in entry.times(session))
            moments = [(clock, schedule, 0) for clock, schedule in clocks if clock >= begun]
            if not moments:
                continue
            self._trade(session, moments)
            ended = self._judge(session)
            self.sessions.append(ended)
            yield ended

    # --- firing

    def _trade(self, session: TradingSession, moments: list[tuple[datetime, str, int]]) -> None:
        heapq.heapify(moments)
        while moments:
            time, schedule, attempt = heapq.heappop(moments)
            if schedule == "reconcile" and not attempt and not self._anything_to_reconcile(session, time):
                continue
            if self._fire(schedule, time):
                if schedule == "reconcile":
                    self._time_doubts(time)
            elif attempt < len(REPEATS):
                self.repeated += 1
                heapq.heappush(moments, (time + REPEATS[attempt], schedule, attempt + 1))
            else:
                self.given_up += 1

    def _fire(self, schedule: str, time: datetime) -> bool:
        """Whether it succeeded; False if the broker did not answer a question (`UNREACHED`). Any other failure is ours."""
        self.deployment.exchange.advance(time)
        self.fired[schedule] += 1
        outcome = self.deployment.fire(f"{self.settings.name}-{schedule}", iso(time))
        if outcome["status"] == "succeeded":
            return True
        if UNREACHED.match(outcome["error"]):
            return False
        raise FaultyReplayError(f"{schedule} at {iso(time)} failed: {outcome['error']}")

    def _anything_to_reconcile(self, session: TradingSession, now: datetime) -> bool:
        if now > session.closes and self._ledger.snapshot(session.date) is None:
            return True
        return bool(self._ledger.working_ids() or self._ledger.unsettled_ids())

    def _time_doubts(self, now: datetime) -> None:
        """After a pass that succeeded: who is still in doubt, and for longer than the grace and the passes that it may take?"""
        allowed = GRACE + 2 * timedelta(minutes=self.settings.schedule.reconcile_every_minutes)
        for order in self._ledger.unsettled_orders():
            if order.in_doubt:
                sent = order.sent_at or order.created_at
                self.longest_doubt = max(self.longest_doubt, now - parse_utc(sent))
                if now - parse_utc(sent) > allowed:
                    self.overdue.add((order.client_order_id, sent))

    # --- judging

    def _judge(self, session: TradingSession) -> JudgedSession:
        ledger, books = self._ledger, self.deployment.exchange.books(since=session.opens)
        if (state := ledger.trading_state()).state != "active":
            raise FaultyReplayError(f"{session.date}: trading is {state.state} ({state.reason})")
        if ledger.snapshot(session.date) is None:
            raise FaultyReplayError(f"{session.date}: the ledger has no closing snapshot; see the log of reconcile")
        self.faults = books.get("faults", {})
        self.accepted_again = sum(count - 1 for count in books.get("accepted", {}).values())
        self.overdue |= {(order.client_order_id, order.created_at) for order in ledger.unsettled_orders()}
        day = compare(ledger, books, session.date, rounded="vendor_rounding" in self.faults)
        orders = tuple(ledger.orders_of_day(session.date))
        decision = ledger.decision(decision_id_of(AGENT, f"{session.date}/{self.settings.schedule.slots[-1]}"))
        sizing = decision.sizing_equity if decision is not None else None
        fills = [fill for fill in ledger.fills(session.date[:7]) if fill.time.startswith(session.date)]
        return JudgedSession(
            day=day,
            decision=decision,
            orders=orders,
            fills=tuple(fills),
            fees=sum((Decimal(fill["fee"]) for fill in books["fills"]), Decimal(0)),
            accepted=len(_placed(books, session.date)),
            duplicates=duplicates(books, decisions=len(self.settings.schedule.slots)),
            breaches=tuple(breaches(books, day=day, orders=orders, sizing_equity=sizing, settings=self.settings)),
        )


def planned(settings: Settings) -> tuple[ScheduleEntry, ...]:
    """When the schedules fire: those that decide, reconcile and backfill; none that only watches or refits."""
    schedule, idle = settings.schedule, "only watches, or refits"
    after = [f"open+{minutes_of(slot) + minutes}" for slot in schedule.slots for minutes in AFTER_SLOT]
    after += [f"close+{minutes}" for minutes in AFTER_CLOSE]
    known = replay_schedule.year(settings)
    fired = {
        **{one.schedule: one for one in known if one.schedule in schedule.deciding},
        "reconcile": ScheduleEntry(
            schedule="reconcile", moments=tuple(after), reason="as long as an order or a snapshot is open, of 96 a session"
        ),
        "backfill_bars": ScheduleEntry(schedule="backfill_bars", moments=("18:00",)),
    }
    return tuple(fired.get(one.schedule, ScheduleEntry(schedule=one.schedule, moments=(), reason=idle)) for one in known)


def breaches(
    books: Mapping[str, Any], *, day: Day, orders: Iterable[OrderRecord], sizing_equity: float | None, settings: Settings
) -> Iterator[str]:
    """Each limit of the settings that the session's books break, in words.

    What was ordered and filled is the exchange's; it is judged at the price that it was sized at, as the limit is, and the book at the
    close's.
    """
    limits, where = settings.risk, day.session
    cash, equity = Decimal(books["cash"]), float(day.snapshot.equity)
    sizing_equity = sizing_equity or equity
    positions = {symbol: float(quantity) for symbol, quantity in books["positions"].items()}
    if cash < 0:
        yield f"{where}: cash is {cash}, at least 0"
    if negative := [symbol for symbol, quantity in positions.items() if quantity < 0]:
        yield f"{where}: {', '.join(negative)} is held short"
    gross = sum(positions[symbol] * float(held.close) for symbol, held in day.snapshot.positions.items() if symbol in positions) / equity
    if gross > limits.max_gross + ROUNDING:
        yield f"{where}: gross is {gross:.6f} of equity, at most {limits.max_gross}"
    if (placed := len(_placed(books, where))) > limits.max_orders_per_day:
        yield f"{where}: {placed} orders, at most {limits.max_orders_per_day}"
    sized = {order.client_order_id: order for order in orders}
    for order in sized.values():
        if float(order.quantity) * order.price > limits.max_order_notional and order.broker_id is not None:
            yield f"{where}: {order.symbol} was ordered for {float(order.quantity) * order.price:.2f}, at most {limits.max_order_notional}"
    turnover = 0.0
    for fill in books["fills"]:
        filled = sized.get(fill["client_order_id"])
        if filled is None:
            yield f"{where}: {fill['client_order_id']} was filled and is not in the ledger"
            continue
        turnover += float(fill["quantity"]) * filled.price / sizing_equity
        weight = positions.get(filled.symbol, 0.0) * filled.price / sizing_equity
        if filled.side == "buy" and weight > limits.max_weight + ROUNDING:
            yield f"{where}: {filled.symbol} was bought to {weight:.6f} of equity, at most {limits.max_weight}"
    if turnover > limits.max_turnover_per_day:
        yield f"{where}: turnover is {turnover:.4f}, at most {limits.max_turnover_per_day}"


def _placed(books: Mapping[str, Any], session: str) -> list[Mapping[str, Any]]:
    return [order for order in books["orders"] if order["submitted_at"].startswith(session)]
