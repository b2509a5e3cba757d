"""The outermost layer: whatever fails within is the vendor's 500 in JSON and a traceback in the log, never a connection that breaks.

Promise: once a command could not be written to the journal, nothing is answered but 503: what is in memory and not in the file is shown to
nobody, and is gone after a restart, as if it had never been. A client that hangs up is no error.
"""

from __future__ import annotations

import json
import logging

from starlette.requests import ClientDisconnect

from local.exchange.faults.middleware import Application, Message, Receive, Scope, Send
from local.exchange.journal import UnwrittenError

INTERNAL = json.dumps({"code": 50010000, "message": "internal server error occurred"}).encode()
logger = logging.getLogger(__name__)


class Guard:
    """An ASGI application around another."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._unwritten: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        if self._unwritten is None:
            try:
                await self._application(scope, receive, noted)
            except ClientDisconnect:
                return
            except UnwrittenError as error:
                self._unwritten = str(error)
                logger.error("exchange: %s", error)  # noqa: TRY400 the message is the whole of it
            except (ConnectionResetError, TimeoutError):
                raise  # injected, for a client without a socket
            except Exception:
                logger.exception("exchange: %s %s failed", scope["method"], scope["path"])
                if begun:
                    raise
                await _answer(send, 500, INTERNAL)
                return
        if self._unwritten is not None:
            message = f"service unavailable: {self._unwritten}"
            await _answer(send, 503, json.dumps({"code": 50310000, "message": message}).encode())


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
