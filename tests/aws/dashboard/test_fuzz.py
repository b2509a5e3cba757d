"""Requests that schemathesis makes from the web app's own OpenAPI document, right ones and wrong ones: each is answered, none by a 5xx."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode

from lambdas.dashboard.handler import openapi
from tests.aws.dashboard.conftest import Web
from tests.aws.gateway import Gateway

DOCUMENT = json.loads(openapi())
OPERATIONS = [found.ok() for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()]
EXAMPLES = settings(max_examples=12, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method.upper()} {one.path}")
def test_no_request_makes_the_function_fail(operation: Any, web: Web, execution_api: Gateway) -> None:
    @seed(13)
    @EXAMPLES
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE) | operation.as_strategy())
    def asked(case: Any) -> None:
        query = {name: str(value) for name, value in (case.query or {}).items()} or None
        headers = {name: str(value) for name, value in (case.headers or {}).items() if str(value).isprintable()}
        body = case.body if isinstance(case.body, dict | list | str | int | float) else None
        found = web.call(case.method, case.formatted_path.removeprefix("/app/"), body=body, query=query, headers=headers)
        assert found.status < 500, found.text
        assert found.status in (304, 404) or found.text, "nothing was answered"

    asked()
