"""What leaves a runner under test, in a list: events, records, beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lambdas.common.ledger.runner_state import RunnerState
from schema.realtime.events import MarketEvent


@dataclass
class Kept:
    entries: list[Any] = field(default_factory=list)
    beats: list[RunnerState] = field(default_factory=list)
    most: int = 100
    parallel: int = 1

    def send(self, entries: Sequence[Any]) -> list[int]:
        self.entries += entries
        return []

    def put_runner_state(self, state: RunnerState) -> bool:
        self.beats.append(state)
        return True

    def of(self, kind: type[MarketEvent]) -> list[Any]:
        return [event for event in self.entries if isinstance(event, kind)]
