"""A clock of the venue that runs by itself: `speed` seconds of the market pass per second of the machine.

An ASGI application around the exchange's. The venue is brought to the present before each request is answered, which gives the same books
as if it had lived through every moment; a clock moved by `/admin` runs on from there. At the calendar's end it stands still.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from local.exchange.faults.middleware import Application, Receive, Scope, Send
from local.exchange.venue import Venue


class RunningClock:
    """Serves `application` over `venue`; `wall` gives seconds since 1970, which go on while the machine sleeps."""

    def __init__(self, application: Application, *, venue: Venue, speed: float, wall: Callable[[], float] = time.time) -> None:
        self._application, self._venue, self._speed, self._wall = application, venue, speed, wall
        self._from, self._at = venue.now, wall()
        self._left = venue.now
        self._end = venue.calendar.sessions[-1].open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._turn()
        try:
            await self._application(scope, receive, send)
        finally:
            if self._venue.now != self._left:  # moved by hand
                self._from, self._at, self._left = self._venue.now, self._wall(), self._venue.now

    def _turn(self) -> None:
        now = min(self._present(), self._end)
        if now > self._venue.now:
            self._venue.advance(now)
            self._left = now

    def _present(self) -> datetime:
        return self._from + timedelta(seconds=(self._wall() - self._at) * self._speed)
