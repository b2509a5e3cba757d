"""The laptop's door: who is served, with which headers, and what the function is told of a request."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import pytest
from starlette.types import Message, Scope

from local.dashboard import gateway
from local.dashboard.gateway import Tokens, create_app

OWN = {"host": "127.0.0.1:8000"}
SIGNED_IN = {**OWN, "authorization": "Bearer secret"}


class DoorAnswer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Door:
    """The application, asked without a socket; `events` are what its function was told."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.app = create_app(handler=self._handler, tokens=Tokens({"secret": ("read", "trade"), "guest": ("read",)}), port=8000)

    def _handler(self, event: dict[str, Any], _: Any) -> dict[str, Any]:
        self.events.append(event)
        return {"statusCode": 200, "body": "{}", "multiValueHeaders": {"Cache-Control": ["private, no-cache"]}}

    def ask(self, path: str, *, method: str = "GET", headers: dict[str, str] = SIGNED_IN, query: str = "", body: bytes = b"") -> DoorAnswer:
        scope: Scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()], "scheme": "http", "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
        }  # fmt: skip
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        told = {name.decode(): value.decode() for name, value in sent[0].get("headers", ())}
        return DoorAnswer(sent[0]["status"], told, b"".join(one.get("body", b"") for one in sent))


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8000"},
        {"host": "127.0.0.1:8001"},
        {"host": "127.0.0.1"},
        {},
        {**OWN, "origin": "https://evil.example"},
        {**OWN, "origin": "http://127.0.0.1:8001"},
        {**OWN, "origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/config.json", "/v1/app/api/portfolio"])
def test_another_name_or_another_sites_page_is_not_served(door: Door, path: str, headers: dict[str, str]) -> None:
    assert door.ask(path, headers={"authorization": "Bearer secret", **headers}).status == 421
    assert door.events == []


@pytest.mark.parametrize("headers", [OWN, {"host": "localhost:8000"}, {**OWN, "origin": "http://localhost:8000"}])
def test_this_machines_own_names_are_served_with_every_header_of_defence(door: Door, headers: dict[str, str]) -> None:
    for path in ("/", "/config.json", "/assets/app.js", "/assets/..%2Fapp.py", "/v1/app/api/portfolio"):
        told = door.ask(path, headers=headers).headers
        policy = dict(part.strip().split(" ", 1) for part in told["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["script-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'"), path
        assert "unsafe" not in told["content-security-policy"]
        assert (told["x-content-type-options"], told["referrer-policy"]) == ("nosniff", "no-referrer")
        assert told["cross-origin-opener-policy"] == told["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("given", ["", "secret", "Bearer", "Bearer guessed", "Basic secret", "Bearer sécret", "Bearer secret,guest"])
def test_without_a_token_of_ours_the_function_is_not_asked(door: Door, given: str) -> None:
    answer = door.ask("/v1/app/api/portfolio", headers={**OWN, "authorization": given})
    assert (answer.status, json.loads(answer.body)) == (401, {"message": "Unauthorized"})
    assert door.events == []


def test_the_function_is_told_the_scopes_of_the_token_and_never_the_token(door: Door) -> None:
    door.ask("/v1/app/api/orders", headers={**OWN, "authorization": "Bearer guest"}, query="month=2020-01&a=1&a=2")
    (event,) = door.events
    assert event["requestContext"]["authorizer"]["claims"] == {"sub": "laptop", "username": "laptop", "scope": "papertape/read"}
    assert "guest" not in json.dumps(event)
    assert (event["path"], event["multiValueQueryStringParameters"]) == ("/app/api/orders", {"month": ["2020-01"], "a": ["1", "2"]})


def test_a_body_beyond_a_functions_event_is_refused(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "BODY_LIMIT", 10)
    assert door.ask("/v1/app/api/orders", method="POST", body=b"x" * 11).status == 413
    assert door.events == []
    assert door.ask("/v1/app/api/orders", method="POST", body=b"x" * 10).status == 200


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_do_not_reach_the_function(door: Door, method: str) -> None:
    answer = door.ask("/v1/app/api/portfolio", method=method)
    assert (answer.status == 405) == (method != "HEAD")
    assert door.events == [] or method == "HEAD"
