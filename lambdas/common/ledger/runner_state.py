"""That the runner is alive, and what it has done: one item, replaced with each beat, which health reads.

A runner that dies says nothing, so its last beat grows old. One that ends by itself or is told to says "stopped", and why.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from lambdas.common.ledger.item import Record


class RunnerState(Record):
    """`beat_at`, `since` and the two `heard` are this machine's clock (ISO 8601 UTC), the last message of each socket among them.

    `market_open`: by the broker's clock, as read last. `reconnects`, `minutes`, `differing`, `refused` and `lost` count from `since`:
    sockets opened anew, minutes closed, bars in which the vendor's own differed, messages that could not be read, and records and events
    that could not be delivered. `queued`: what waits to be sent.
    """

    kind: ClassVar[str] = "runner"
    runner: str
    state: Literal["following", "stopped"]
    reason: str = ""
    since: str
    beat_at: str
    market_open: bool
    symbols: tuple[str, ...]
    heard_orders: str | None = None
    heard_data: str | None = None
    minutes: int = 0
    reconnects: int = 0
    differing: int = 0
    refused: int = 0
    lost: int = 0
    queued: int = 0

    def keys(self) -> dict[str, str]:
        return {"pk": "runner", "sk": "state"}
