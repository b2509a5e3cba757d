"""The execution API's client at the socket: where it sends, that it signs, and when it repeats."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from lambdas.common.api.client import ExecutionApi, ExecutionApiError
from lambdas.common.environment import VariablesError
from schema.path_segment import identity_of

URL = "https://abc123.execute-api.us-east-1.amazonaws.com/v1"


@pytest.fixture
def gateway() -> Iterator[Any]:
    """A gateway that answers the statuses in `statuses`, the last for ever, and keeps method, path and headers."""
    state = SimpleNamespace(statuses=[200], got=[], url="")

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.got.append((self.command, self.path, dict(self.headers)))
            self.send_response(state.statuses.pop(0) if len(state.statuses) > 1 else state.statuses[0])
            self.end_headers()
            self.wfile.write(json.dumps({"state": "done"}).encode())

        do_GET = do_POST = do_PUT = _serve  # noqa: N815 -- the names that http.server calls

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def api(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> ExecutionApi:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-example")
    return ExecutionApi(url=URL, region="us-east-1", override=gateway.url, timeouts=(1.0, 1.0))


def test_a_decision_is_signed_and_sent_to_the_api_s_stage(api: ExecutionApi, gateway: Any) -> None:
    status, body = api.post_decision({"decision_id": "agent:2020-01-02/open+5"})
    ((method, path, headers),) = gateway.got
    assert (status, body) == (200, {"state": "done"})
    assert (method, path) == ("POST", "/restapis/abc123/v1/_user_request_/decisions")
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/us-east-1/execute-api/aws4_request" in headers["Authorization"]
    assert "secret-example" not in str(headers)


@pytest.mark.parametrize("identity", ["agent:2020-01-02/open+5", "flatten:2020-01-02#1", "manual:k.1", "..", "a~3Ab c%2F?", "größe"])
def test_an_id_is_one_segment_whose_signature_no_gateway_can_read_otherwise(api: ExecutionApi, gateway: Any, identity: str) -> None:
    """A path of unreserved characters is the same before and after any decoding, encoding or removal of dots: so is what is signed."""
    api.decision(identity)
    api.order(identity)
    for (_, path, _), folder in zip(gateway.got, ("decisions", "orders"), strict=True):
        base, _, segment = path.rpartition("/")
        assert base.endswith(f"/{folder}")
        assert re.fullmatch(r"[A-Za-z0-9_~-]+", segment)
        assert quote(unquote(path)) == path
        request = AWSRequest("GET", f"https://abc123.execute-api.us-east-1.amazonaws.com{path}")
        canonical = SigV4Auth(Credentials("AKIDEXAMPLE", "secret-example"), "execute-api", "us-east-1").canonical_request(request)
        assert canonical.splitlines()[1] == path, "what botocore signs is what is sent"
        assert identity_of(segment) == identity


def test_a_gateway_error_is_repeated_once(api: ExecutionApi, gateway: Any) -> None:
    gateway.statuses = [504, 200]
    assert api.post_decision({}).status == 200
    gateway.statuses, gateway.got = [504], []
    with pytest.raises(ExecutionApiError, match="504"):
        api.post_decision({})
    assert len(gateway.got) == 2


@pytest.mark.parametrize("status", [202, 403, 409, 422, 423, 500])
def test_an_answer_is_an_answer(api: ExecutionApi, gateway: Any, status: int) -> None:
    gateway.statuses = [status]
    assert api.post_decision({}).status == status
    assert len(gateway.got) == 1


def test_what_may_not_be_repeated_is_sent_once(api: ExecutionApi, gateway: Any) -> None:
    gateway.statuses = [503]
    with pytest.raises(ExecutionApiError):
        api.call("POST", "/orders", {})
    assert len(gateway.got) == 1


@pytest.mark.parametrize(
    ("url", "override"),
    [("http://abc.execute-api.us-east-1.amazonaws.com/v1", ""), ("https://example.org/v1", ""), (URL, "http://10.0.0.1")],
)
def test_no_other_address_is_accepted(url: str, override: str) -> None:
    with pytest.raises(VariablesError):
        ExecutionApi(url=url, region="us-east-1", override=override)


def test_nan_never_leaves(api: ExecutionApi, gateway: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        api.post_decision({"weights": {"SPY": float("nan")}})
    assert gateway.got == []
