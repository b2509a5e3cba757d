"""The web app's function in this process, over the ledger, the lake and the execution API of these tests, as its gateway calls it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from lambdas.common.ledger import actions
from lambdas.common.ledger.ledger import Ledger
from lambdas.dashboard.handler import handler, shared
from schema.settings import SETTINGS_FILE, Settings
from tests.aws.conftest import settings_file
from tests.aws.gateway import Gateway, serving

ALL = ("read", "trade", "approve")
NOW = "2020-01-02T15:00:00Z"


@dataclass(frozen=True)
class WebAnswer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)


class Web:
    """A browser's calls, signed in as `user` with `scopes`."""

    def __init__(self, *, user: str = "anna", scopes: tuple[str, ...] = ALL, now: str = NOW) -> None:
        self._claims = {"sub": user, "username": user, "scope": " ".join(f"papertape/{one}" for one in scopes)}
        self._now = int(datetime.fromisoformat(now).astimezone(UTC).timestamp() * 1000)

    def as_user(self, user: str = "anna", *, scopes: tuple[str, ...] = ALL, now: str = NOW) -> Web:
        return Web(user=user, scopes=scopes, now=now)

    def get(self, path: str, query: dict[str, str] | None = None, **headers: str) -> WebAnswer:
        return self.call("GET", path, query=query, headers=headers)

    def post(self, path: str, body: Any, *, key: str = "") -> WebAnswer:
        return self.call("POST", path, body=body, headers={"Idempotency-Key": key} if key else {})

    def call(
        self, method: str, path: str, *, body: Any = None, query: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> WebAnswer:
        """`path` below /app/, as `api/portfolio`."""
        sent = {"Content-Type": "application/json", **(headers or {})}
        event = {
            "resource": "/app/{proxy+}",
            "path": f"/app/{path}",
            "httpMethod": method,
            "headers": sent,
            "multiValueHeaders": {name: [value] for name, value in sent.items()},
            "queryStringParameters": query,
            "multiValueQueryStringParameters": None if query is None else {name: [value] for name, value in query.items()},
            "requestContext": {
                "stage": "v1",
                "path": f"/v1/app/{path}",
                "requestTimeEpoch": self._now,
                "authorizer": {"claims": self._claims},
            },
            "body": body if body is None or isinstance(body, str) else json.dumps(body),
            "isBase64Encoded": False,
        }
        found = handler(event, SimpleNamespace(aws_request_id="test"))
        headers_of = {name: ", ".join(values) for name, values in (found.get("multiValueHeaders") or {}).items()}
        return WebAnswer(int(found["statusCode"]), headers_of | (found.get("headers") or {}), found["body"])


@pytest.fixture
def web(ledger_table: Ledger, buckets: SimpleNamespace, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Web:
    """Over an empty ledger and an empty lake; whoever needs the execution API adds `execution_api`."""
    actions.actions_of.cache_clear()
    shared.forget()
    monkeypatch.setenv("PACKAGE_GROUP", settings.name)
    monkeypatch.setenv("UPLOADS", "/uploads/")
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings))
    return Web()


@pytest.fixture
def execution_api(execution: Callable[..., Any], control: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """The execution API that the web app orders through, before the real handlers and the exchange."""
    with serving(execution, control, boto3.Session().get_credentials()) as gateway:  # those that the mocked AWS gives this process
        monkeypatch.setenv("EXECUTION_API_URL", "https://abcdefgh.execute-api.us-east-1.amazonaws.com/v1")
        monkeypatch.setenv("AWS_ENDPOINT_URL_EXECUTE_API", gateway.url)
        yield gateway
