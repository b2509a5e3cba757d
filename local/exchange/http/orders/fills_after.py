"""Fills that come after the answer: an order that was answered meets the price a moment later.

Promise: at the start of the next request that the exchange sees, or `AFTER` seconds of the machine's clock after the answer, whichever is
first. Without an event loop (`in_process.py`) the next request alone brings it about, so a test never waits.
"""

from __future__ import annotations

import asyncio

from local.exchange.faults.middleware import Application, Receive, Scope, Send
from local.exchange.venue import Venue

AFTER = 0.05


class FillsAfter:
    """An ASGI application around the exchange's routes; without orders that wait it changes nothing."""

    def __init__(self, application: Application, *, venue: Venue) -> None:
        self._application, self._venue = application, venue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._venue.meet()
        await self._application(scope, receive, send)
        if self._venue.waits:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            loop.call_later(AFTER, self._venue.meet)
