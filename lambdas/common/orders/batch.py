"""A batch under way: the orders of one decision's plan, what risk judges them by, and the broker's time.

`BatchRun` is what a run has from its first line; `Batch` is made once the broker's truth has been read, and owns what changes from then on.
Failure: `OutOfTime` and `WindowClosed` where nothing more may be done or sent now; a lost lease raises `Fenced`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from lambdas.common.broker.port import Broker, Clock
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Decision, OrderRecord, PlannedOrder
from lambdas.common.orders.execution_context import ExecutionContext
from lambdas.common.orders.order_sync import OrderSync
from lambdas.common.orders.planning import SlotWindow, proposed
from trading_env.errors import PapertapeError
from trading_env.orders import risk

#: After so long a run asks the broker for the time again, so that no order of a slow batch goes out after its window.
CLOCK_SECONDS = 5.0

Orders = dict[str, OrderRecord]


class OutOfTime(PapertapeError):  # noqa: N818 -- an outcome, not an error
    """The run's budget is used up; what is left stays as it is stored."""


class WindowClosed(PapertapeError):  # noqa: N818 -- an outcome, not an error
    """Nothing more of this decision may be sent; the message says why."""


@dataclass(kw_only=True)
class BrokerClock:
    """The broker's time as it was read last, which was at `read_at` of the clock `monotonic`."""

    broker: Broker
    monotonic: Callable[[], float]
    latest: Clock
    read_at: float

    @property
    def now(self) -> datetime:
        return self.latest.now

    def refresh(self) -> None:
        """Read it again if that was long ago."""
        if self.monotonic() - self.read_at > CLOCK_SECONDS:
            self.latest, self.read_at = self.broker.clock(), self.monotonic()


@dataclass(frozen=True, kw_only=True)
class BatchRun:
    """The edges of one decision's run, the fencing number of the lease that it holds, and its clock."""

    context: ExecutionContext
    fence: int
    clock: BrokerClock
    sync: OrderSync

    @property
    def ledger(self) -> Ledger:
        return self.context.ledger

    @property
    def broker(self) -> Broker:
        return self.context.broker

    @property
    def now(self) -> datetime:
        return self.clock.now

    def require_window(self, window: SlotWindow) -> None:
        if (problem := window.problem(self.clock.latest)) is not None:
            raise WindowClosed(problem)

    def stored(self, decision: Decision) -> Decision:
        return self.ledger.decision(decision.decision_id) or decision

    def store(self, decision: Decision, **changes: object) -> Decision:
        changed = decision.model_copy(update=changes)
        self.ledger.save_decision(changed, fence=self.fence)
        return changed

    def at_rest(self, order: OrderRecord) -> bool:
        """Whether a batch has nothing to wait for: what contradicts the ledger has halted trading, and is a person's to resolve."""
        return order.terminal or order.client_order_id in self.sync.contradicted


@dataclass(kw_only=True)
class Batch:
    """The orders of a plan, by client order id as far as they were sent, and the situation that the next one is judged in.

    `missed_before` are those that the broker did not have when an earlier run asked; `counted` are the filled shares that the situation
    holds already; `arrivals` are the quote mids at which orders arrive.
    """

    run: BatchRun
    window: SlotWindow
    decision: Decision
    orders: Orders
    missed_before: frozenset[str]
    situation: risk.Situation
    counted: dict[str, Decimal]
    arrivals: Mapping[str, float | None]

    def require_time(self) -> None:
        """Raise `OutOfTime` or `WindowClosed` unless something may still be sent."""
        context = self.run.context
        if context.monotonic() >= context.deadline:
            raise OutOfTime("the time budget has ended")
        self.run.clock.refresh()
        self.run.require_window(self.window)

    def seconds_to_send(self) -> float:
        """Until the budget or the window ends, however old the broker's time is."""
        context = self.run.context
        return min(context.deadline - context.monotonic(), self.window.seconds_left(self.run.now) - CLOCK_SECONDS)

    def store(self, **changes: object) -> None:
        self.decision = self.run.store(self.decision, **changes)

    def count_working(self, planned: PlannedOrder) -> None:
        """Let an order that may be at the broker take its room."""
        self.situation = risk.working(proposed(planned), self.situation)

    def count_ended(self, order: OrderRecord) -> None:
        """Let an ended order make, or take, the room that its fills do."""
        moved = order.filled_quantity - self.counted.get(order.client_order_id, Decimal(0))
        self.counted[order.client_order_id] = order.filled_quantity
        self.situation = risk.ended(order.client_order_id, order.symbol, order.side, self.situation, filled=float(moved))
