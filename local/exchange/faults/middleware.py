"""Faults on the way: what happens to a request before the exchange has seen it, and to an answer that the client never gets.

Promise: without a plan a request passes untouched. Before the exchange has seen it: too many requests, a connection that is reset, a read
that fails or hangs. After an order was accepted: the answer is a gateway's 504, is not JSON, or never comes. A refused order is always
answered. On a socket a reset is a reset and silence is silence; an application that is called without one (in a test) gets
`ConnectionResetError` or `TimeoutError` in their place.
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

from local.exchange.faults.plan import RepeatedOrderChance, RequestChance
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
class Answer:
    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """No answer: the connection is reset at once, or held for so many seconds and then reset."""

    how: Literal["reset", "hold"]
    seconds: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request: `line` is its method and path, `subject` tells it from others at one moment."""

    line: str
    subject: str
    symbol: str = ""

    @classmethod
    def of(cls, scope: Scope, body: bytes, now: datetime) -> Asked:
        line = f"{scope['method']} {scope['path']}"
        if line != SUBMIT:
            return cls(line=line, subject=f"{line}?{scope['query_string'].decode('latin-1')} {now.isoformat()}")
        try:
            order = json.loads(body)
            named, symbol = order.get("client_order_id"), str(order.get("symbol"))
        except (ValueError, AttributeError):
            named, symbol = None, ""
        return cls(line=line, subject=str(named or body.decode("latin-1")), symbol=symbol)


class Edge:
    """An ASGI application in front of the exchange's own."""

    def __init__(self, application: Application, *, venue: Venue) -> None:
        self._application = application
        self._venue = venue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/admin") or self._venue.fate.quiet:
            await self._application(scope, receive, send)
            return
        body = await _body(receive)
        asked = Asked.of(scope, body, self._venue.now)
        headers, refusal = self._budget(scope["path"])
        outcome = refusal or self._before(asked)
        if outcome is None:
            answer = await self._answer(scope, body)
            outcome = self._after(asked, replace(answer, headers=answer.headers + headers))
        if isinstance(outcome, Answer):
            await _send(outcome, send)
        else:
            await _keep_silent(outcome, scope, receive)

    def _budget(self, path: str) -> tuple[tuple[tuple[bytes, bytes], ...], Answer | None]:
        """The rate limit headers of an answer, and the answer to a request that is one too many."""
        budget = self._venue.plan.faults.budget
        if budget is None:
            return (), None
        minute = self._venue.now.replace(second=0, microsecond=0)
        spent = self._venue.fate.spend("data" if path.startswith(MARKET_DATA) else "trading", minute)
        reset = minute + timedelta(minutes=1)
        headers = _limits(limit=budget.per_minute, remaining=max(0, budget.per_minute - spent), reset=reset)
        if spent <= budget.per_minute:
            return headers, None
        self._venue.fate.note("budget")
        return headers, _too_many(headers)

    def _before(self, asked: Asked) -> Answer | Silence | None:
        fate, faults = self._venue.fate, self._venue.plan.faults
        many, hangs = faults.too_many_requests, faults.get_timeout
        if self._venue.keys_revoked:
            return Answer(status=401, body=b'{"code":40110000,"message":"request is not authorized"}')
        if many is not None and self._strikes(many, "too_many_requests", asked):
            told = many.with_reset if many.with_reset is not None else fate.draw("too_many_requests reset", asked.subject) < 0.5
            reset = self._venue.now + timedelta(seconds=1)
            return _too_many(_limits(limit=200, remaining=0, reset=reset) if told else ())
        if asked.line == SUBMIT and self._strikes(faults.post_reset_unaccepted, "post_reset_unaccepted", asked):
            return Silence(how="reset")
        if not asked.line.startswith("GET "):
            return None
        if self._strikes(faults.get_5xx, "get_5xx", asked):
            status, body = SERVER_ERRORS[int(fate.draw("get_5xx which", asked.subject) * len(SERVER_ERRORS))]
            return Answer(status=status, body=body)
        if hangs is not None and self._strikes(hangs, "get_timeout", asked):
            return Silence(how="hold", seconds=hangs.hold_seconds)
        return None

    def _after(self, asked: Asked, answer: Answer) -> Answer | Silence:
        """What becomes of an answer: that to an order which was accepted may get lost."""
        faults = self._venue.plan.faults
        hangs = faults.post_timeout_accepted
        if asked.line != SUBMIT or answer.status != 200:
            return answer
        if self._strikes(faults.post_504_accepted, "post_504_accepted", asked):
            return Answer(status=504, body=GATEWAY_TIMEOUT)
        if hangs is not None and self._strikes(hangs, "post_timeout_accepted", asked):
            return Silence(how="hold", seconds=hangs.hold_seconds)
        if self._strikes(faults.post_garbled, "post_garbled", asked):
            return replace(answer, body=answer.body[: len(answer.body) // 2])
        return answer

    def _strikes(self, chance: RepeatedOrderChance | RequestChance | None, kind: str, asked: Asked) -> bool:
        if chance is None or not chance.covers(asked.line if isinstance(chance, RequestChance) else asked.symbol):
            return False
        return self._venue.fate.strikes(chance, kind, asked.subject, momentary=asked.line != SUBMIT)

    async def _answer(self, scope: Scope, body: bytes) -> Answer:
        """What the exchange answers, whole."""
        said: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            said.append(message)

        await self._application(scope, receive, send)
        headers = tuple((name, value) for name, value in said[0]["headers"] if name != b"content-length")
        return Answer(status=said[0]["status"], body=b"".join(message.get("body", b"") for message in said[1:]), headers=headers)


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _send(answer: Answer, send: Send) -> None:
    headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode())] if answer.status != 204 else list(answer.headers)
    if not any(name == b"content-type" for name, _ in headers) and answer.body:
        headers.append((b"content-type", b"application/json" if answer.body.startswith(b"{") else b"text/html"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _keep_silent(silence: Silence, scope: Scope, receive: Receive) -> None:
    """Answer nothing: end the connection with a reset, at once or when the client has waited long enough."""
    transport = scope.get("extensions", {}).get(CONNECTION)
    if transport is None:
        raise TimeoutError("no answer") if silence.how == "hold" else ConnectionResetError("connection reset by peer")
    if silence.how == "hold":
        try:
            await asyncio.wait_for(_gone(receive), silence.seconds)
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


def _too_many(headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    return Answer(status=429, body=b'{"code":42910000,"message":"rate limit exceeded"}', headers=headers)


def _limits(*, limit: int, remaining: int, reset: datetime) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"x-ratelimit-limit", str(limit).encode()),
        (b"x-ratelimit-remaining", str(remaining).encode()),
        (b"x-ratelimit-reset", str(int(reset.timestamp())).encode()),
    )
