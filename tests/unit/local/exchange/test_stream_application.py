"""What the streams do about a client that never says who it is, and about a journal that cannot be written.

The client's socket is the process's edge, and made of two queues here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, MutableMapping
from decimal import Decimal
from typing import Any

import pytest

from local.exchange.http.app import Keys, create_app
from local.exchange.orders import Side, Ticket
from local.exchange.streams import application
from local.exchange.streams.application import Streams
from local.exchange.venue import Venue
from tests.exchanges import ExchangeClient
from tests.listeners import KEYS

Socket = MutableMapping[str, Any]


async def heard_on(venue: Venue, path: str, *said: Any, then: Callable[[], None] = lambda: None) -> list[Socket]:
    """What a client hears until it is disconnected: it says so much, and then something happens."""
    streams = Streams(create_app(venue=venue, keys=Keys()), venue=venue, keys=Keys())
    saying: asyncio.Queue[Socket] = asyncio.Queue()
    heard: list[Socket] = []

    async def send(message: Socket) -> None:
        heard.append(message)
        if message["type"] == "websocket.close":
            saying.put_nowait({"type": "websocket.disconnect"})

    saying.put_nowait({"type": "websocket.connect"})
    for message in said:
        saying.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})
    asyncio.get_running_loop().call_later(0.05, then)
    await asyncio.wait_for(streams({"type": "websocket", "path": path, "headers": []}, saying.get, send), 5)
    return heard


def test_who_does_not_authenticate_in_time_is_told_so_and_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "AUTHENTICATION_SECONDS", 0.05)
    accepted, greeting, farewell, closed = asyncio.run(heard_on(ExchangeClient().venue, "/v2/iex"))
    assert (accepted["type"], json.loads(greeting["text"])[0]["msg"]) == ("websocket.accept", "connected")
    assert json.loads(farewell["text"]) == [{"T": "error", "code": 404, "msg": "auth timeout"}]
    assert closed == {"type": "websocket.close", "code": 1008}


def test_what_the_journal_could_not_record_is_told_to_nobody() -> None:
    venue = ExchangeClient().venue

    def full(_command: Mapping[str, Any]) -> None:
        raise OSError("no space left on device")

    def submit() -> None:
        with pytest.raises(OSError, match="no space"):
            venue.submit(Ticket(symbol="AAPL", side=Side.BUY, quantity=Decimal(1)))

    venue.record = full
    listen = {"action": "listen", "data": {"streams": ["trade_updates"]}}
    heard = asyncio.run(heard_on(venue, "/stream", {"action": "auth", **KEYS}, listen, then=submit))
    told = [json.loads(message["bytes"])["stream"] for message in heard if message["type"] == "websocket.send"]
    assert told == ["authorization", "listening"]
    assert heard[-1] == {"type": "websocket.close", "code": 1011}
