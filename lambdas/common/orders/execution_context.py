"""What an executor stands on, in execute_orders and in reconcile: its edges, its clocks, and how it takes the lease."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lambdas.common.broker.port import Broker, MarketData
from lambdas.common.environment import Patience
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.orders.execution import Executor
from schema.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The edges of one run. `wall` is for the lease only; `started` and `monotonic` are one clock, for the budget."""

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
    patience: Patience = field(default_factory=Patience)

    @property
    def deadline(self) -> float:
        return self.started + self.patience.batch_budget_seconds

    def lease(self) -> int | None:
        """Take the lease and return its fencing number, after a moment's patience with its holder; None if it is not given back."""
        until = min(self.monotonic() + self.patience.lease_patience_seconds, self.deadline)
        while (fence := self.ledger.acquire_lease(self.owner, now=self.wall(), seconds=self.patience.lease_seconds)) is None:
            if self.monotonic() + self.patience.lease_poll_seconds >= until:
                return None
            self.sleep(self.patience.lease_poll_seconds)
        return fence

    def executor(self, fence: int) -> Executor:
        return Executor(
            ledger=self.ledger,
            broker=self.broker,
            market_data=self.market_data,
            settings=self.settings,
            fence=fence,
            monotonic=self.monotonic,
            started=self.started,
            deadline=self.deadline,
            sleep=self.sleep,
            patience=self.patience,
        )
