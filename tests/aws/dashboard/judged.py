"""A package in the registry with an invented evaluation, and pointers to it, as `deploy_model` leaves them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import boto3

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import ServedModel
from tests.evaluations import evaluation_of

GROUP = "papertape"
VERSION = "256b150c4442" + "0" * 52
REFUSED = ("luck: 0.71, at most 0.05", "stressed costs: -5 bp, above 0")


def registered(buckets: SimpleNamespace, *, passed: bool = False, document: dict[str, Any] | None = None, number: int = 1) -> str:
    """The package's ARN; its evaluation is `document`, or an invented one."""
    sagemaker, folder = boto3.client("sagemaker"), f"models/e{number}"
    if number == 1:
        sagemaker.create_model_package_group(ModelPackageGroupName=GROUP, ModelPackageGroupDescription="policies")
    invented = evaluation_of(passed=passed, seeds=2, sessions=60, folds=3)
    invented["hashes"]["model_hash"] = VERSION
    body = json.dumps(invented if document is None else document)
    boto3.client("s3").put_object(Bucket=buckets.processed, Key=f"{folder}/evaluation/evaluation.json", Body=body.encode())
    evaluation = {"ContentType": "application/json", "S3Uri": f"s3://{buckets.processed}/{folder}/evaluation/evaluation.json"}
    made = sagemaker.create_model_package(
        ModelPackageGroupName=GROUP,
        ModelApprovalStatus="Rejected",
        ModelMetrics={"ModelQuality": {"Statistics": evaluation}},
        InferenceSpecification={
            "Containers": [{"Image": "image", "ModelDataUrl": f"s3://{buckets.processed}/{folder}/model/model.tar.gz"}],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        CustomerMetadataProperties={
            "model_hash": VERSION, "kappa": "0.1", "feature_hash": "f" * 64, "trained_until": "2018-12-21", "evaluated_until": "2019-12-31",
        },
    )  # fmt: skip
    return str(made["ModelPackageArn"])


def watching(ledger: Ledger, arn: str) -> ServedModel:
    """The refused model as the shadow."""
    model = ServedModel(
        role="shadow", policy="endpoint", spec=arn, model_version=VERSION, kappa=0.1, since="2020-01-01T23:45:00Z", refused=REFUSED
    )  # fmt: skip
    ledger.put_model(model)
    return model
