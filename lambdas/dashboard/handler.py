"""The web app behind the API: JSON below /app/api, fragments of HTML below /app/pages, both from the same view models.

The gateway has checked who asks (`principal`). A wrong body or query is a 422 that names the field, a missing scope a 403, a reused key a
409, what cannot be read now a 503. Answers to GET carry an ETag, and are a 304 where the caller has the same. The OpenAPI document is
GET /app/api/openapi.json.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from lambdas.common.api.client import ExecutionApiError
from lambdas.common.api.responses import answer, refusals
from lambdas.common.lake.lake import LakeError
from lambdas.common.ledger.item import LedgerCorrupt
from lambdas.common.ledger.ledger import CursorError
from lambdas.common.registry.approval import ModelActionError
from lambdas.common.telemetry import entry, logger
from lambdas.dashboard import decisions, health, models, news, portfolio, trading
from lambdas.dashboard.principal import ScopeError
from lambdas.dashboard.request import PageRequest
from lambdas.dashboard.runs import api as runs_api
from lambdas.dashboard.runs import simulation, training, uploads
from lambdas.dashboard.shared_answers import SharedAnswers
from lambdas.dashboard.writes import KeyReusedError, WriteError
from schema.runs.status import RunEventsError

app = APIGatewayRestResolver(enable_validation=True, strip_prefixes=["/app"])
shared = SharedAnswers()
for module in (decisions, portfolio, trading, news, health, models, runs_api, training, simulation, uploads):
    app.include_router(module.router)


@app.get("/api/openapi.json", include_in_schema=False)
def get_openapi() -> Response[str]:
    return Response(status_code=200, content_type="application/json", body=openapi())


def openapi() -> str:
    """The document of every route below /app/api."""
    document = json.loads(app.get_openapi_json_schema(title="Papertape", version="1", description="What the web app reads and writes"))
    document["paths"] = {f"/app{path}": routes for path, routes in document["paths"].items() if path.startswith("/api/")}
    document["servers"] = [{"url": "/v1"}]
    return json.dumps(document)


@app.exception_handler(ValidationError)  # type: ignore[untyped-decorator]  # Powertools does not type it
def wrong_request(error: ValidationError) -> Response[str]:
    return answer(422, refusals(error))


@app.exception_handler(RequestValidationError)  # type: ignore[untyped-decorator]
def wrong_parameters(error: RequestValidationError) -> Response[str]:
    fields = [
        {"field": ".".join(map(str, one["loc"])), "value": repr(one.get("input", ""))[:200], "allowed": str(one.get("msg", one["type"]))}
        for one in error.errors()
    ]
    return answer(422, {"errors": fields})


@app.exception_handler([WriteError, CursorError, ModelActionError])  # type: ignore[untyped-decorator]
def refused(error: Exception) -> Response[str]:
    return answer(422, {"message": str(error)})


@app.exception_handler(ScopeError)  # type: ignore[untyped-decorator]
def not_allowed(error: ScopeError) -> Response[str]:
    return answer(403, {"message": str(error)})


@app.exception_handler(KeyReusedError)  # type: ignore[untyped-decorator]
def reused(error: KeyReusedError) -> Response[str]:
    return answer(409, {"message": str(error)})


@app.exception_handler([ExecutionApiError, ClientError, BotoCoreError, LakeError, LedgerCorrupt, RunEventsError])  # type: ignore[untyped-decorator]
def not_now(error: Exception) -> Response[str]:
    logger.error("unavailable", extra={"error": str(error), "kind": type(error).__name__})
    return answer(503, {"message": f"{type(error).__name__}: {error}; send the same request again"})


@app.not_found
def not_found(error: NotFoundError) -> Response[str]:  # noqa: ARG001
    return answer(404, {"message": f"there is no {app.current_event.http_method} {app.current_event.path}"})


@entry
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    if (problem := _unreadable(event)) is not None:
        return {"statusCode": 422, "headers": {"Content-Type": "application/json"}, "body": json.dumps({"message": problem})}
    try:
        request = PageRequest.of_event(event)
    except ScopeError as error:
        return {"statusCode": 403, "headers": {"Content-Type": "application/json"}, "body": json.dumps({"message": str(error)})}
    response = shared.of(event, request.principal)
    if response is None:
        app.append_context(request=request)  # type: ignore[no-untyped-call]
        response = app.resolve(event, context)
        shared.keep(event, request.principal, response)
    return _with_etag(event, response)


def _unreadable(event: dict[str, Any]) -> str | None:
    """Powertools takes the first of a list for the body, and lets out as an error what Python's JSON cannot read: neither gets there."""
    body = event.get("body")
    if not body:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        return f"the body must be a JSON object: {error}"
    return None if isinstance(document, dict) else f"the body must be a JSON object, was {type(document).__name__}"


def _with_etag(event: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    headers = response.setdefault("multiValueHeaders", {})
    headers.setdefault("Cache-Control", ["private, no-cache"])
    if event["httpMethod"] != "GET" or int(response["statusCode"]) != 200:
        return response
    etag = f'"{hashlib.sha256(str(response["body"]).encode()).hexdigest()[:32]}"'
    headers["ETag"] = [etag]
    given = {name.lower(): value for name, value in (event.get("headers") or {}).items()}.get("if-none-match", "")
    if etag in [one.strip().removeprefix("W/") for one in given.split(",")]:
        return {**response, "statusCode": 304, "body": ""}
    return response
