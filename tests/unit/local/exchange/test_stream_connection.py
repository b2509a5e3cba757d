"""The queue of a stream's listener: its order, its bound, and what it does about a reader that is too slow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

from local.exchange.streams import connection
from local.exchange.streams.codec import codec_for
from local.exchange.streams.connection import StreamConnection

SLOW = {"T": "error", "code": 407, "msg": "slow client"}


class Socket:
    """A reader that takes what it is sent while `reads` is set."""

    def __init__(self) -> None:
        self.frames: list[MutableMapping[str, Any]] = []
        self.reads = asyncio.Event()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        await self.reads.wait()
        self.frames.append(message)

    @property
    def messages(self) -> list[Any]:
        return [message for frame in self.frames if "text" in frame for message in json.loads(frame["text"])]


async def _listened(*moves: int) -> Socket:
    """A reader that sleeps while so many messages arrive with each move of the clock, and then reads."""
    socket = Socket()
    listener = StreamConnection(codec_for("", binary=False), batched=True, farewell=SLOW)
    writer = asyncio.create_task(listener.write(socket.send))
    number = 0
    for move in moves:
        for _ in range(move):
            listener.deliver({"n": number})
            number += 1
        await asyncio.sleep(0.01)
    socket.reads.set()
    listener.close(1000)
    await asyncio.wait_for(writer, 5)
    return socket


def test_one_move_of_the_clock_may_be_as_long_as_it_is() -> None:
    socket = asyncio.run(_listened(3 * connection.MOST_WAITING, 1))
    messages = socket.messages
    assert len(messages) < 3 * connection.MOST_WAITING  # the next move finds it unread: slow
    assert messages[-1] == SLOW
    socket = asyncio.run(_listened(3 * connection.MOST_WAITING))
    assert [message["n"] for message in socket.messages] == list(range(3 * connection.MOST_WAITING))
    assert socket.frames[-1] == {"type": "websocket.close", "code": 1000}


def test_a_slow_reader_is_told_so_and_loses_the_rest() -> None:
    socket = asyncio.run(_listened(connection.MOST_WAITING, connection.MOST_WAITING, 1, 1))
    assert socket.messages[-1] == SLOW
    assert socket.messages.count(SLOW) == 1
    assert len(socket.messages) == connection.PER_FRAME + 1  # the frame that was on its way, and the farewell
    assert socket.frames[-1] == {"type": "websocket.close", "code": 1008}
