"""A vendor's streams, clock and calendar on 127.0.0.1, as a test tells them to be: msgpack and JSON over real sockets.

Runs in the test's own event loop; what REST answers comes from the same server.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from local.listening import listening

KEY, SECRET = "a-key", "a-secret"
OPEN, CLOSE = datetime(2020, 1, 2, 14, 30, tzinfo=UTC), datetime(2020, 1, 2, 21, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def trade(symbol: str, at: datetime, number: int, price: float, size: int = 100) -> dict[str, Any]:
    return {"T": "t", "S": symbol, "i": number, "x": "V", "p": price, "s": size, "c": ["@"], "z": "B", "t": at}


def quote(symbol: str, at: datetime, bid: float, ask: float) -> dict[str, Any]:
    return {"T": "q", "S": symbol, "bx": "V", "bp": bid, "bs": 1, "ax": "V", "ap": ask, "as": 2, "c": ["R"], "z": "B", "t": at}


@dataclass
class StreamingVendor:
    """`data` and `orders` are the open sockets; `mute` accepts and says nothing more; `refuse` answers a subscription with this error."""

    now: datetime = OPEN + SECOND
    is_open: bool = True
    key: str = KEY
    mute: bool = False
    refuse: tuple[int, str] | None = None
    data: list[WebSocket] = field(default_factory=list)
    orders: list[WebSocket] = field(default_factory=list)
    subscriptions: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    async def send(self, *messages: dict[str, Any]) -> None:
        """To all who listen to the market, as one frame."""
        for socket in list(self.data):
            await socket.send_bytes(msgpack.packb(list(messages), datetime=True))

    async def send_bytes(self, frame: bytes) -> None:
        for socket in list(self.data):
            await socket.send_bytes(frame)

    async def update(self, client_order_id: str, *, event: str, status: str, at: datetime) -> None:
        order = {"id": "1", "client_order_id": client_order_id, "symbol": "SPY", "status": status, "filled_qty": "5"}
        data = {"event": event, "timestamp": at.isoformat(), "order": order}
        for socket in list(self.orders):
            await socket.send_bytes(json.dumps({"stream": "trade_updates", "data": data}).encode())

    async def drop(self) -> None:
        """Close every socket."""
        for socket in [*self.data, *self.orders]:
            with suppress(RuntimeError):
                await socket.close(1001)
        self.data.clear()
        self.orders.clear()

    async def _data(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_bytes(msgpack.packb([{"T": "success", "msg": "connected"}]))
        try:
            while True:
                message = msgpack.unpackb(await socket.receive_bytes())
                if message["action"] == "auth":
                    good = (message["key"], message["secret"]) == (self.key, SECRET)
                    answer = {"T": "success", "msg": "authenticated"} if good else {"T": "error", "code": 402, "msg": "auth failed"}
                    await socket.send_bytes(msgpack.packb([answer]))
                elif self.refuse is not None:
                    await socket.send_bytes(msgpack.packb([{"T": "error", "code": self.refuse[0], "msg": self.refuse[1]}]))
                else:
                    self.subscriptions.append(message)
                    if not self.mute:
                        await socket.send_bytes(msgpack.packb([{"T": "subscription", "quotes": ["SPY"]}]))
                    if socket not in self.data and not self.mute:
                        self.data.append(socket)
        except (WebSocketDisconnect, RuntimeError, KeyError):
            if socket in self.data:
                self.data.remove(socket)

    async def _orders(self, socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                message = json.loads(await socket.receive_text())
                if message["action"] == "authenticate":
                    good = (message["data"]["key_id"], message["data"]["secret_key"]) == (self.key, SECRET)
                    data = {"status": "authorized" if good else "unauthorized", "action": "authenticate"}
                    await socket.send_bytes(json.dumps({"stream": "authorization", "data": data}).encode())
                elif not self.mute:
                    await socket.send_bytes(json.dumps({"stream": "listening", "data": {"streams": ["trade_updates"]}}).encode())
                    if socket not in self.orders:
                        self.orders.append(socket)
        except (WebSocketDisconnect, RuntimeError, KeyError):
            if socket in self.orders:
                self.orders.remove(socket)

    async def _clock(self, _request: Request) -> JSONResponse:
        following = {"next_open": (OPEN + timedelta(days=1)).isoformat(), "next_close": CLOSE.isoformat()}
        return JSONResponse({"timestamp": self.now.isoformat(), "is_open": self.is_open, **following})

    async def _calendar(self, request: Request) -> JSONResponse:
        start, end = request.query_params["start"], request.query_params["end"]
        day = {"date": "2020-01-02", "open": "09:30", "close": "16:00", "settlement_date": "2020-01-06"}
        return JSONResponse([day] if start <= "2020-01-02" <= end else [])

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v2/clock", self._clock),
                Route("/v2/calendar", self._calendar),
                WebSocketRoute("/v2/iex", self._data),
                WebSocketRoute("/stream", self._orders),
            ]
        )


@asynccontextmanager
async def streaming() -> AsyncIterator[StreamingVendor]:
    vendor = StreamingVendor()
    config = uvicorn.Config(vendor.app, log_level="warning", ws="websockets-sansio", ws_ping_interval=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with listening(0) as socket:
        vendor.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        serving = asyncio.create_task(server._serve([socket]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield vendor
        finally:
            await vendor.drop()
            server.should_exit = True
            await serving
