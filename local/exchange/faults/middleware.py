"""ASGI middleware that injects the faults of the network: into a request before the exchange sees it, or into its response.

Promise: without a plan a request passes untouched. Before the exchange sees it: too many requests, a connection that is reset, a read
that fails or hangs. After an order was accepted: the response is a gateway's 504, is not JSON, or never comes. A refused order always
gets its response. On a socket a reset is a reset and a timeout a timeout; a caller without one (in a test) gets `ConnectionResetError`
or `TimeoutError` instead.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from starlette.requests import ClientDisconnect

from local.exchange.faults.plan import RepeatedOrderFault, RequestFault
from local.exchange.venue import Venue

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

CONNECTION = "papertape.connection"
SUBMIT = "POST /v2/orders"
MARKET_DATA = ("/v2/stocks", "/v1beta1", "/v1/corporate-actions")
GATEWAY_TIMEOUT = b"<html>\r\n<head><title>504 Gateway Time-out</title></head>\r\n<body>504 Gateway Time-out</body>\r\n</html>\r\n"
SERVER_ERRORS = (
    (500, b'{"code":50010000,"message":"internal server error occurred"}'),
    (502, b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>502 Bad Gateway</body>\r\n</html>\r\n"),
    (503, b'{"code":50310000,"message":"service unavailable"}'),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoResponse:
    """The connection is reset at once, or held for so many seconds and then reset."""

    how: Literal["reset", "hold"]
    seconds: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingRequest:
    """A request: `line` is its method and path; `subject` distinguishes it from others at one moment."""

    line: str
    subject: str
    symbol: str = ""

    @classmethod
    def of(cls, scope: Scope, body: bytes, now: datetime) -> IncomingRequest:
        line = f"{scope['method']} {scope['path']}"
        if line != SUBMIT:
            return cls(line=line, subject=f"{line}?{scope['query_string'].decode('latin-1')} {now.isoformat()}")
        try:
            order = json.loads(body)
            named, symbol = order.get("client_order_id"), str(order.get("symbol"))
        except (ValueError, AttributeError, RecursionError):
            named, symbol = None, ""
        subject = str(named or body.decode("latin-1"))
        return cls(line=line, subject=subject.encode(errors="backslashreplace").decode(), symbol=symbol)


class FaultMiddleware:
    """An ASGI application in front of the exchange's own."""

    def __init__(self, application: Application, *, venue: Venue) -> None:
        self._application = application
        self._venue = venue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/admin") or self._venue.fault_sampler.inactive:
            await self._application(scope, receive, send)
            return
        body = await _body(receive)
        request = IncomingRequest.of(scope, body, self._venue.now)
        headers, refusal = self._budget(scope["path"])
        outcome = refusal or self._before(request)
        if outcome is None:
            response = await self._respond(scope, body)
            outcome = self._after(request, replace(response, headers=response.headers + headers))
        if isinstance(outcome, Response):
            await _send(outcome, send)
        else:
            await _withhold(outcome, scope, receive)

    def _budget(self, path: str) -> tuple[tuple[tuple[bytes, bytes], ...], Response | None]:
        """The rate limit headers of a response, and the response to a request over the limit."""
        budget = self._venue.plan.faults.budget
        if budget is None:
            return (), None
        minute = self._venue.now.replace(second=0, microsecond=0)
        spent = self._venue.fault_sampler.count_request("data" if path.startswith(MARKET_DATA) else "trading", minute)
        reset = minute + timedelta(minutes=1)
        headers = _limit_headers(limit=budget.per_minute, remaining=max(0, budget.per_minute - spent), reset=reset)
        if spent <= budget.per_minute:
            return headers, None
        self._venue.fault_sampler.count("budget")
        return headers, _too_many_requests(headers)

    def _before(self, request: IncomingRequest) -> Response | NoResponse | None:
        sampler, faults = self._venue.fault_sampler, self._venue.plan.faults
        many, hangs = faults.too_many_requests, faults.get_timeout
        if self._venue.keys_revoked:
            return Response(status=401, body=b'{"code":40110000,"message":"request is not authorized"}')
        if many is not None and self._injects(many, "too_many_requests", request):
            with_reset = many.with_reset if many.with_reset is not None else sampler.draw("too_many_requests reset", request.subject) < 0.5
            reset = self._venue.now + timedelta(seconds=1)
            return _too_many_requests(_limit_headers(limit=200, remaining=0, reset=reset) if with_reset else ())
        if request.line == SUBMIT and self._injects(faults.post_reset_unaccepted, "post_reset_unaccepted", request):
            return NoResponse(how="reset")
        if not request.line.startswith("GET "):
            return None
        if self._injects(faults.get_5xx, "get_5xx", request):
            status, body = SERVER_ERRORS[int(sampler.draw("get_5xx which", request.subject) * len(SERVER_ERRORS))]
            return Response(status=status, body=body)
        if hangs is not None and self._injects(hangs, "get_timeout", request):
            return NoResponse(how="hold", seconds=hangs.hold_seconds)
        return None

    def _after(self, request: IncomingRequest, response: Response) -> Response | NoResponse:
        """The response, or the fault injected into it if an order was accepted."""
        faults = self._venue.plan.faults
        hangs = faults.post_timeout_accepted
        if request.line != SUBMIT or response.status != 200:
            return response
        if self._injects(faults.post_504_accepted, "post_504_accepted", request):
            return Response(status=504, body=GATEWAY_TIMEOUT)
        if hangs is not None and self._injects(hangs, "post_timeout_accepted", request):
            return NoResponse(how="hold", seconds=hangs.hold_seconds)
        if self._injects(faults.post_garbled, "post_garbled", request):
            return replace(response, body=response.body[: len(response.body) // 2])
        return response

    def _injects(self, fault: RepeatedOrderFault | RequestFault | None, kind: str, request: IncomingRequest) -> bool:
        if fault is None or not fault.covers(request.line if isinstance(fault, RequestFault) else request.symbol):
            return False
        return self._venue.fault_sampler.injects(fault, kind, request.subject, momentary=request.line != SUBMIT)

    async def _respond(self, scope: Scope, body: bytes) -> Response:
        """The exchange's whole response."""
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._application(scope, receive, send)
        headers = tuple((name, value) for name, value in sent[0]["headers"] if name != b"content-length")
        return Response(status=sent[0]["status"], body=b"".join(message.get("body", b"") for message in sent[1:]), headers=headers)


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _send(response: Response, send: Send) -> None:
    headers = (
        [*response.headers, (b"content-length", str(len(response.body)).encode())] if response.status != 204 else list(response.headers)
    )
    if not any(name == b"content-type" for name, _ in headers) and response.body:
        headers.append((b"content-type", b"application/json" if response.body.startswith(b"{") else b"text/html"))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _withhold(fault: NoResponse, scope: Scope, receive: Receive) -> None:
    """Send no response: end the connection with a reset, at once or when the client has waited long enough."""
    transport = scope.get("extensions", {}).get(CONNECTION)
    if transport is None:
        raise TimeoutError("no answer") if fault.how == "hold" else ConnectionResetError("connection reset by peer")
    if fault.how == "hold":
        try:
            await asyncio.wait_for(_gone(receive), fault.seconds)
        except TimeoutError:
            pass
        else:
            return
    # Closed without lingering, the connection ends with a reset instead of an orderly end.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    await _gone(receive)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _too_many_requests(headers: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    return Response(status=429, body=b'{"code":42910000,"message":"rate limit exceeded"}', headers=headers)


def _limit_headers(*, limit: int, remaining: int, reset: datetime) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"x-ratelimit-limit", str(limit).encode()),
        (b"x-ratelimit-remaining", str(remaining).encode()),
        (b"x-ratelimit-reset", str(int(reset.timestamp())).encode()),
    )
