"""From a model package to the model that decides (approved) or only watches (rejected).

Promises: everything is named after the package's version, so the same event twice finds what the first one made; the ledger points to
an endpoint only after SageMaker says that it serves that very version. Raises `NotServingYetError` while the endpoint is still being made
(the caller's retry continues from there) and `DeploymentError` when it cannot be: metadata missing, or the endpoint failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trading_env.errors import PapertapeError

Role = Literal["incumbent", "shadow"]

ROLES: dict[str, Role] = {"Approved": "incumbent", "Rejected": "shadow"}
MEMORY_MB = 2048
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

    @property
    def name(self) -> str:
        """`<group>-<version>`: name of its model and, with the role, of its endpoint configuration."""
        return f"{self.group}-{self.version}"


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


def waits_for_approval(*, sagemaker: Any, arn: str, group: str) -> bool:
    """Whether a person has to approve or reject the package."""
    answer = sagemaker.describe_model_package(ModelPackageName=arn)
    return bool(answer["ModelPackageGroupName"] == group and answer["ModelApprovalStatus"] == "PendingManualApproval")


def serve(*, sagemaker: Any, package: ModelPackage, endpoint: str, role_arn: str, wait: Callable[[], bool]) -> None:
    """Return when `endpoint` serves `package`; make or move what is missing. `wait` pauses, and answers False when no time is left."""
    configuration = f"{package.name}-{package.role}"
    if not _exists(sagemaker.describe_model, ModelName=package.name):
        sagemaker.create_model(
            ModelName=package.name,
            ExecutionRoleArn=role_arn,
            PrimaryContainer={"Image": package.image, "ModelDataUrl": package.model_data, "Environment": package.environment},
        )
    if not _exists(sagemaker.describe_endpoint_config, EndpointConfigName=configuration):
        variant = {
            "VariantName": VARIANT,
            "ModelName": package.name,
            "ServerlessConfig": {"MemorySizeInMB": MEMORY_MB, "MaxConcurrency": CONCURRENCY},
        }
        sagemaker.create_endpoint_config(EndpointConfigName=configuration, ProductionVariants=[variant])
    if not _exists(sagemaker.describe_endpoint, EndpointName=endpoint):
        sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=configuration)
    while not _serves(sagemaker, endpoint=endpoint, configuration=configuration):
        if not wait():
            raise NotServingYetError(f"endpoint {endpoint} does not serve {configuration} yet; the next attempt continues from there")


def _serves(sagemaker: Any, *, endpoint: str, configuration: str) -> bool:
    """One look at the endpoint; moves it to `configuration` when it is at rest with another."""
    now = sagemaker.describe_endpoint(EndpointName=endpoint)
    current, status = now["EndpointConfigName"], now["EndpointStatus"]
    if status == "InService" and current == configuration:
        return True
    if status in ("InService", "UpdateRollbackFailed") or (status == "Failed" and current != configuration):
        sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=configuration)
        return False
    if status == "Failed":
        raise DeploymentError(f"endpoint {endpoint} failed with {configuration}: {now.get('FailureReason', 'no reason given')}")
    return False


def _exists(describe: Callable[..., Any], **name: str) -> bool:
    """SageMaker says `ValidationException` for what it does not find; anything else is an error."""
    try:
        describe(**name)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("ValidationException", "ResourceNotFound"):
            return False
        raise
    return True
