"""The gateway's request models say of a body what the functions' Pydantic models say, as far as draft 04 can."""

from __future__ import annotations

import json
from typing import Annotated, Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_apigateway as apigateway
from jsonschema import Draft4Validator
from pydantic import Field, ValidationError

from schema.api_requests import Body, parse
from schema.settings import Settings
from stacks.constructs import api_models
from tests.infrastructure.assembly import Assembly

DECISION = {
    "slot": "2020-01-02/open+5",
    "strategy": "agent",
    "decision_id": "agent:2020-01-02/open+5",
    "model_version": "v",
    "data_as_of": "2019-12-31",
    "weights": {"SPY": 0.5, "QQQ": 0.5},
    "scores": {"SPY": -1.5},
    "feature_hash": "0" * 64,
    "observation_hash": "1" * 64,
}
ORDER = {"key": "k-1", "symbol": "SPY", "side": "buy", "quantity": "1.5"}
STATE = {"state": "active", "reason": "looked at it", "version": 3, "account": "a"}
BODIES: dict[str, dict[str, Any]] = {"Decision": DECISION, "ManualOrder": ORDER, "TradingState": STATE, "Flatten": {"reason": "out"}}


@pytest.fixture(scope="module")
def shown(aws: Assembly) -> dict[str, dict[str, Any]]:
    found = [resource["Properties"] for _, _, resource in aws.resources("AWS::ApiGateway::Model")]
    return {properties["Name"]: properties["Schema"] for properties in found}


def test_each_model_has_the_fields_of_its_body(shown: dict[str, dict[str, Any]]) -> None:
    assert shown.keys() == api_models.MODELS.keys() == BODIES.keys()
    for name, model in api_models.MODELS.items():
        Draft4Validator.check_schema(shown[name])
        assert list(shown[name]["properties"]) == list(model.model_fields), name
        assert shown[name]["required"] == [field for field, info in model.model_fields.items() if info.is_required()], name
        assert shown[name]["additionalProperties"] is False, name


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, {}) for name in BODIES),
        *((name, {"surprise": 1}) for name in BODIES),
        ("Decision", {"weights": {}}),
        ("Decision", {"weights": {"SPY": -0.1}}),
        ("Decision", {"weights": {"SPY": "0.1"}}),
        ("Decision", {"slot": "2020-01-02/close-5"}),
        ("Decision", {"feature_hash": "short"}),
        ("Decision", {"model_version": ""}),
        ("ManualOrder", {"quantity": 1.5}),
        ("ManualOrder", {"quantity": 0}),
        ("ManualOrder", {"quantity": 1_000_000_000}),
        ("ManualOrder", {"side": "short"}),
        ("ManualOrder", {"key": "/"}),
        ("TradingState", {"state": "paused"}),
        ("TradingState", {"version": -1}),
        ("TradingState", {"reason": ""}),
        ("Flatten", {"reason": "x" * 301}),
    ],
)
def test_gateway_and_function_agree_on_a_body(
    name: str, change: dict[str, Any], shown: dict[str, dict[str, Any]], settings: Settings
) -> None:
    body = {**BODIES[name], **change}
    try:
        accepted = parse(api_models.MODELS[name], json.dumps(body), settings=settings) is not None
    except ValidationError:
        accepted = False
    assert Draft4Validator(shown[name]).is_valid(body) == accepted


def test_what_the_gateway_cannot_say_ends_the_synth(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Body):
        """Odd."""

        number: Annotated[int, Field(multiple_of=2)]

    monkeypatch.setattr(api_models, "MODELS", {"Odd": Odd})
    with pytest.raises(ValueError, match="multipleOf = 2 has no place in a model of API Gateway"):
        api_models.api_model(apigateway.RestApi(cdk.Stack(cdk.App(), "s"), "api"), "Odd")
