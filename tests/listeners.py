"""A client of a stream, frame by frame: what is said, and what comes, with the time it came."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import msgpack
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

KEYS = {"key": "local-key", "secret": "local-secret"}
QUIET = 0.3


class StreamListener:
    """Connected to `path` of the exchange at `url`; with `packed` it speaks msgpack."""

    def __init__(self, url: str, path: str, *, packed: bool = False, headers: dict[str, str] | None = None) -> None:
        headers = dict(headers or {}) | ({"Content-Type": "application/msgpack"} if packed else {})
        self._packed = packed
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(url.replace("http", "ws", 1) + path, additional_headers=headers, proxy=None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def say(self, message: Any) -> None:
        self._socket.send(msgpack.packb(message) if self._packed else json.dumps(message))

    def say_text(self, text: str) -> None:
        self._socket.send(text)

    def frame(self, timeout: float = 5.0) -> str | bytes:
        return self._socket.recv(timeout=timeout)

    def next(self, timeout: float = 5.0) -> Any:
        frame = self.frame(timeout)
        return msgpack.unpackb(frame) if self._packed else json.loads(frame)

    def ask(self, message: Any) -> Any:
        self.say(message)
        return self.next()

    def everything(self, *, count: int | None = None, quiet: float = QUIET, first: float = 5.0) -> list[Any]:
        """The messages that come until `count` are there, none has come for `quiet` seconds (`first` for the first), or the connection
        is closed.
        """
        found: list[Any] = []
        while count is None or len(found) < count:
            try:
                said = self.next(timeout=10.0 if count is not None else quiet if found else first)
            except (TimeoutError, ConnectionClosed):
                break
            found += said if isinstance(said, list) else [said]
        return found

    def nothing(self) -> bool:
        """Whether nothing comes for a while."""
        return self.everything(first=QUIET) == []

    @property
    def close_code(self) -> int | None:
        """What the exchange closed with; None while it has not."""
        deadline = time.monotonic() + 3
        while self._socket.close_code is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._socket.close_code


def orders_of(url: str) -> StreamListener:
    """A listener that is authorized, and listens to the account's orders."""
    listener = StreamListener(url, "/stream")
    listener.ask({"action": "auth", **KEYS})
    listener.ask({"action": "listen", "data": {"streams": ["trade_updates"]}})
    return listener


def market_of(url: str, path: str = "/v2/iex", *, packed: bool = False, **channels: list[str]) -> StreamListener:
    """A listener that is authorized, and subscribed to `channels`."""
    listener = StreamListener(url, path, packed=packed)
    listener.next()
    listener.ask({"action": "auth", **KEYS})
    if channels:
        listener.ask({"action": "subscribe", **channels})
    return listener
