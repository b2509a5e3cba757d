"""One run with what this process's environment names: the app's deployed settings, its ledger, its bus, its stream and its broker."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

from pydantic import Field

from lambdas.common.broker.following import FEED, market_time_from_environment, streams_from_environment
from lambdas.common.environment import Variables, read
from lambdas.common.ledger.ledger import ledger_from_environment
from lambdas.common.telemetry import logger
from runner import sinks
from runner.run import Run, RunnerEdges
from schema.settings import deployed

#: Loggers of the broker's clients: their warnings are ours.
CLIENTS = ("alpaca.data.live.websocket", "alpaca.trading.stream")


class RunnerVariables(Variables):
    event_bus_name: str = Field(min_length=1)
    stream_kind: Literal["none", "firehose", "kinesis"] = "none"
    stream_name: str = ""


def follow() -> None:
    """Follow the market until SIGTERM or Ctrl-C; raise a `PapertapeError` where that is not allowed or not possible."""
    for name in CLIENTS:
        client = logging.getLogger(name)
        client.handlers[:], client.propagate = logger.handlers, False
        client.setLevel(logging.WARNING)
    asyncio.run(_follow())


async def _follow() -> None:
    settings, variables = deployed(), read(RunnerVariables)
    edges = RunnerEdges(
        streams=streams_from_environment(silence_seconds=settings.runner.silence_seconds),
        time=market_time_from_environment(),
        bus=sinks.event_bus(variables.event_bus_name),
        stream=sinks.stream(variables.stream_kind, variables.stream_name),
        beats=ledger_from_environment(),
    )
    symbols = settings.universe.symbols
    logger.info("start", extra={"symbols": len(symbols), "bus": variables.event_bus_name, "stream": variables.stream_kind})
    await Run(edges, symbols=symbols, feed=FEED, settings=settings.runner).run()
