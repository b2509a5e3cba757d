"""botocore and moto without what they do anew each time: a test asks AWS in process a hundred times, and most of its second was this."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import botocore.loaders
import botocore.session
import pytest
from moto.core import responses
from moto.core.responses import ActionContext, ActionResult

#: Calls to DynamoDB whose answers hold nothing but attribute values and names.
HOT = frozenset({"GetItem", "BatchGetItem", "Query", "PutItem", "UpdateItem", "DeleteItem", "Scan", "TransactWriteItems"})

_loader = cache(botocore.loaders.create_loader)
_method_names = cache(responses.method_names_from_class)


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Read each service's model once per process, look through moto's classes once, and let DynamoDB's answers go as they are.

    moto gives each test a new session, and a session reads the models of its services anew: a third of a second per test.
    """
    patch.setattr(botocore.session, "create_loader", _loader)
    patch.setattr(responses, "method_names_from_class", _method_names)
    patch.setattr(ActionResult, "execute_result", _printed(ActionResult.execute_result))


def _printed(execute: Callable[[ActionResult, ActionContext], Any]) -> Callable[[ActionResult, ActionContext], Any]:
    """moto's serializer without the detour: what its DynamoDB answers is already in the wire's form, and a third of each call is
    looking."""

    def printed(result: ActionResult, context: ActionContext) -> Any:
        if (
            context.operation_model.name not in HOT
            or context.service_model.service_name != "dynamodb"
            or not isinstance(result.result, dict)
        ):
            return execute(result, context)
        return 200, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(result.result)

    return printed
