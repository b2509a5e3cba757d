"""An AWS operation that no emulator implements, answered in process by the service's own model as botocore carries it.

Requests are checked by botocore before they get here, as they are before they leave; answers are checked against the model's output shape,
so that a test cannot invent a field. What the model does not say, limits above all, is the answer's to enforce, as the service does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import boto3
from botocore.validate import validate_parameters


class Refusal(Exception):  # noqa: N818 -- an outcome
    """The service answers with this error code."""

    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(code)
        self.code, self.status = code, status


class ContractStub:
    """`client` answers `operation` with what `answer` returns for its parameters; `requests` are those that arrived."""

    def __init__(self, service: str, operation: str, answer: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        self.requests: list[Mapping[str, Any]] = []
        self._answer = answer
        self.client = boto3.client(service, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
        self._output = self.client.meta.service_model.operation_model(operation).output_shape
        self.client.meta.events.register(f"before-parameter-build.{service}.{operation}", self._arrives)
        self.client.meta.events.register(f"before-call.{service}.{operation}", self._answers)

    def _arrives(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["params"] = params

    def _answers(self, context: dict[str, Any], **_: Any) -> tuple[Any, dict[str, Any]]:
        params = context["params"]
        self.requests.append(params)
        try:
            answer = dict(self._answer(params))
        except Refusal as refusal:
            return SimpleNamespace(status_code=refusal.status), {"Error": {"Code": refusal.code, "Message": "no"}, "ResponseMetadata": {}}
        validate_parameters(answer, self._output)
        return SimpleNamespace(status_code=200), answer
