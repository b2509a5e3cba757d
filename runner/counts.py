"""What a runner has heard and done so far: what its beat and its log line of each minute say."""

from __future__ import annotations

from dataclasses import dataclass, field

from lambdas.common.broker.streams import Feed

FEEDS: tuple[Feed, ...] = ("orders", "market data")


@dataclass(slots=True)
class Counts:
    """`heard`: seconds of the process's clock at each socket's last message; `open`: the sockets of which messages come."""

    quotes: int = 0
    trades: int = 0
    orders: int = 0
    minutes: int = 0
    reconnects: int = 0
    unreadable: int = 0
    heard: dict[Feed, float] = field(default_factory=dict)
    open: set[Feed] = field(default_factory=set)
