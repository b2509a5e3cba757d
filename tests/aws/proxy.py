"""A proxy between the functions and the exchange, which loses requests and answers on demand: faults at the socket, not in our code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests


@dataclass
class Proxy:
    """What to do: `before`/`after` count the POSTs of orders to fail with 504 before they reach the exchange, or after it accepted them.

    `hide` makes that many questions by client order id answer 404.
    `on_post` is called after each order that was forwarded; `rewrite` sees each path and answer and may tell another story; `instead` sees
    each method, path and body and may answer in the exchange's place. `asked` keeps every method and path.
    """

    target: str
    port: int = 0
    before: int = 0
    after: int = 0
    hide: int = 0
    posts: int = 0
    on_post: Callable[[int], None] = field(default=lambda _count: None)
    rewrite: Callable[[str, bytes], bytes] = field(default=lambda _path, content: content)
    instead: Callable[[str, str, bytes], tuple[int, bytes] | None] = field(default=lambda _method, _path, _body: None)
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        self.asked.append((method, path))
        if (told := self.instead(method, path, body)) is not None:
            return told
        order = method == "POST" and path == "/v2/orders"
        if order and self.before:
            self.before -= 1
            return 504, b"{}"
        if self.hide and path.startswith("/v2/orders:by_client_order_id"):
            self.hide -= 1
            return 404, b'{"code": 40410000, "message": "order not found"}'
        answer = requests.request(method, self.target + path, data=body, headers=headers, timeout=10)
        if order:
            self.posts += 1
            self.on_post(self.posts)
            if self.after:
                self.after -= 1
                return 504, b"{}"
        return answer.status_code, self.rewrite(path, answer.content)


@contextmanager
def running(target: str) -> Iterator[Proxy]:
    """Serve a proxy of `target` on a free port of this machine."""
    proxy = Proxy(target=target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kept = {name: value for name, value in self.headers.items() if name.lower().startswith(("apca", "content-type"))}
            status, content = proxy.answer(self.command, self.path, kept, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 -- the names that http.server calls

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
