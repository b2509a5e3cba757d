"""What this app has made in SageMaker outside of its stacks: endpoints, their configurations, their models; found by their names.

Promise: only names of this app's own form are ever listed or deleted, in the order that SageMaker wants: an endpoint before its
configuration, that before its model. Nothing here is paid for while idle; it counts against quotas, and is in the way of an app that is
deployed again under the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from botocore.exceptions import ClientError

from schema.served_names import served_version

Kind = Literal["endpoint", "endpoint-config", "model"]

#: kind -> the operation that lists it, the key of the answer, and the name of its name
LISTED: dict[Kind, tuple[str, str, str]] = {
    "endpoint": ("list_endpoints", "Endpoints", "EndpointName"),
    "endpoint-config": ("list_endpoint_configs", "EndpointConfigs", "EndpointConfigName"),
    "model": ("list_models", "Models", "ModelName"),
}
AT_REST = frozenset({"InService", "Failed", "OutOfService", "UpdateRollbackFailed"})


@dataclass(frozen=True, kw_only=True)
class MadeOutside:
    """One thing; `version` is that of the model package that it was made for, 0 where its name does not say."""

    kind: Kind
    name: str
    version: int
    status: str | None = None


def made_by(*, sagemaker: Any, app: str) -> list[MadeOutside]:
    """Everything of the app called `app` that exists, in the order in which it can be deleted."""
    return [made for kind in LISTED for made in _listed(sagemaker, kind, app=app)]


def remove(*, sagemaker: Any, made: MadeOutside) -> bool:
    """Delete one; False when it is gone already."""
    delete: dict[Kind, Callable[..., Any]] = {
        "endpoint": sagemaker.delete_endpoint,
        "endpoint-config": sagemaker.delete_endpoint_config,
        "model": sagemaker.delete_model,
    }
    return exists(delete[made.kind], **{LISTED[made.kind][2]: made.name})


def tidy(*, sagemaker: Any, app: str, serving: set[str], up_to: int) -> list[MadeOutside]:
    """Delete what was made for packages up to version `up_to` and is no part of the endpoints `serving`; return it.

    An endpoint that is being made or moved is left alone, with what has its name: another run is at it.
    """
    made = made_by(sagemaker=sagemaker, app=app)
    endpoints = [one for one in made if one.kind == "endpoint"]
    kept = {part for endpoint in endpoints if endpoint.name in serving for part in _parts(sagemaker, endpoint.name)}
    busy = {endpoint.name for endpoint in endpoints if endpoint.status not in AT_REST}
    gone = [one for one in made if (one.kind, one.name) not in kept and one.name not in busy and one.version <= up_to]
    return [one for one in gone if remove(sagemaker=sagemaker, made=one)]


def exists(call: Callable[..., Any], **name: str) -> bool:
    """False when SageMaker does not find what `call` names, which it says as `ValidationException`; anything else is an error."""
    try:
        call(**name)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("ValidationException", "ResourceNotFound"):
            return False
        raise
    return True


def _listed(sagemaker: Any, kind: Kind, *, app: str) -> Iterator[MadeOutside]:
    operation, key, name = LISTED[kind]
    for page in sagemaker.get_paginator(operation).paginate(NameContains=f"{app}-"):
        for entry in page[key]:
            if (version := served_version(app, entry[name])) is not None:
                yield MadeOutside(kind=kind, name=entry[name], version=version, status=entry.get("EndpointStatus"))


def _parts(sagemaker: Any, endpoint: str) -> set[tuple[Kind, str]]:
    """An endpoint with the configuration and the models that it runs."""
    config = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    variants = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
    return {("endpoint", endpoint), ("endpoint-config", config), *(("model", variant["ModelName"]) for variant in variants)}
