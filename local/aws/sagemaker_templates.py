"""CloudFormation's handlers of the SageMaker resource types that the templates hold."""

# ruff: noqa: SLF001, ARG001, ARG005  (ministack's signatures are kept, and its S3 has no public read)
# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ministack.services import s3

from local.aws.sagemaker_records import RefusalError, arn
from local.aws.sagemaker_service import create_model_package_group, forget, put_pipeline
from local.aws.services.feature_store import create_feature_group, declare_again, delete_feature_group

Record = dict[str, Any]


def handlers(physical_name: Callable[[str, str], str]) -> dict[str, Record]:
    """Handlers of the SageMaker resource types that the templates hold."""

    def group_create(logical: str, properties: Record, stack: str) -> tuple[str, Record]:
        name = properties.get("ModelPackageGroupName") or physical_name(stack, logical)
        create_model_package_group({**properties, "ModelPackageGroupName": name}, exists=True)
        return arn("model-package-group", name), {"ModelPackageGroupArn": arn("model-package-group", name)}

    def pipeline_create(logical: str, properties: Record, stack: str) -> tuple[str, Record]:
        name = properties.get("PipelineName") or physical_name(stack, logical)
        source = properties["PipelineDefinition"]
        location = source.get("PipelineDefinitionS3Location")
        if location:
            body = s3._get_object_data(location["Bucket"], location["Key"])
            if body is None:
                raise ValueError(f"pipeline {name}: no definition at s3://{location['Bucket']}/{location['Key']}")
            text = body.decode()
        else:
            text = source["PipelineDefinitionBody"]
        try:
            put_pipeline(name, {"RoleArn": properties["RoleArn"], "PipelineDefinition": text})
        except RefusalError as refusal:
            raise ValueError(str(refusal)) from refusal
        return name, {}

    def feature_group_create(logical: str, properties: Record, stack: str) -> tuple[str, Record]:
        try:
            create_feature_group(properties)
        except RefusalError as refusal:
            raise ValueError(str(refusal)) from refusal
        return properties["FeatureGroupName"], {"FeatureGroupStatus": "Created"}

    def feature_group_update(physical: str, old: Record, new: Record, stack: str) -> tuple[str, Record]:
        declare_again(physical, new)
        return physical, {"FeatureGroupStatus": "Created"}

    def delete(kind: str) -> Callable[[str, Record], None]:
        return lambda physical, properties: forget(kind, physical)

    def update(create: Callable[[str, Record, str], tuple[str, Record]]) -> Callable[[str, Record, Record, str], tuple[str, Record]]:
        return lambda physical, old, new, stack: create(physical.rsplit("/", 1)[-1], new, stack)

    return {
        "AWS::SageMaker::ModelPackageGroup": {
            "create": group_create, "update": update(group_create), "delete": delete("model-package-group"),
        },
        "AWS::SageMaker::FeatureGroup": {
            "create": feature_group_create, "update": feature_group_update,
            "delete": lambda physical, properties: delete_feature_group({"FeatureGroupName": physical}),
        },
        "AWS::SageMaker::Pipeline": {"create": pipeline_create, "update": update(pipeline_create), "delete": delete("pipeline")},
    }  # fmt: skip
