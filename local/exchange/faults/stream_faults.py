"""Which events of a stream a plan disturbs, and how. Pure: a hash of (seed, kind, event), never of the wall clock or of who listens.

Promise: an event is delivered in one way, the same for every connection that it is for: it is lost, or the connection ends or falls silent
with it, or it comes late, behind the next one, or twice. What nobody listens to is neither drawn nor counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from local.exchange.faults.sampler import FaultSampler
from local.exchange.faults.stream_plan import StreamFault


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """`copies` of the event at once; or `late` by so many seconds; or `behind` the next one, but at most by so many seconds."""

    copies: int = 1
    late: float = 0.0
    behind: float = 0.0
    silences: bool = False
    disconnects: bool = False


DELIVERED = Delivery()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedEvent:
    """`stream`: "trade_updates" or "market_data". `kind`: an order's event, or a channel. `subject` tells it from every other."""

    stream: str
    kind: str
    symbol: str
    subject: str


class StreamFaultInjector:
    """Injects the plan's faults into events."""

    def __init__(self, sampler: FaultSampler) -> None:
        self.sampler = sampler

    def delivery(self, event: StreamedEvent) -> Delivery:
        """How the event is delivered; counted where a fault is in it."""
        faults = self.sampler.plan.faults
        if self._injects(faults.stream_disconnect, "stream_disconnect", event):
            return Delivery(disconnects=True)
        if self._injects(faults.stream_silent, "stream_silent", event):
            return Delivery(silences=True)
        if self._injects(faults.event_lost, "event_lost", event):
            return Delivery(copies=0)
        late, behind = faults.event_late, faults.event_out_of_order
        if late is not None and self._injects(late, "event_late", event):
            return Delivery(late=late.seconds)
        if behind is not None and self._injects(behind, "event_out_of_order", event):
            return Delivery(behind=behind.seconds)
        if self._injects(faults.event_repeated, "event_repeated", event):
            return Delivery(copies=2)
        return DELIVERED

    def _injects(self, fault: StreamFault | None, kind: str, event: StreamedEvent) -> bool:
        if fault is None or not fault.covers_event(stream=event.stream, kind=event.kind, symbol=event.symbol):
            return False
        injected = self.sampler.draw(kind, event.subject) < fault.rate
        if injected:
            self.sampler.count(kind)
        return injected
