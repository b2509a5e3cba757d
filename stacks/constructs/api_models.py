"""Request models of the execution API: the Pydantic models that the functions validate with, in the JSON Schema of API Gateway.

They document the bodies; the functions validate them, and say which field is wrong. A constraint that this module cannot say in draft 04
ends the synth with an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_cdk import aws_apigateway as apigateway

from schema.api_requests import Body, DecisionRequest, FlattenRequest, OrderRequest, StateRequest

#: By their names at the gateway.
MODELS: Mapping[str, type[Body]] = {
    "Decision": DecisionRequest,
    "ManualOrder": OrderRequest,
    "TradingState": StateRequest,
    "Flatten": FlattenRequest,
}
SAME = {"description", "enum", "format", "maximum", "maxLength", "minimum", "minLength", "minProperties", "pattern", "required"}
LEFT_OUT = {"title", "default"}  # a name that Pydantic makes up, and what is assumed of an absent field


def api_model(api: apigateway.RestApi, name: str) -> apigateway.Model:
    """Add the model `name`; the first line of its docstring is its description."""
    document = MODELS[name].model_json_schema()
    description = str(document.pop("description")).partition("\n")[0].removesuffix(".")
    schema = apigateway.JsonSchema(schema=apigateway.JsonSchemaVersion.DRAFT4, title=name, **_arguments(document))
    return api.add_model(name, model_name=name, description=description, content_type="application/json", schema=schema)


def _arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a `JsonSchema` of a node of Pydantic's JSON Schema, which is of draft 2020-12."""
    made: dict[str, Any] = {}
    for key, value in node.items():
        match key:
            case "type":
                made["type"] = apigateway.JsonSchemaType[value.upper()]
            case "properties":
                made["properties"] = {name: apigateway.JsonSchema(**_arguments(part)) for name, part in value.items()}
            case "additionalProperties":
                made["additional_properties"] = value if isinstance(value, bool) else apigateway.JsonSchema(**_arguments(value))
            case "anyOf":
                first, *others = [_arguments(part) for part in value if part != {"type": "null"}]  # null is said by leaving the field out
                made |= {"any_of": [apigateway.JsonSchema(**part) for part in (first, *others)]} if others else first
            case "exclusiveMinimum" | "exclusiveMaximum":  # in draft 04 not the limit itself, but how to read it
                limit = key.removeprefix("exclusive").lower()
                made |= {limit: value, f"exclusive_{limit}": True}
            case _ if key in SAME:
                made["".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)] = value
            case _ if key not in LEFT_OUT:
                raise ValueError(f"{key} = {value!r} has no place in a model of API Gateway yet; say it in stacks/constructs/api_models.py")
    return made
