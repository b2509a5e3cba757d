"""The faults of the streams, as a plan names them: what happens to events, and to the connection that they travel on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from local.exchange.faults.models import OrderFault, PlanModel, Rate, Seconds


class StreamFault(OrderFault):
    """Injected into events; with `streams`, `events` (an order's, or channels of market data) or `symbols`, into these only."""

    streams: tuple[Literal["trade_updates", "market_data"], ...] | None = None
    events: tuple[str, ...] | None = None

    def covers_event(self, *, stream: str, kind: str, symbol: str) -> bool:
        return (self.streams is None or stream in self.streams) and (self.events is None or kind in self.events) and self.covers(symbol)


class EventLost(StreamFault):
    rate: Rate = 0.01


class EventRepeated(StreamFault):
    rate: Rate = 0.01


class EventLate(StreamFault):
    """`seconds` of the wall clock."""

    rate: Rate = 0.01
    seconds: Seconds = 2


class EventOutOfOrder(StreamFault):
    """Behind the next event, or after `seconds` (wall clock) without one."""

    rate: Rate = 0.01
    seconds: Seconds = 1


class StreamSilent(StreamFault):
    """From this event on nothing comes, on a connection that lives."""

    rate: Rate = 0.001


class StreamDisconnect(StreamFault):
    rate: Rate = 0.001


class StreamLimits(PlanModel):
    """Of market data, as the vendor's plans have them: `connections` at a time, `symbols` of trades and of quotes each."""

    connections: Annotated[int, Field(ge=1)] = 1
    symbols: Annotated[int, Field(ge=1)] = 30
