"""The execution function behind the API: POST /decisions, POST /orders, DELETE /orders/{id}, POST /flatten.

A wrong body is a 422 that names the field. A broker or ledger that cannot be read is a 503, and the same request may be sent again. Every
other error leaves the function as an error, so that its alarm speaks.
"""

from __future__ import annotations

import time
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from lambdas.common import environment
from lambdas.common.api.caller import caller, requested_at
from lambdas.common.api.responses import answer, refusals
from lambdas.common.broker.connection import broker_from_environment, market_data_from_environment
from lambdas.common.broker.port import BrokerError
from lambdas.common.ledger.ledger import ledger_from_environment
from lambdas.common.orders.execution_context import ExecutionContext
from lambdas.common.telemetry import entry, logger
from lambdas.execute_orders import service
from schema.api_requests import DecisionRequest, FlattenRequest, OrderRequest, parse
from schema.path_segment import identity_of
from schema.settings import deployed

app = APIGatewayRestResolver()


class ExecutionVariables(environment.TimeBudget):
    """The budget leaves room before the gateway gives up, at 29 s."""

    code_version: str = "unknown"


@app.post("/decisions")
def post_decision() -> Response[str]:
    request = parse(DecisionRequest, app.current_event.body, settings=deployed())
    return answer(*service.accept_decision(request, _context()))


@app.post("/orders")
def post_order() -> Response[str]:
    request = parse(OrderRequest, app.current_event.body, settings=deployed())
    return answer(*service.accept_order(request, _context()))


@app.delete("/orders/<order_id>")
def delete_order(order_id: str) -> Response[str]:
    return answer(*service.cancel_order(identity_of(order_id), _context()))


@app.post("/flatten")
def post_flatten() -> Response[str]:
    request = parse(FlattenRequest, app.current_event.body, settings=deployed())
    asked = app.current_event["requestContext"]
    return answer(*service.flatten(request, _context(), by=caller(asked), time=requested_at(asked)))


@app.exception_handler(ValidationError)  # type: ignore[untyped-decorator]  # Powertools does not type it
def wrong_body(error: ValidationError) -> Response[str]:
    return answer(422, refusals(error))


@app.exception_handler([BrokerError, ClientError, BotoCoreError])  # type: ignore[untyped-decorator]
def not_now(error: Exception) -> Response[str]:
    """Everything is stored that must be; what cannot be read or written now stops the request, and no order goes out in doubt."""
    logger.error("unavailable", extra={"error": str(error), "kind": type(error).__name__})
    return answer(503, {"message": f"{type(error).__name__}: {error}; send the same request again"})


def _context() -> ExecutionContext:
    variables = environment.read(ExecutionVariables)
    return ExecutionContext(
        ledger=ledger_from_environment(),
        broker=broker_from_environment(),
        market_data=market_data_from_environment(),
        settings=deployed(),
        owner=str(app.context["owner"]),
        code_version=variables.code_version,
        budget=variables,
        started=float(app.context["started"]),
        monotonic=time.monotonic,
        wall=time.time,
        sleep=time.sleep,
    )


@entry
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    app.context.update(started=time.monotonic(), owner=getattr(context, "aws_request_id", "unknown"))
    return app.resolve(event, context)
