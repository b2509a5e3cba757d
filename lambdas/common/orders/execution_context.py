"""What a run stands on, in execute_orders and in reconcile: its edges, its clocks, and how it takes the lease."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lambdas.common.broker.port import Broker, MarketData
from lambdas.common.environment import TimeBudget
from lambdas.common.ledger.ledger import Ledger
from schema.settings import Settings


@dataclass(frozen=True, kw_only=True)
class ExecutionContext:
    """The edges of one run.

    `monotonic`, `started` and `deadline` are seconds of one clock, for the budget; `wall` is for the lease only; `sleep` waits between
    questions to the broker, never for the market.
    """

    ledger: Ledger
    broker: Broker
    market_data: MarketData
    settings: Settings
    owner: str
    started: float
    monotonic: Callable[[], float]
    wall: Callable[[], float]
    sleep: Callable[[float], None]
    code_version: str = "unknown"
    budget: TimeBudget = field(default_factory=TimeBudget)

    @property
    def deadline(self) -> float:
        return self.started + self.budget.batch_budget_seconds

    def until(self, seconds: float) -> float:
        """The moment that is `seconds` from now, or the deadline if that is sooner."""
        return min(self.monotonic() + seconds, self.deadline)

    def lease(self) -> int | None:
        """Take the lease and return its fencing number; None if its holder does not give it back before the timeout."""
        until = self.until(self.budget.lease_timeout_seconds)
        while (fence := self.ledger.acquire_lease(self.owner, now=self.wall(), seconds=self.budget.lease_seconds)) is None:
            if self.monotonic() + self.budget.lease_poll_seconds >= until:
                return None
            self.sleep(self.budget.lease_poll_seconds)
        return fence
