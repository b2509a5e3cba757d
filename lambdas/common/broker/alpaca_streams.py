"""Alpaca's two streams behind `streams.MarketStreams`: alpaca-py's own clients, with what they lack.

They reconnect with a growing pause for ever, whatever the reason. Here keys or a subscription that the vendor refuses end it with
`StreamRefused`; a server that is connected and says nothing while a socket opens is left; a socket is opened anew when told. Alpaca-py's
`data_timeout` is not used: it counts the night as silence. Limit-up limit-down bands, which alpaca-py cannot subscribe to, are added. The
guard of addresses and of real money is that of `alpaca`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgpack
from alpaca.data.live.stock import StockDataStream
from alpaca.trading.stream import TradingStream
from websockets.exceptions import WebSocketException

from lambdas.common.broker import alpaca
from lambdas.common.broker import alpaca_stream_wire as wire
from lambdas.common.broker.streams import Feed, Message, StreamListener, StreamRefused
from lambdas.common.environment import read

DATA_STREAM = "wss://stream.data.alpaca.markets"
PATHS: Mapping[Feed, str] = {"orders": "/stream", "market data": "/v2/iex"}
FEED = "iex"
#: Vendor's errors that no repetition cures: keys, symbols beyond the plan, a feed beyond the plan, a malformed subscription.
FATAL = frozenset({402, 405, 409, 410})
OPENING_SECONDS = 15.0
CLOSING_SECONDS = 0.3
READERS: Mapping[str, Callable[[Mapping[str, Any]], Message | None]] = {
    "q": wire.quote_of,
    "t": wire.trade_of,
    "b": wire.bar_of,
    "u": wire.bar_of,
    "s": wire.halt_of,
    "l": wire.band_of,
    "c": wire.correction_of,
    "x": wire.cancel_of,
}


def stream_addresses(*, trading_url: str, data_url: str) -> dict[Feed, str]:
    """The streams that belong to REST addresses which the guard has let pass: the vendor's own, or this machine's."""
    data = DATA_STREAM if data_url == alpaca.DATA else _as_websocket(data_url)
    return {"orders": _as_websocket(trading_url) + PATHS["orders"], "market data": data + PATHS["market data"]}


def _as_websocket(url: str) -> str:
    return "ws" + url.removeprefix("http").rstrip("/")


class _Refusals:
    """Why a stream ended for good, whichever of the two said so."""

    reason: str = ""


class _DataStream(StockDataStream):
    def attach(self, listener: StreamListener, refusals: _Refusals) -> None:
        self._listener, self._refusals = listener, refusals

    async def _start_ws(self) -> None:
        try:
            async with asyncio.timeout(OPENING_SECONDS):
                await super()._start_ws()
        except ValueError as error:
            if "auth failed" in str(error) or "insufficient subscription" in str(error):
                await self._refuse(f"the market data stream refused the keys ({error})")
            raise

    async def _send_subscribe_msg(self) -> None:
        await super()._send_subscribe_msg()
        await self._ws.send(msgpack.packb({"action": "subscribe", "lulds": list(self._handlers["quotes"])}))  # type: ignore[attr-defined]

    async def _dispatch(self, msg: dict[str, Any]) -> None:
        kind = msg.get("T")
        self._listener.heard("market data")
        if kind == "subscription":
            if msg.get("quotes"):
                self._listener.subscribed("market data")
        elif kind == "error":
            if msg.get("code") in FATAL:
                await self._refuse(f"the market data stream refused the subscription ({msg.get('code')}: {msg.get('msg')})")
            else:
                self._listener.unreadable("market data", f"error {msg.get('code')}: {msg.get('msg')}")
        elif (reader := READERS.get(str(kind))) is not None:
            _read(self._listener, "market data", reader, msg)

    async def _consume(self) -> bool:
        try:
            return await super()._consume()
        except (ValueError, TypeError, AttributeError, KeyError) as error:  # a frame that is no list of messages
            if self._ws is None:
                return False
            self._listener.unreadable("market data", f"frame: {type(error).__name__} {str(error)[:200]}")
            return False

    async def close(self) -> None:
        gone = self._ws is not None
        try:
            await super().close()
        finally:
            if gone:
                self._listener.lost("market data")

    async def _refuse(self, reason: str) -> None:
        self._refusals.reason = self._refusals.reason or reason
        await self.stop_ws()


class _OrderStream(TradingStream):
    def attach(self, listener: StreamListener, refusals: _Refusals) -> None:
        self._listener, self._refusals = listener, refusals

    async def _start_ws(self) -> None:
        try:
            async with asyncio.timeout(OPENING_SECONDS):
                await super()._start_ws()  # type: ignore[no-untyped-call]
        except ValueError as error:
            if "failed to authenticate" in str(error):
                self._refusals.reason = self._refusals.reason or "the order stream refused the keys"
                await self.stop_ws()
            raise

    async def _dispatch(self, msg: dict[str, Any]) -> None:
        self._listener.heard("orders")
        if msg.get("stream") == "listening":
            if "trade_updates" in (msg.get("data") or {}).get("streams", []):
                self._listener.subscribed("orders")
        elif msg.get("stream") == "trade_updates":
            _read(self._listener, "orders", wire.order_of, msg)

    async def _consume(self) -> None:
        try:
            await super()._consume()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            if self._ws is not None:
                self._listener.unreadable("orders", f"frame: {type(error).__name__} {str(error)[:200]}")

    async def close(self) -> None:
        gone = self._ws is not None
        try:
            await super().close()
        finally:
            if gone:
                self._listener.lost("orders")

    async def probe(self) -> None:
        """Listen again to what is listened to already; the vendor confirms it each time."""
        if self._ws is not None and self._running:
            await self._ws.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))


def _read(listener: StreamListener, feed: Feed, reader: Callable[[Mapping[str, Any]], Message | None], raw: Mapping[str, Any]) -> None:
    try:
        message = reader(raw)
    except wire.UnreadableError as error:
        listener.unreadable(feed, str(error))
        return
    if message is not None:
        listener.message(message)


async def _unused(_raw: Any) -> None:
    """Alpaca-py subscribes to what has a handler; `_dispatch` is what reads."""


class AlpacaStreams:
    """`streams.MarketStreams`. `pauses`: seconds before the first and the longest before a later try to open a socket."""

    def __init__(
        self,
        *,
        credentials: alpaca.Credentials,
        trading_url: str = alpaca.PAPER_TRADING,
        data_url: str = alpaca.DATA,
        live_switch: str = "",
        pong_seconds: float = 60.0,
        pauses: tuple[float, float] = (1.0, 30.0),
    ) -> None:
        alpaca.refuse_foreign_broker(
            trading_url=trading_url, data_url=data_url, environment_switch=live_switch, secret_switch=credentials.live
        )
        addresses = stream_addresses(trading_url=trading_url, data_url=data_url)
        keys: dict[str, Any] = {"api_key": credentials.key_id, "secret_key": credentials.secret_key, "raw_data": True}
        keys["websocket_params"] = {
            "ping_interval": 10,
            "ping_timeout": pong_seconds,
            "max_queue": 1024,
            "open_timeout": 10,
            "close_timeout": CLOSING_SECONDS,
        }
        self._data = _DataStream(**keys, url_override=addresses["market data"])
        self._orders = _OrderStream(**keys, url_override=addresses["orders"])
        self._refusals = _Refusals()
        self._told_to_stop = False
        for stream in (self._data, self._orders):
            stream._reconnect_min_backoff, stream._reconnect_max_backoff = pauses  # noqa: SLF001 -- alpaca-py has no option for it

    async def follow(self, listener: StreamListener, *, symbols: Sequence[str]) -> None:
        self._data.attach(listener, self._refusals)
        self._orders.attach(listener, self._refusals)
        for subscribe in (
            self._data.subscribe_quotes,
            self._data.subscribe_trades,
            self._data.subscribe_bars,
            self._data.subscribe_updated_bars,
            self._data.subscribe_trading_statuses,
        ):
            subscribe(_unused, *symbols)
        self._orders.subscribe_trade_updates(_unused)
        running = [asyncio.create_task(stream._run_forever()) for stream in (self._data, self._orders)]  # noqa: SLF001 -- `run` would own the loop
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended_by_itself = not self._told_to_stop
            await self.stop()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if self._refusals.reason or ended_by_itself:
            raise StreamRefused(self._refusals.reason or "a stream of the broker's client ended by itself")

    async def probe(self) -> None:
        with suppress(WebSocketException, OSError):
            await self._orders.probe()

    async def reopen(self, feed: Feed) -> None:
        await _hang_up(self._data if feed == "market data" else self._orders)

    async def stop(self) -> None:
        self._told_to_stop = True
        for stream in (self._data, self._orders):
            await stream.stop_ws()
        await asyncio.gather(*(_hang_up(stream) for stream in (self._data, self._orders)))


async def _hang_up(stream: _DataStream | _OrderStream) -> None:
    socket = stream._ws  # noqa: SLF001 -- `close` would leave the loop with a socket that it still reads
    if socket is not None:
        with suppress(WebSocketException, OSError):
            await socket.close()


def streams_from_environment(*, silence_seconds: float, environ: Mapping[str, str] | None = None) -> AlpacaStreams:
    """The streams of this process's account: addresses and keys as `alpaca.broker_from_environment` reads them, and its guards."""
    variables = read(alpaca.BrokerVariables, environ=os.environ if environ is None else environ)
    return AlpacaStreams(
        credentials=alpaca.stored_credentials(variables.broker_secret_arn),
        trading_url=variables.alpaca_trading_url,
        data_url=variables.alpaca_data_url,
        live_switch=variables.allow_live_trading,
        pong_seconds=silence_seconds,
    )
