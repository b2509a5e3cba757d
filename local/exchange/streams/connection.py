"""One client's socket, outgoing: a queue of messages that a writer sends.

Promise: messages leave in the order in which they were queued, but for what a fault delays. A reader that leaves more than `MOST_WAITING`
messages unread while more arrive is slow: it is told so once, loses the rest, and is disconnected. What one move of the clock brings about
counts as one arrival, however much it is, so that a jump alone makes no reader slow.
"""

from __future__ import annotations

import asyncio
from collections import deque

from local.exchange.faults.middleware import Send
from local.exchange.faults.stream_faults import DELIVERED, Delivery
from local.exchange.http.wire import Json
from local.exchange.streams.codec import StreamCodec

MOST_WAITING = 20_000
PER_FRAME = 500
GOING_AWAY, POLICY, INTERNAL = 1001, 1008, 1011


class StreamConnection:
    """`batched`: a frame is a list of messages. `delay`: seconds that an event waits, so that it follows the answer to its request."""

    def __init__(self, codec: StreamCodec, *, batched: bool, delay: float = 0.0, farewell: Json | None = None) -> None:
        self.codec = codec
        self._batched, self._delay, self._farewell = batched, delay, farewell
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Json] = deque()
        self._arriving: list[Json] = []
        self._behind: list[Json] = []
        self._ready = asyncio.Event()
        self._ended = False
        self.close_code: int | None = None

    def answer(self, *messages: Json) -> None:
        """What follows a message of the client: at once."""
        self._waiting.extend(messages)
        self._ready.set()

    def close(self, code: int) -> None:
        """End the connection once what waits has been sent."""
        self.close_code = self.close_code or code
        self._ready.set()

    def abandon(self) -> None:
        """End the connection without what has not been queued yet: it never happened."""
        self._arriving, self._behind = [], []
        self.close(INTERNAL)

    def deliver(self, event: Json, delivery: Delivery = DELIVERED) -> None:
        """What happened, as a fault wants it delivered."""
        if self._ended or self.close_code is not None:
            return
        if delivery.disconnects:
            self._loop.call_later(self._delay, self.close, GOING_AWAY)
        self._ended = delivery.disconnects or delivery.silences
        if self._ended:
            return
        if delivery.late:
            self._loop.call_later(self._delay + delivery.late, self._arrive_late, event)
        elif delivery.behind:
            self._behind.append(event)
            self._loop.call_later(self._delay + delivery.behind, self._release)
        elif delivery.copies:
            self._arrive([event] * delivery.copies + self._behind)
            self._behind = []

    async def write(self, send: Send) -> None:
        """Send what is queued, until the connection is closed."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._waiting:
                await self._send_frame(send)
            if self.close_code is not None:
                await send({"type": "websocket.close", "code": self.close_code})
                return

    async def _send_frame(self, send: Send) -> None:
        if self._batched:
            frame = self.codec.encode([self._waiting.popleft() for _ in range(min(PER_FRAME, len(self._waiting)))])
        else:
            frame = self.codec.encode(self._waiting.popleft())
        await send({"type": "websocket.send", "text" if isinstance(frame, str) else "bytes": frame})

    def _arrive(self, events: list[Json]) -> None:
        if not self._arriving:
            self._loop.call_later(self._delay, self._queue)
        self._arriving += events

    def _arrive_late(self, event: Json) -> None:
        if not self._ended and self.close_code is None:
            self.answer(event)

    def _release(self) -> None:
        """What should go behind the next event, if none came."""
        held, self._behind = self._behind, []
        if held:
            self._arrive(held)

    def _queue(self) -> None:
        events, self._arriving = self._arriving, []
        if self.close_code is not None:
            return
        if len(self._waiting) > MOST_WAITING:
            self._waiting.clear()
            events = [self._farewell] if self._farewell is not None else []
            self.close_code = POLICY
        self._waiting.extend(events)
        self._ready.set()
