"""The exchange without a socket: a transport adapter that hands a `requests` session's calls to the application.

    session.mount("http://exchange.test", InProcess(create_app(venue=venue, keys=Keys())))

Promise: a client sees what it would see on the wire, one request after the other, whatever thread it comes from. A connection that the
exchange resets is a `requests.ConnectionError`, an answer that never comes a `requests.ReadTimeout`, at once and without waiting.
"""

from __future__ import annotations

import io
from collections.abc import Coroutine
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from local.exchange.faults.middleware import Application, Message


class InProcess(HTTPAdapter):
    """Serves the prefix that it is mounted on from `application`."""

    def __init__(self, application: Application) -> None:
        super().__init__()
        self._application = application
        self._turn = Lock()

    def send(self, request: requests.PreparedRequest, *_args: Any, **_options: Any) -> requests.Response:
        said: list[Message] = []

        async def receive() -> Message:
            body = request.body or b""
            return {"type": "http.request", "body": body.encode() if isinstance(body, str) else body, "more_body": False}

        async def send(message: Message) -> None:
            said.append(message)

        try:
            with self._turn:
                _finish(self._application(_scope(request), receive, send))
        except ConnectionResetError as error:
            raise requests.ConnectionError(error, request=request) from error
        except TimeoutError as error:
            raise requests.ReadTimeout(error, request=request) from error
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in said[0]["headers"]]
        body = b"".join(message.get("body", b"") for message in said[1:])
        answer = HTTPResponse(body=io.BytesIO(body), headers=dict(headers), status=said[0]["status"], preload_content=False)
        return self.build_response(request, answer)


def _scope(request: requests.PreparedRequest) -> dict[str, Any]:
    url = urlsplit(str(request.url))
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "server": (url.hostname, url.port or 80),
        "client": ("127.0.0.1", 0),
        "root_path": "",
        "path": unquote(url.path),
        "raw_path": url.path.encode(),
        "query_string": url.query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in request.headers.items()],
    }


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to the end what never waits for anything: there is no event loop here."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("the exchange waited for something outside itself")
