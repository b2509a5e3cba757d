"""The control function behind the API: the trading state, and what the ledger tells. It imports no broker client and waits for no batch.

GET /status, GET and PUT /trading-state, GET /portfolio, GET /orders?month=YYYY-MM[&cursor=][&limit=], and with their `trace` (trace.py)
GET /orders/{id} and GET /decisions/{id}, which also say why the model wanted it (`explained`), a decision also
what a model that watches would have done (`watched`). A wrong body or query is a 422 that names
the field; a ledger that cannot be read is a 503. Setting the state to `active` re-arms the breakers, and with an `account` this app goes
on with that one; every change is kept with its reason, its time, who asked and what it re-armed. A change that names the `version` it
has seen is a 409 when the state has changed since.
"""

from __future__ import annotations

from typing import Annotated, Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lambdas.common.api.caller import caller, requested_at
from lambdas.common.api.responses import answer, refusals, shown_decision, shown_order
from lambdas.common.environment import Variables, read
from lambdas.common.lake.audit import AuditBucket
from lambdas.common.lake.provenance import default_registry
from lambdas.common.ledger.ledger import CursorError, Stale, ledger_from_environment
from lambdas.common.orders.execution_cost import closes_of, session_of
from lambdas.common.telemetry import entry, logger
from lambdas.control.status import status_of
from lambdas.control.trace import Tracer
from schema.api_requests import StateRequest
from schema.path_segment import identity_of
from schema.settings import deployed

app = APIGatewayRestResolver()


class ControlVariables(Variables):
    audit_bucket: str
    code_version: str = "unknown"


class OrdersQuery(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    month: Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
    cursor: str | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100


@app.get("/status")
def get_status() -> Response[str]:
    return answer(200, status_of(ledger_from_environment(), settings=deployed(), now=requested_at(app.current_event["requestContext"])))


@app.get("/trading-state")
def get_trading_state() -> Response[str]:
    ledger = ledger_from_environment()
    state = ledger.trading_state().model_dump(mode="json", exclude_none=True)
    return answer(200, {**state, "breakers": ledger.breakers().tripped})


@app.put("/trading-state")
def put_trading_state() -> Response[str]:
    request = StateRequest.model_validate_json(app.current_event.body or "")
    ledger, context = ledger_from_environment(), app.current_event["requestContext"]
    state = ledger.set_trading_state(
        request.state,
        reason=request.reason,
        time=requested_at(context),
        by=caller(context),
        expected=request.version,
        account=request.account,
    )
    logger.info("trading state", extra={"state": state.state, "reason": state.reason})
    return answer(200, state.model_dump(mode="json", exclude_none=True))


@app.get("/portfolio")
def get_portfolio() -> Response[str]:
    """The last closing snapshot, and what has not settled since."""
    ledger = ledger_from_environment()
    snapshot = ledger.latest_snapshot()
    return answer(
        200,
        {
            "snapshot": None if snapshot is None else snapshot.model_dump(mode="json"),
            "unsettled": [shown_order(order) for order in ledger.unsettled_orders()],
            "trading_state": ledger.trading_state().state,
        },
    )


@app.get("/orders")
def get_orders() -> Response[str]:
    query = OrdersQuery.model_validate(app.current_event.query_string_parameters or {})
    page = ledger_from_environment().page_of_orders(query.month, limit=query.limit, cursor=query.cursor)
    return answer(200, {"orders": [shown_order(order) for order in page.orders], "cursor": page.cursor})


@app.get("/orders/.+")
def get_order() -> Response[str]:
    order_id = identity_of(app.current_event.path.partition("/orders/")[2])
    if "/" in order_id:
        return answer(404, {"message": f"no order {order_id}: an order's id has no slash; GET /decisions/{{id}} shows a decision"})
    ledger = ledger_from_environment()
    order = ledger.order(order_id)
    if order is None:
        return answer(404, {"message": f"no order {order_id}"})
    fills, tracer = ledger.fills_of(order_id), _tracer()
    decision = ledger.decision(order.decision_id)
    trace = tracer.order(order, fills) + tracer.decision(decision, decision_id=order.decision_id)
    shown = {**shown_order(order), "fills": [fill.model_dump(mode="json") for fill in fills]}
    if decision is not None:
        (explained,) = tracer.explained(decision)
        shown["explained"] = explained.of(order.symbol).model_dump(mode="json")
    return answer(200, {**shown, "trace": [link.shown() for link in trace]})


@app.get("/decisions/.+")  # not <id>: a decision id holds a slash, which gateways may have decoded
def get_decision() -> Response[str]:
    decision_id = identity_of(app.current_event.path.partition("/decisions/")[2])
    ledger = ledger_from_environment()
    decision = ledger.decision(decision_id)
    if decision is None:
        return answer(404, {"message": f"no decision {decision_id}"})
    orders = ledger.orders_by_id([planned.client_order_id for planned in decision.plan or ()])
    tracer, closes = _tracer(), closes_of(ledger.snapshot(session_of(decision)))
    trace = tracer.decision(decision, decision_id=decision_id)
    made, *watched = (one.model_dump(mode="json") for one in tracer.explained(decision, ledger.shadow_decisions_in(decision.slot)))
    found = {"explained": made, "watched": watched, "trace": [link.shown() for link in trace]}
    return answer(200, {**shown_decision(decision, orders, closes=closes), **found})


@app.exception_handler(ValidationError)  # type: ignore[untyped-decorator]  # Powertools does not type it
def wrong_request(error: ValidationError) -> Response[str]:
    return answer(422, refusals(error))


@app.exception_handler(CursorError)  # type: ignore[untyped-decorator]
def wrong_cursor(error: CursorError) -> Response[str]:
    return answer(422, {"errors": [{"field": "cursor", "value": "", "allowed": str(error)}]})


@app.exception_handler(Stale)  # type: ignore[untyped-decorator]
def changed_since(error: Stale) -> Response[str]:
    return answer(409, {"message": f"{error}; look at it again"})


@app.exception_handler([ClientError, BotoCoreError])  # type: ignore[untyped-decorator]
def not_now(error: Exception) -> Response[str]:
    logger.error("unavailable", extra={"error": str(error), "kind": type(error).__name__})
    return answer(503, {"message": f"{type(error).__name__}: {error}; send the same request again"})


def _tracer() -> Tracer:
    variables, registry = read(ControlVariables), default_registry()
    audit = AuditBucket(s3=registry.s3, name=variables.audit_bucket)
    return Tracer(audit=audit, registry=registry, code_version=variables.code_version)


@entry
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return app.resolve(event, context)
