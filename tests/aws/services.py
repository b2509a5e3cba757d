"""AWS's services at a loopback address, for what does not run in this process: each call is answered by the test and remembered."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

#: From an operation's name (the path, where the service has no names) and its request to status and document; XML where it is text.
Answering = Callable[[str, Any], tuple[int, Any]]


@dataclass
class Service:
    url: str
    calls: list[tuple[str, Any]] = field(default_factory=list)


@contextmanager
def answering(answer: Answering) -> Iterator[Service]:
    """Serve until the block ends; a status of 400 and above carries its error code in `__type`."""
    service = Service("")

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            if "Action=" in content:
                request: Any = {name: values[0] for name, values in parse_qs(content).items()}
                operation = request["Action"]
            else:
                request = json.loads(content or "{}")
                operation = str(self.headers.get("X-Amz-Target", self.path)).rpartition(".")[2]
            service.calls.append((operation, request))
            status, document = answer(operation, request)
            body = (document if isinstance(document, str) else json.dumps(document)).encode()
            self.send_response(status)
            if status >= 400 and not isinstance(document, str):
                self.send_header("x-amzn-errortype", document["__type"])
            if "errorMessage" in document:
                self.send_header("X-Amz-Function-Error", "Unhandled")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET = _serve  # noqa: N815 -- the names are the server's

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Stacks:
    """CloudFormation as far as an operator asks it: `deployed` is stack -> outputs, `stuck` are the stacks that do not go, and why."""

    deployed: dict[str, dict[str, str]] = field(default_factory=dict)
    status: str = "CREATE_COMPLETE"
    stuck: dict[str, str] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    on_delete: Callable[[str], None] = lambda _name: None

    def answer(self, operation: str, request: Any) -> tuple[int, str]:
        name = request["StackName"]
        if operation == "DeleteStack":
            self.on_delete(name)
            self.deleted.append(name)
            if name not in self.stuck:
                self.deployed.pop(name, None)
            return 200, "<DeleteStackResponse/>"
        if operation == "DescribeStackEvents":
            event = f"<LogicalResourceId>Thing</LogicalResourceId><ResourceStatusReason>{self.stuck[name]}</ResourceStatusReason>"
            return 200, self._response(
                operation, f"<StackEvents><member>{event}{_status('ResourceStatus', 'DELETE_FAILED')}</member></StackEvents>"
            )
        if name not in self.deployed:
            told = f"<Code>ValidationError</Code><Message>Stack with id {name} does not exist</Message>"
            return 400, f"<ErrorResponse><Error>{told}</Error></ErrorResponse>"
        outputs = "".join(
            f"<member><OutputKey>{key}</OutputKey><OutputValue>{escape(value)}</OutputValue></member>"
            for key, value in self.deployed[name].items()
        )
        state = "DELETE_FAILED" if name in self.stuck and name in self.deleted else self.status
        stack = f"<StackName>{name}</StackName>{_status('StackStatus', state)}<Outputs>{outputs}</Outputs>"
        return 200, self._response(operation, f"<Stacks><member>{stack}</member></Stacks>")

    @staticmethod
    def _response(operation: str, result: str) -> str:
        return f"<{operation}Response><{operation}Result>{result}</{operation}Result></{operation}Response>"


def _status(name: str, value: str) -> str:
    return f"<{name}>{value}</{name}>"
