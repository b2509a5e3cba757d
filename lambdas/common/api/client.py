"""The execution API's client: every call signed (SigV4, service execute-api), with timeouts, JSON in and out.

`call` returns the status and body of whatever the API answered, or raises `ExecutionApiError` when no answer came: what happened then is
unknown, and the same decision may be sent again, because the API accepts a decision id once. A repeat after a gateway error (502, 503,
504) or a lost connection is made once, for idempotent requests only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import boto3
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from lambdas.common.environment import Variables, VariablesError, read
from schema.loopback import is_loopback
from schema.path_segment import segment_of
from trading_env.errors import PapertapeError

TIMEOUTS = (3.0, 35.0)
GATEWAY_ERRORS = frozenset({502, 503, 504})


class ExecutionApiError(PapertapeError, RuntimeError):
    """No answer came; whether the API acted is unknown."""


class ExecutionApiVariables(Variables):
    execution_api_url: str
    aws_region: str = "us-east-1"
    aws_endpoint_url_execute_api: str = ""


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]


class ExecutionApi:
    """Calls the API at `url` (https://<id>.execute-api.<region>.amazonaws.com/<stage>), or at `override` on this machine.

    It signs with the credentials of `session` (default: those of this process's environment or role).
    """

    def __init__(
        self, *, url: str, region: str, override: str = "", timeouts: tuple[float, float] = TIMEOUTS, session: boto3.Session | None = None
    ) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme != "https" or not host.endswith(".amazonaws.com"):
            raise VariablesError(f"EXECUTION_API_URL must be https://<id>.execute-api.<region>.amazonaws.com/<stage>, was {url}")
        if override and not is_loopback(override):
            raise VariablesError(f"AWS_ENDPOINT_URL_EXECUTE_API may only point to this machine, was {override}")
        stage = parts.path.strip("/")
        local = f"{override.rstrip('/')}/restapis/{host.split('.')[0]}/{stage}/_user_request_"
        self._base = local if override else f"https://{host}/{stage}"
        self._region = region
        self._timeouts = timeouts
        self._aws = session or boto3.Session()
        self._http = requests.Session()
        self._http.trust_env = False

    def post_decision(self, body: Mapping[str, Any]) -> Answer:
        return self.call("POST", "/decisions", body, repeat=True)

    def decision(self, decision_id: str) -> Answer:
        return self.call("GET", f"/decisions/{segment_of(decision_id)}", repeat=True)

    def order(self, order_id: str) -> Answer:
        return self.call("GET", f"/orders/{segment_of(order_id)}", repeat=True)

    def orders(self, month: str, *, cursor: str | None = None) -> Answer:
        """One page of the orders of a month, the oldest first."""
        query = {"month": month, "limit": "500"} | ({} if cursor is None else {"cursor": cursor})
        return self.call("GET", f"/orders?{urlencode(sorted(query.items()))}", repeat=True)

    def status(self) -> Answer:
        return self.call("GET", "/status", repeat=True)

    def flatten(self, reason: str) -> Answer:
        """A flatten that works is continued, and one of nothing does nothing, so it may be repeated."""
        return self.call("POST", "/flatten", {"reason": reason}, repeat=True)

    def halt(self, reason: str) -> Answer:
        return self.call("PUT", "/trading-state", {"state": "halted", "reason": reason}, repeat=True)

    def resume(self, reason: str, *, seen: int, account: str | None = None) -> Answer:
        """Set the state that was `seen` in that version to active, for `account` if given; 409 if it has changed since. Sent once."""
        body = {"state": "active", "reason": reason, "version": seen}
        return self.call("PUT", "/trading-state", body if account is None else {**body, "account": account})

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, repeat: bool = False) -> Answer:
        """Send one request, signed; `repeat` allows the one repeat described above."""
        data = None if body is None else json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        problem = ""
        for _ in range(2 if repeat else 1):
            try:
                response = self._send(method, self._base + path, data)
            except requests.RequestException as error:
                problem = type(error).__name__
                continue
            if response.status_code not in GATEWAY_ERRORS:
                return Answer(response.status_code, _object(response))
            problem = f"{response.status_code}: {_object(response)}"
        raise ExecutionApiError(f"{method} {path}: no answer ({problem}); the same request may be sent again")

    def _send(self, method: str, url: str, data: bytes | None) -> requests.Response:
        request = AWSRequest(method=method, url=url, data=data, headers={"Content-Type": "application/json"})
        SigV4Auth(self._aws.get_credentials(), "execute-api", self._region).add_auth(request)
        return self._http.request(method, url, data=data, headers=dict(request.headers), timeout=self._timeouts, allow_redirects=False)


def _object(response: requests.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except requests.JSONDecodeError:
        return {"message": response.text[:300]}
    return body if isinstance(body, dict) else {"message": str(body)[:300]}


def execution_api_from_environment() -> ExecutionApi:
    """Return the client for EXECUTION_API_URL."""
    variables = read(ExecutionApiVariables)
    return ExecutionApi(url=variables.execution_api_url, region=variables.aws_region, override=variables.aws_endpoint_url_execute_api)
