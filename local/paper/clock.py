"""The clocks that a paper run may live by. What waits for a moment takes one as a value, so that a test lives by its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

POLL_SECONDS = 0.05


class RunClock(Protocol):
    """Tells the time, UTC, and waits; it may wake up late, as a laptop does that was asleep."""

    def now(self) -> datetime: ...

    def sleep(self, seconds: float) -> None: ...


class WallClock:
    """This machine's."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(max(seconds, 0.0))


class ExchangeClock:
    """That of an exchange that runs faster than the wall, or years before it; `ask` reads it."""

    def __init__(self, ask: Callable[[], datetime]) -> None:
        self._ask = ask

    def now(self) -> datetime:
        return self._ask()

    def sleep(self, seconds: float) -> None:
        until = self.now() + timedelta(seconds=seconds)
        while self.now() < until:
            time.sleep(POLL_SECONDS)
