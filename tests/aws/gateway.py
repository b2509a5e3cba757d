"""The execution API in this process: a loopback gateway that refuses what is not signed, before the real handlers."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

BASE = "/restapis/abcdefgh/v1/_user_request_"
EXECUTED = {("POST", "/decisions"), ("POST", "/orders"), ("POST", "/flatten")}

Call = Callable[..., Any]


@dataclass
class Gateway:
    """`calls` are (method, path, status), the unsigned ones with 403; `down` makes it answer nothing but 503; `after` runs at each call."""

    url: str
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    down: bool = False
    after: Callable[[str, str], None] = lambda _method, _path: None

    @property
    def api(self) -> str:
        return self.url + BASE


def _is_signed(method: str, url: str, body: bytes, headers: Any, credentials: Credentials) -> bool:
    """Sign the request as it arrived, at the moment that it names, and compare."""
    authorization = str(headers.get("Authorization", ""))
    named = re.search(r"SignedHeaders=([^,]+)", authorization)
    if named is None:
        return False
    request = AWSRequest(method, url, data=body or None, headers={name: headers[name] for name in named[1].split(";") if name in headers})
    request.context["timestamp"] = headers["X-Amz-Date"]
    signer = SigV4Auth(credentials, "execute-api", "us-east-1")
    canonical = signer.canonical_request(request)
    return authorization.endswith(f"Signature={signer.signature(signer.string_to_sign(request, canonical), request)}")


@contextmanager
def serving(execution: Call | None, control: Call, credentials: Credentials) -> Iterator[Gateway]:
    """Serve both handlers' calls (`tests.aws.conftest.through_gateway`) to who signs with `credentials`."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            path = parts.path.removeprefix(BASE)
            if gateway.down:
                status, answer = 503, {"message": "down"}
            elif not _is_signed(self.command, gateway.url + self.path, body, self.headers, credentials):
                status, answer = 403, {"message": "The request signature we calculated does not match"}
            else:
                handler = execution if (self.command, path) in EXECUTED or self.command == "DELETE" else control
                assert handler is not None, f"{self.command} {path} has no handler here"
                found = handler(self.command, path, body.decode() or None, dict(parse_qsl(parts.query)) or None)
                status, answer = found.status, found.body
            gateway.calls.append((self.command, path, status))
            gateway.after(self.command, path)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 -- the names that http.server calls

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    gateway = Gateway(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
