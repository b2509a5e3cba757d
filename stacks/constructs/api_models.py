"""Request models of the execution API. They document the bodies; the functions validate them, and say which field is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from aws_cdk import aws_apigateway as apigateway

Schema: TypeAlias = apigateway.JsonSchema
Kind = apigateway.JsonSchemaType

TEXT = Schema(type=Kind.STRING)
DIGEST = Schema(type=Kind.STRING, pattern="^[0-9a-f]{64}$")
SHARE = Schema(type=Kind.NUMBER, minimum=0, maximum=1)


def _model(api: apigateway.RestApi, name: str, description: str, properties: Mapping[str, Schema], **optional: Schema) -> apigateway.Model:
    schema = Schema(
        schema=apigateway.JsonSchemaVersion.DRAFT4,
        title=name,
        type=Kind.OBJECT,
        properties={**properties, **optional},
        required=list(properties),
        additional_properties=False,
    )
    return api.add_model(name, model_name=name, description=description, content_type="application/json", schema=schema)


def decision_model(api: apigateway.RestApi) -> apigateway.Model:
    weights = Schema(type=Kind.OBJECT, additional_properties=SHARE, description="symbol: share of equity; the sum is at most 1")
    texts = dict.fromkeys(("decision_id", "slot", "strategy", "model_version"), TEXT)
    session = Schema(type=Kind.STRING, format="date", description="the session whose close was observed")
    hashes = {"feature_hash": DIGEST, "observation_hash": DIGEST}
    scores = Schema(type=Kind.OBJECT, additional_properties=Schema(type=Kind.NUMBER), description="symbol: what the policy said; kept")
    required = {**texts, "data_as_of": session, "weights": weights, **hashes}
    return _model(api, "Decision", "Target weights of one slot", required, scores=scores)


def order_model(api: apigateway.RestApi) -> apigateway.Model:
    side = Schema(type=Kind.STRING, enum=["buy", "sell"])
    quantity = Schema(type=Kind.STRING, pattern=r"^\d+(\.\d{1,9})?$", description="shares, at most nine decimals")
    return _model(api, "ManualOrder", "One market order", {"key": TEXT, "symbol": TEXT, "side": side, "quantity": quantity})


def trading_state_model(api: apigateway.RestApi) -> apigateway.Model:
    state = Schema(type=Kind.STRING, enum=["active", "reduce_only", "halted"])
    seen = Schema(type=Kind.INTEGER, minimum=0, description="of the state that the caller has seen: 409 if it has changed since")
    account = Schema(
        type=Kind.STRING, description="with active: the broker's account that this app goes on with, after another one halted it"
    )
    return _model(api, "TradingState", "Who may trade, and why", {"state": state, "reason": TEXT}, version=seen, account=account)


def flatten_model(api: apigateway.RestApi) -> apigateway.Model:
    return _model(api, "Flatten", "Sell every position", {"reason": TEXT})
