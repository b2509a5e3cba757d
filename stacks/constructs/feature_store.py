"""SageMaker Feature Store as an option: a feature group per group of columns, the role that the service writes with, the job's one grant.

Nobody is granted to read a record. What the offline store holds lies in the processed bucket, which survives the app.
"""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker

from schema.features.groups import FeatureGroup
from schema.features.records import EVENT_TIME, IDENTIFIER, store_name
from schema.lake_layout import FEATURE_STORE
from stacks.constructs.permissions import allow

CATALOG = "sagemaker_featurestore"  # the service's own database of Glue


def add_feature_store(
    stack: Stack, *, app: str, groups: Sequence[FeatureGroup], bucket: s3.IBucket, bucket_arn: str, job: iam.Role
) -> None:
    """Add the feature groups of `app` to `stack`, and let `job` put records into them."""
    role = _role(stack, bucket_arn)
    for group in groups:
        definition = sagemaker.CfnFeatureGroup.FeatureDefinitionProperty
        made = sagemaker.CfnFeatureGroup(
            stack,
            "".join(word.capitalize() for word in group.name.split("_")) + "Group",
            feature_group_name=store_name(app, group),
            description=f"{group.holds[0].upper()}{group.holds[1:]}"[:128],
            record_identifier_feature_name=IDENTIFIER,
            event_time_feature_name=EVENT_TIME,
            feature_definitions=[
                *(definition(feature_name=name, feature_type="String") for name in (IDENTIFIER, EVENT_TIME)),
                *(definition(feature_name=name, feature_type="Fractional") for name in group.columns),
            ],
            online_store_config={"EnableOnlineStore": True},
            offline_store_config={"S3StorageConfig": {"S3Uri": f"s3://{bucket.bucket_name}/{FEATURE_STORE.rstrip('/')}"}},
            role_arn=role.role_arn,
        )
        made.node.add_dependency(role)
    arns = [stack.format_arn(service="sagemaker", resource="feature-group", resource_name=store_name(app, group)) for group in groups]
    allow(job, "sagemaker:PutRecord", on=arns)


def _role(stack: Stack, bucket_arn: str) -> iam.Role:
    """What AWS's managed policy for offline stores allows, on this app's own prefix instead of on every bucket named after SageMaker."""
    role = iam.Role(stack, "FeatureStoreRole", assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"))
    objects = [f"{bucket_arn}/{FEATURE_STORE}*"]
    allow(role, "s3:PutObject", "s3:PutObjectAcl", on=objects, because="keys of the offline store are the service's own")
    allow(role, "s3:GetBucketAcl", on=[bucket_arn])
    catalog = [
        stack.format_arn(service="glue", resource="catalog", arn_format=ArnFormat.NO_RESOURCE_NAME),
        stack.format_arn(service="glue", resource="database", resource_name=CATALOG),
        stack.format_arn(service="glue", resource="table", resource_name=f"{CATALOG}/*"),
    ]
    allow(role, "glue:GetTable", "glue:UpdateTable", on=catalog, because="the service names the tables of its offline stores")
    return role
