"""One run: sockets, clock, minutes, outboxes and heartbeat in one event loop, until a signal, a refusal or a fault ends it.

Promise: on SIGTERM what is queued is sent, the open minute is given up untold, the beat says "stopped", and `run` returns within five
seconds. Killed, it leaves nothing behind that the next one needs. It holds nothing that decides or orders.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from lambdas.common.broker.following import MarketTime
from lambdas.common.broker.port import BrokerError
from lambdas.common.broker.streams import MarketStreams
from lambdas.common.telemetry import logger
from runner.heartbeat import EVERY, Beats, Heartbeat
from runner.listener import MarketListener
from runner.market_hours import MarketHours
from runner.publishing import Outbox, Sink
from runner.sinks import Line
from runner.threads import in_thread
from schema.realtime.events import MarketEvent
from schema.sections.realtime import RunnerSettings

TICK = 0.2
#: Seconds between two looks at the broker's clock: 6 of its 200 requests per minute.
CLOCK_EVERY = 10.0
#: What may wait: ten minutes of a lively market's events, and of 150 quotes per second.
MOST_EVENTS, MOST_RECORDS = 20_000, 100_000
LINGER = 0.5
#: Seconds for each step of the end, which is over in five.
HANGING_UP, CLOSING, DRAINING, LAST_BEAT = 1.0, 0.5, 1.5, 1.0


@dataclass(frozen=True, kw_only=True)
class RunnerEdges:
    """What a run speaks to."""

    streams: MarketStreams
    time: MarketTime
    bus: Sink[MarketEvent]
    stream: Sink[Line] | None
    beats: Beats


class Run:
    """`run` may be called once. `clock_every`: seconds between two looks at the broker's clock."""

    def __init__(
        self, edges: RunnerEdges, *, symbols: Sequence[str], feed: str, settings: RunnerSettings, clock_every: float = CLOCK_EVERY
    ) -> None:
        self._edges, self._symbols, self._clock_every = edges, tuple(symbols), clock_every
        self._silence = settings.silence_seconds
        self._hours = MarketHours(edges.time)
        self.bus = Outbox(edges.bus, name="events", capacity=MOST_EVENTS)
        self.stream = None if edges.stream is None else Outbox(edges.stream, name="stream", capacity=MOST_RECORDS, linger=LINGER)
        self.listener = MarketListener(
            symbols=self._symbols,
            feed=feed,
            settings=settings,
            hours=self._hours,
            bus=self.bus,
            stream=self.stream,
            elapsed=time.monotonic,
        )
        self._heartbeat = Heartbeat(edges.beats, runner=uuid4().hex, symbols=self._symbols, since=datetime.now(UTC))
        self._stopping = asyncio.Event()
        self._asides: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Follow until `stop`, SIGTERM or SIGINT; raise `StreamRefused` where the broker refuses, and whatever else ends it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        outboxes = [asyncio.create_task(box.run()) for box in (self.bus, self.stream) if box is not None]
        work = [asyncio.create_task(one) for one in self._work()]
        self._aside(self._beat())  # a ledger that does not answer must not keep a signal waiting
        stopped = asyncio.create_task(self._stopping.wait())
        reason = "told to stop"
        try:
            done, _ = await asyncio.wait([stopped, *work, *outboxes], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            stopped.cancel()
            await self._end(work, outboxes, reason=reason)

    def _work(self) -> list[Coroutine[Any, Any, None]]:
        return [
            self._edges.streams.follow(self.listener, symbols=self._symbols),
            self._read_the_clock(),
            self._tick(),
            self._keep_beating(),
            self._probe(),
        ]

    async def _end(self, work: Sequence[asyncio.Task[None]], outboxes: Sequence[asyncio.Task[None]], *, reason: str) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._edges.streams.stop(), HANGING_UP)
        for task in work:
            task.cancel()
        await asyncio.wait(work, timeout=CLOSING)
        await asyncio.gather(*(box.drain(seconds=DRAINING) for box in (self.bus, self.stream) if box is not None))
        for task in outboxes:
            task.cancel()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._beat(stopped=reason), LAST_BEAT)
        counts = self.listener.counts
        logger.info("stopped", extra={"reason": reason, "minutes": counts.minutes, "lost": self.listener.lost_entries})

    async def _read_the_clock(self) -> None:
        while True:
            resumed = self.listener.resuming
            try:
                clock = await in_thread(self._hours.read)
            except BrokerError as error:
                logger.warning("the broker's clock was not read", extra={"error": str(error)})
                await asyncio.sleep(min(self._clock_every, 2.0))
                continue
            self.listener.clock_read(clock, resumed=resumed)
            if resumed:
                await self._beat()  # that it hears again need not wait
            due = time.monotonic() + self._clock_every
            while time.monotonic() < due and not self.listener.wants_clock:
                await asyncio.sleep(TICK / 2)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            for feed in self.listener.tick():
                self._aside(self._edges.streams.reopen(feed))

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(self._silence / 4)
            await self._edges.streams.probe()

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self._beat()

    async def _beat(self, *, stopped: str = "") -> None:
        await self._heartbeat.beat(
            self.listener,
            elapsed=time.monotonic(),
            is_open=self._hours.is_open,
            state="stopped" if stopped else "following",
            reason=stopped,
        )

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it without waiting for it."""
        task = asyncio.create_task(work)
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)
