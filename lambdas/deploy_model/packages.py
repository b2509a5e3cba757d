"""From a model package to the model that decides (approved) or only watches (rejected).

Promises: model, configuration and endpoint of a package have one name, after its version and its model's hash, so the same event twice
finds what the first one made, and an endpoint never serves another model than the one that it was made for. What has that name and was
made from another archive or for another role is made anew. Raises `NotServingYetError` while the endpoint is still being made (the
caller's retry continues from there) and `DeploymentError` when it cannot be: metadata missing, or the endpoint failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lambdas.deploy_model.leftovers import Kind, MadeOutside, exists, remove
from trading_env.errors import PapertapeError

Role = Literal["incumbent", "shadow"]

ROLES: dict[str, Role] = {"Approved": "incumbent", "Rejected": "shadow"}
MEMORY_MB = 3072
CONCURRENCY = 2
VARIANT = "AllTraffic"


class DeploymentError(PapertapeError, RuntimeError):
    """The package cannot be served."""


class NotServingYetError(PapertapeError, RuntimeError):
    """The endpoint is being created or updated; asking again later continues."""


class Metadata(BaseModel):
    """What the pipeline registers with a package: strings, because CustomerMetadataProperties holds no others."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())
    model_hash: Annotated[str, Field(min_length=8)]
    feature_hash: Annotated[str, Field(min_length=8)]
    kappa: Annotated[float, Field(gt=0, le=1)]
    trained_until: str | None = None
    evaluated_until: str | None = None
    trial: str | None = None
    configuration: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelPackage:
    """One version of the model package group, as SageMaker describes it."""

    arn: str
    group: str
    version: int
    role: Role
    image: str
    model_data: str
    environment: dict[str, str]
    metadata: Metadata


def describe(*, sagemaker: Any, arn: str) -> ModelPackage | None:
    """The package as it is now; None while its approval gives it no role (`PendingManualApproval`)."""
    answer = sagemaker.describe_model_package(ModelPackageName=arn)
    role = ROLES.get(answer["ModelApprovalStatus"])
    if role is None:
        return None
    try:
        metadata = Metadata.model_validate(answer.get("CustomerMetadataProperties", {}))
    except ValidationError as error:
        first = error.errors()[0]
        raise DeploymentError(f"{arn}: CustomerMetadataProperties.{first['loc'][0]}: {first['msg']}; register it again") from error
    container = answer["InferenceSpecification"]["Containers"][0]
    return ModelPackage(
        arn=answer["ModelPackageArn"],
        group=answer["ModelPackageGroupName"],
        version=int(answer["ModelPackageVersion"]),
        role=role,
        image=container["Image"],
        model_data=container["ModelDataUrl"],
        environment=container.get("Environment", {}),
        metadata=metadata,
    )


def has_role(*, sagemaker: Any, arn: str, role: Role) -> bool:
    """Whether the registry's verdict on the package is the one that gives it `role`; of a package that is gone nothing newer is known."""
    if not exists(sagemaker.describe_model_package, ModelPackageName=arn):
        return True
    return ROLES.get(sagemaker.describe_model_package(ModelPackageName=arn)["ModelApprovalStatus"]) == role


def waits_for_approval(*, sagemaker: Any, arn: str, group: str) -> bool:
    """Whether a person has to approve or reject the package."""
    answer = sagemaker.describe_model_package(ModelPackageName=arn)
    return bool(answer["ModelPackageGroupName"] == group and answer["ModelApprovalStatus"] == "PendingManualApproval")


def serve(*, sagemaker: Any, package: ModelPackage, name: str, role_arn: str, wait: Callable[[], bool]) -> None:
    """Return when the endpoint `name` is in service with `package`; make what is missing. `wait` pauses, and answers False when no time
    is left."""
    if not _is_of(sagemaker, package=package, name=name, role_arn=role_arn):
        _make(sagemaker, package=package, name=name, role_arn=role_arn)
    while not _in_service(sagemaker, name):
        if not wait():
            raise NotServingYetError(f"endpoint {name} is not in service yet; the next attempt continues from there")


def _is_of(sagemaker: Any, *, package: ModelPackage, name: str, role_arn: str) -> bool:
    """Whether the model called `name` was made from this package's archive, image and variables, for this role."""
    if not exists(sagemaker.describe_endpoint_config, EndpointConfigName=name) or not exists(sagemaker.describe_model, ModelName=name):
        return False
    found = sagemaker.describe_model(ModelName=name)
    container = {"Environment": {}, **found["PrimaryContainer"]}
    wanted = _container(package)
    return {key: container.get(key) for key in wanted} == wanted and found["ExecutionRoleArn"] == role_arn


def _container(package: ModelPackage) -> dict[str, Any]:
    return {"Image": package.image, "ModelDataUrl": package.model_data, "Environment": package.environment}


def _make(sagemaker: Any, *, package: ModelPackage, name: str, role_arn: str) -> None:
    """Model and configuration, in the place of any that have their names."""
    kinds: tuple[Kind, ...] = ("endpoint", "endpoint-config", "model")
    for kind in kinds:
        remove(sagemaker=sagemaker, made=MadeOutside(kind=kind, name=name, version=package.version))
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role_arn, PrimaryContainer=_container(package))
    variant = {
        "VariantName": VARIANT,
        "ModelName": name,
        "ServerlessConfig": {"MemorySizeInMB": MEMORY_MB, "MaxConcurrency": CONCURRENCY},
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])


def _in_service(sagemaker: Any, name: str) -> bool:
    """One look at the endpoint; makes it when it is not there, and makes room for another attempt when it failed."""
    if not exists(sagemaker.describe_endpoint, EndpointName=name):
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    now = sagemaker.describe_endpoint(EndpointName=name)
    if now["EndpointStatus"] == "Failed":
        sagemaker.delete_endpoint(EndpointName=name)
        raise DeploymentError(f"endpoint {name} failed: {now.get('FailureReason', 'no reason given')}")
    return bool(now["EndpointStatus"] == "InService")
