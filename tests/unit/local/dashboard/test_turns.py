"""The laptop's door: many requests at once reach a function that serves one at a time, as its sandbox on AWS does."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.types import Message, Scope

from local.dashboard.gateway import Tokens, create_app


def test_a_request_never_meets_another_inside_the_function() -> None:
    inside: list[str] = []
    met: list[str] = []

    def handler(event: dict[str, Any], _: Any) -> dict[str, Any]:
        met.extend(inside)
        inside.append(event["path"])
        time.sleep(0.005)
        inside.remove(event["path"])
        return {"statusCode": 200, "body": event["path"], "multiValueHeaders": {}}

    app = create_app(handler=handler, tokens=Tokens({"secret": ("read",)}), port=8000)

    async def ask(number: int) -> str:
        scope: Scope = {
            "type": "http", "method": "GET", "path": f"/v1/app/api/{number}", "raw_path": b"", "query_string": b"", "root_path": "",
            "headers": [(b"host", b"127.0.0.1:8000"), (b"authorization", b"Bearer secret")], "scheme": "http", "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
        }  # fmt: skip
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return b"".join(one.get("body", b"") for one in sent).decode()

    async def all_at_once() -> list[str]:
        return list(await asyncio.gather(*(ask(number) for number in range(20))))

    assert asyncio.run(all_at_once()) == [f"/app/api/{number}" for number in range(20)]
    assert met == []
