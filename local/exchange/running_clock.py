"""A clock of the venue that runs by itself: `speed` seconds of the market pass per second of the machine.

An ASGI application around the exchange's. The venue is brought to the present before each request is answered, which gives the same books
as if it had lived through every moment; while somebody listens to a stream it is also brought there as soon as something can happen, and
with each minute. A clock moved by `/admin` runs on from there, and one of speed 0 stands still. At the calendar's end it stands still as
well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from local.exchange.faults.middleware import Application, Receive, Scope, Send
from local.exchange.http.routes_admin import CLOCK
from local.exchange.venue import Venue

TICK_SECONDS = 0.1
logger = logging.getLogger(__name__)


class RunningClock:
    """Serves `application` over `venue`; `wall` gives seconds since 1970, which go on while the machine sleeps."""

    def __init__(self, application: Application, *, venue: Venue, speed: float, wall: Callable[[], float] = time.time) -> None:
        self._application, self._venue, self._wall = application, venue, wall
        self._end = venue.calendar.sessions[-1].open
        self._listeners = 0
        self._ticking: asyncio.Task[None] | None = None
        self.run(speed)

    def run(self, speed: float) -> None:
        """Go on from the venue's moment at `speed`."""
        self.speed = speed
        self._go_on()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._listen(scope, receive, send)
            return
        if scope["type"] == "http":
            self._turn()
            scope = {**scope, "extensions": {**scope.get("extensions", {}), CLOCK: self}}
        try:
            await self._application(scope, receive, send)
        finally:
            if self._venue.now != self._left:  # moved by hand
                self._go_on()

    async def _listen(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._listeners += 1
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick())
        try:
            await self._application(scope, receive, send)
        finally:
            self._listeners -= 1
            if not self._listeners and self._ticking is not None:
                self._ticking.cancel()
                self._ticking = None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = min(self._present(), self._end)
            if self.speed and (self._venue.due(now) or _minute(now) > self._venue.now):
                try:
                    self._turn()
                except Exception:
                    logger.exception("exchange: its clock stands still at %s", self._venue.now.isoformat())
                    return

    def _go_on(self) -> None:
        self._from, self._at, self._left = self._venue.now, self._wall(), self._venue.now

    def _turn(self) -> None:
        now = min(self._present(), self._end)
        if now > self._venue.now:
            self._venue.advance(now)
            self._left = now

    def _present(self) -> datetime:
        return self._from + timedelta(seconds=(self._wall() - self._at) * self.speed)


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)
