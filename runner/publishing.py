"""How what is published leaves: a bounded queue per sink, batches, and what was not accepted sent again, first and in order.

Promise: nothing is dropped silently. What finds the queue full, what a sink turns down `ATTEMPTS` times, and what is left when time is up
counts as lost and is logged. A sink that cannot be reached is tried again for as long as the queue has room for what comes meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.common.telemetry import logger
from runner.threads import in_thread

E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)

#: How often one entry may be turned down by a sink that answers.
ATTEMPTS = 20
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class Sink(Protocol[E_contra]):
    """Where a batch goes."""

    @property
    def most(self) -> int:
        """Entries per call."""

    @property
    def parallel(self) -> int:
        """Calls at once; order holds with one alone."""

    def send(self, entries: Sequence[E_contra]) -> list[int]:
        """Send all; return the positions of those that were not accepted. Raises botocore's errors where nothing is known to be."""


@dataclass(slots=True)
class _Waiting(Generic[E]):
    entry: E
    attempts: int = 0


class Outbox(Generic[E]):
    """The queue before a sink. `capacity`: entries that may wait; `linger`: seconds to wait for more when a batch is not full."""

    def __init__(self, sink: Sink[E], *, name: str, capacity: int, linger: float = 0.0) -> None:
        self._sink, self._name, self._capacity, self._linger = sink, name, capacity, linger
        self._queue: deque[_Waiting[E]] = deque()
        self._in_flight = 0
        self._filled = asyncio.Event()
        self._worth_it = asyncio.Event()
        self._hurry = False
        self.sent = 0
        self.lost = 0

    @property
    def waiting(self) -> int:
        return len(self._queue) + self._in_flight

    def put(self, entry: E) -> None:
        """Queue `entry`, or count it as lost where the queue is full."""
        if self.waiting >= self._capacity:
            self._lose(1, reason=f"more than {self._capacity} wait")
            return
        self._queue.append(_Waiting(entry))
        self._filled.set()
        if len(self._queue) >= self._sink.most:
            self._worth_it.set()

    async def run(self) -> None:
        """Send what is queued, until cancelled."""
        async with asyncio.TaskGroup() as senders:
            for _ in range(self._sink.parallel):
                senders.create_task(self._keep_sending())

    async def _keep_sending(self) -> None:
        pause = FIRST_PAUSE
        while True:
            await self._filled.wait()
            if self._linger and len(self._queue) < self._sink.most:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._worth_it.wait(), self._linger)
            accepted, refused = await self._send_batch()
            if accepted or not refused:
                pause = FIRST_PAUSE
            if refused:  # a shard that takes part of a batch has its limit per second: at once it would turn down the same ones again
                await asyncio.sleep(pause)
                if not accepted:
                    pause = min(2 * pause, LONGEST_PAUSE)
            if not self._queue:
                self._filled.clear()

    async def drain(self, *, seconds: float) -> None:
        """Wait until all is sent, at most so long; what is left then is lost."""
        self._hurry = True
        self._worth_it.set()
        try:
            async with asyncio.timeout(seconds):
                while self.waiting:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            self._lose(self.waiting, reason=f"not sent within {seconds} s of the end")

    async def _send_batch(self) -> tuple[int, int]:
        """Send one batch; what was not accepted goes back to the head of the queue. Returns how many were accepted, and how many not."""
        batch = [self._queue.popleft() for _ in range(min(self._sink.most, len(self._queue)))]
        if len(self._queue) < self._sink.most and not self._hurry:
            self._worth_it.clear()
        if not batch:
            return 0, 0
        self._in_flight += len(batch)
        try:
            refused = await in_thread(lambda: self._sink.send([one.entry for one in batch]))
        except (BotoCoreError, ClientError) as error:
            logger.warning("not sent", extra={"to": self._name, "entries": len(batch), "error": str(error)})
            self._return(batch)
            return 0, len(batch)
        finally:
            self._in_flight -= len(batch)
        self.sent += len(batch) - len(refused)
        again = [batch[position] for position in refused]
        for one in again:
            one.attempts += 1
        given_up = sum(one.attempts >= ATTEMPTS for one in again)
        if given_up:
            self._lose(given_up, reason=f"turned down {ATTEMPTS} times")
        self._return([one for one in again if one.attempts < ATTEMPTS])
        return len(batch) - len(refused), len(refused)

    def _return(self, entries: Sequence[_Waiting[E]]) -> None:
        """Back to the head of the queue, in their order."""
        self._queue.extendleft(reversed(entries))
        if entries:
            self._filled.set()

    def _lose(self, count: int, *, reason: str) -> None:
        if self.lost == 0 or self.lost // 1000 != (self.lost + count) // 1000:  # the first, and then each thousandth
            logger.error("lost", extra={"to": self._name, "entries": count, "in_all": self.lost + count, "reason": reason})
        self.lost += count
