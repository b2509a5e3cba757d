"""What follows the market is given of its account: the streams, the clock and the calendar. Nothing here can order."""

from __future__ import annotations

from typing import Protocol

from lambdas.common.broker import alpaca_streams, connection
from lambdas.common.broker.port import Calendar, Clock
from lambdas.common.broker.streams import MarketStreams

FEED = alpaca_streams.FEED


class MarketTime(Calendar, Protocol):
    """The broker's clock and calendar. A failed read raises `BrokerUnavailable`."""

    def clock(self) -> Clock: ...


def market_time_from_environment() -> MarketTime:
    """Raises `BrokerRefused` as `connection.broker_from_environment` does."""
    return connection.broker_from_environment()


def streams_from_environment(*, silence_seconds: float) -> MarketStreams:
    """`silence_seconds`: how long a ping may stay unanswered. Raises `BrokerRefused` as `connection.broker_from_environment` does."""
    return alpaca_streams.streams_from_environment(silence_seconds=silence_seconds)
