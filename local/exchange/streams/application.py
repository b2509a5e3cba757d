"""The streams' ASGI application, in front of the exchange's: websocket handshakes are its own, everything else passes.

| Path | Stream |
|--|--|
| /stream, /stream/ | trade_updates: the account's orders |
| /v2/iex, /v2/sip | market data |
| /v2/test | market data; the vendor's stream for tests, whose symbol is FAKEPACA |

A handshake on any other path is answered 501 with its name.
"""

from __future__ import annotations

import asyncio
import contextlib

from local.exchange.faults.middleware import Application, Receive, Scope, Send
from local.exchange.http import wire
from local.exchange.http.app import Keys
from local.exchange.http.routes_admin import STREAMS
from local.exchange.streams import market_session
from local.exchange.streams.codec import codec_for
from local.exchange.streams.connection import POLICY, StreamConnection
from local.exchange.streams.hub import StreamHub
from local.exchange.streams.market_session import MarketSession
from local.exchange.streams.trade_updates import TradeSession
from local.exchange.venue import Venue

TRADE_PATHS, MARKET_PATHS = ("/stream", "/stream/"), ("/v2/iex", "/v2/sip", "/v2/test")
#: An event follows the answer to the request that brought it about: clients know an order by its answer.
AFTER_THE_ANSWER = 0.05
AUTHENTICATION_SECONDS = 10.0


class Streams:
    """Serves the streams of `venue` to who has `keys`, and hands requests on to `application`."""

    def __init__(self, application: Application, *, venue: Venue, keys: Keys) -> None:
        self._application, self._venue, self._keys = application, venue, (keys.key_id, keys.secret_key)
        self._hub = StreamHub(venue)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._application({**scope, "extensions": {**scope.get("extensions", {}), STREAMS: self._hub}}, receive, send)
            return
        await receive()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["path"] in TRADE_PATHS:
            await send({"type": "websocket.accept"})
            await self._trades(headers, receive, send)
        elif scope["path"] in MARKET_PATHS:
            await send({"type": "websocket.accept"})
            await self._market(headers, receive, send)
        else:
            await _not_served(scope, send)

    async def _trades(self, headers: dict[str, str], receive: Receive, send: Send) -> None:
        codec = codec_for(headers.get("content-type", ""), binary=True)
        connection = StreamConnection(codec, batched=False, delay=AFTER_THE_ANSWER)
        session = self._hub.trades[connection] = TradeSession(keys=self._accepted)
        try:
            await _converse(connection, session, receive, send)
        finally:
            del self._hub.trades[connection]

    async def _market(self, headers: dict[str, str], receive: Receive, send: Send) -> None:
        codec = codec_for(headers.get("content-type", ""), binary=False)
        connection = StreamConnection(codec, batched=True, farewell=market_session.error(407))
        limits = self._venue.plan.faults.stream_limits
        session = MarketSession(keys=self._accepted, most_symbols=limits.symbols if limits is not None else None)
        connection.answer(market_session.CONNECTED)
        if limits is not None and len(self._hub.markets) >= limits.connections:
            self._venue.fault_sampler.count("stream_limits")
            connection.answer(market_session.error(406))
            connection.close(POLICY)
        elif "apca-api-key-id" in headers:
            connection.answer(session.authorize(headers["apca-api-key-id"], headers.get("apca-api-secret-key")))
        self._hub.markets[connection] = session
        timer = asyncio.get_running_loop().call_later(AUTHENTICATION_SECONDS, _require_authentication, connection, session)
        try:
            await _converse(connection, session, receive, send)
        finally:
            timer.cancel()
            del self._hub.markets[connection]

    @property
    def _accepted(self) -> tuple[str, str] | None:
        return None if self._venue.keys_revoked else self._keys


def _require_authentication(connection: StreamConnection, session: MarketSession) -> None:
    if not session.authorized:
        connection.answer(market_session.error(404))
        connection.close(POLICY)


async def _converse(connection: StreamConnection, session: TradeSession | MarketSession, receive: Receive, send: Send) -> None:
    """Answer what the client says, while the connection's writer sends, until the client has gone."""

    async def write() -> None:
        with contextlib.suppress(OSError):  # the client has gone, which the reader is told as well
            await connection.write(send)

    writer = asyncio.create_task(write())
    try:
        while (message := await receive())["type"] == "websocket.receive":
            if connection.close_code is not None:
                continue
            frame = message.get("bytes") or message.get("text") or ""
            try:
                said = connection.codec.decode(frame)
            except ValueError:
                said = None
            connection.answer(session.receive(said))
    finally:
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writer


async def _not_served(scope: Scope, send: Send) -> None:
    body = wire.dumps({"code": 50110000, "message": f"the stream {scope['path']} is not served by this exchange"}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": 501, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
