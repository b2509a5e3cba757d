"""The SageMaker pipeline as data: where a training is due, train each seed on every fold, judge the ensemble, register it with the verdict.

`definition()` is pure. The same arguments give the same dictionary, CDK tokens pass through it as the plain strings that they are, and
nothing here asks AWS or reads a file. Stacks load this module by path; a contract test holds the structure against what the SageMaker
SDK's own classes build. It raises `ValueError` for a region whose image registry it does not know.

How code reaches the containers: one `sourcedir.tar.gz` (learning/packaging.py) holds the scripts flat, the packages `learning`, `schema`
and `trading_env`, and `settings.json`. Training names it in the toolkit's hyperparameters, each JSON-encoded as the toolkit expects; the
toolkit unpacks it, installs `requirements.txt` and calls `train.py --seed 0 ...`. A processing container has no toolkit: the archive is
the input `code`, mounted as the only file of `/opt/ml/processing/input/code/`, and the entrypoint unpacks it, installs what is missing
and becomes `evaluate.py`. Whoever runs the job elsewhere replaces `/opt/ml/processing` in the entrypoint and the arguments, with `python`
on the PATH. Settings travel in the archive, because one hyperparameter holds at most 2,500 characters and one container argument 256.
The first step, `due.py`, compares data and configuration with those of the newest package and of the log; everything else is a branch of
one condition, because conditions do not nest and branches do not join again. So the verdict reaches the registry as a value: `evaluate.py`
names the approval status, Rejected for what the gate refused.
Trained models travel as one input, `models/<seed>/<job>/output/model.tar.gz`, because a processing job takes ten inputs and there may be
32 seeds; the entrypoint links them to where `evaluate.py` reads them, `model-<seed>/model.tar.gz`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from schema.lake_layout import MANIFEST, TRIALS, training_prefix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schema.settings import Settings

SCHEMA = "2020-12-01"
PROCESSING_ROOT = "/opt/ml/processing"
BOOTSTRAP = (
    f'set -e; cd "{PROCESSING_ROOT}/input"; for m in models/*; do [ ! -d $m ] || ln -s $m/*/output model-${{m##*/}}; done; mkdir ../code; '
    'cd ../code; tar -xzf ../input/code/*; python -m pip install -qr requirements.txt; exec python "$0" "$@"'
)
# Seeds start side by side: what the account's quota or Amazon's capacity does not take at once waits for its turn
TAKES_TURNS = {
    "BackoffRate": 1.0,
    "IntervalSeconds": 60,
    "ExpireAfterMin": 180,
    "ExceptionType": ["SageMaker.RESOURCE_LIMIT", "SageMaker.CAPACITY_ERROR"],
}
# Amazon's own faults pass; our code's are the same each time and end the step at once. Judging again finds its trial in the log. Faults
# and throttling of the pipeline service itself are retried by default
PASSING_FAULTS = {"BackoffRate": 2.0, "IntervalSeconds": 60, "MaxAttempts": 3, "ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"]}
RETRIES = [TAKES_TURNS, PASSING_FAULTS]
METADATA = (
    "model_hash", "kappa", "feature_hash", "gate", "trained_until", "evaluated_until", "trial", "configuration", "data_sha256",
)  # fmt: skip
DEFAULT_REGISTRY = "763104351884"
REGISTRIES = {
    **dict.fromkeys(
        (
            "ap-northeast-1", "ap-northeast-2", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1",
            "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2",
        ),
        DEFAULT_REGISTRY,
    ),
    "af-south-1": "626614931356", "ap-east-1": "871362719292", "ap-east-2": "975050140332", "ap-northeast-3": "364406365360",
    "ap-south-2": "772153158452", "ap-southeast-3": "907027046896", "ap-southeast-4": "457447274322", "ap-southeast-5": "550225433462",
    "ap-southeast-6": "633930458069", "ap-southeast-7": "590183813437", "ca-west-1": "204538143572", "eu-central-2": "380420809688",
    "eu-south-1": "692866216735", "eu-south-2": "503227376785", "il-central-1": "780543022126", "me-central-1": "914824155844",
    "me-south-1": "217643126080", "me-west-1": "124382933778", "mx-central-1": "637423239942",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Images:
    """Container image URIs: of training and judging, and of serving."""

    training: str
    serving: str


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What one job runs on. The default quota of a new account may be zero for any instance type."""

    instance_type: str = "ml.m5.large"
    volume_gb: int = 30
    max_seconds: int = 7200
    spot: bool = False


def default_images(region: str) -> Images:
    """Amazon's CPU images: training nearest to the locked torch 2.13; serving needs no torch, so its older one does.

    The serving image is past its support (2026-06-30) and there is none to move to that is known to start: docs/decisions/0021 says which
    ones were read, and what one deployment in an account would have to show.
    """
    if region not in REGISTRIES:
        raise ValueError(f"region {region!r} has no known image registry; pass images=, or use one of {', '.join(sorted(REGISTRIES))}")
    registry = f"{REGISTRIES[region]}.dkr.ecr.{region}.amazonaws.com"
    return Images(training=f"{registry}/pytorch:2.13-cpu-amzn2023-sagemaker", serving=f"{registry}/pytorch-inference:2.6.0-cpu-py312")


def definition(
    *,
    settings: Settings,
    role_arn: str,
    bucket: str,
    package_group: str,
    source_uri: str,
    images: Images | None = None,
    compute: Compute | None = None,
) -> dict[str, Any]:
    """Build the pipeline definition.

    settings       validated settings: region, timeframe and seeds; the jobs read the others from the archive
    role_arn       the role that the jobs run under
    bucket         the processed bucket: features are read from `training_prefix`, results go to `models/<execution id>/`, and the log of
                   trials is kept under `TRIALS`
    package_group  name of the model package group
    source_uri     s3:// URI of the source archive, whatever its base name
    images         container images; default: `default_images(settings.region)`
    compute        instance type, disk, time limit and spot of each job

    Return the definition as JSON-ready data; `CfnPipeline` takes it as the string `PipelineDefinitionBody`.
    """
    images = images or default_images(settings.region)
    compute = compute or Compute()
    features = f"s3://{bucket}/{training_prefix(settings.training.timeframe)}"
    seeds = settings.training.seeds
    train = [
        _train(seed=seed, settings=settings, role_arn=role_arn, image=images.training, features=features, bucket=bucket,
               source_uri=source_uri, compute=compute)
        for seed in seeds
    ]  # fmt: skip
    process = partial(_process, role_arn=role_arn, image=images.training, bucket=bucket, source_uri=source_uri, compute=compute)
    where = ["--root", PROCESSING_ROOT, "--trials", f"s3://{bucket}/{TRIALS}", "--package-group", package_group]
    due = process("Due", inputs={"features": f"{features}{MANIFEST}"}, outputs=("due",), arguments=where, property_file="Due")
    evaluate = process(
        "Evaluate",
        inputs={"features": features, "models": _results(bucket, "train")},
        outputs=("evaluation", "model"),
        arguments=[*where, "--seeds", *(str(seed) for seed in seeds)],
        property_file="Evaluation",
    ) | {"DependsOn": [step["Name"] for step in train]}
    register = _register("Register", _evaluation("approval"), package_group, images.serving, settings.region)
    when_due = {
        "Name": "WhenDue",
        "Type": "Condition",
        "Arguments": {
            "Conditions": [{"Type": "Equals", "LeftValue": _read("Due", "Due", "due"), "RightValue": True}],
            "IfSteps": [*train, evaluate, register],
            "ElseSteps": [],
        },
    }
    return {"Version": SCHEMA, "Metadata": {}, "Parameters": [], "Steps": [due, when_due]}


def _train(
    *, seed: int, settings: Settings, role_arn: str, image: str, features: str, bucket: str, source_uri: str, compute: Compute
) -> dict[str, Any]:
    hyperparameters = {
        "seed": seed,
        "settings": "settings.json",
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": source_uri,
        "sagemaker_region": settings.region,
    }
    arguments: dict[str, Any] = {
        "AlgorithmSpecification": {"TrainingInputMode": "File", "TrainingImage": image},
        "HyperParameters": {name: json.dumps(value) for name, value in hyperparameters.items()},
        "InputDataConfig": [
            {
                "ChannelName": "features",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": features, "S3DataDistributionType": "FullyReplicated"}},
                "InputMode": "File",
            }
        ],
        "ResourceConfig": {"InstanceType": compute.instance_type, "InstanceCount": 1, "VolumeSizeInGB": compute.volume_gb},
        "RoleArn": role_arn,
        "StoppingCondition": {"MaxRuntimeInSeconds": compute.max_seconds},
        "OutputDataConfig": {"S3OutputPath": _results(bucket, "train", str(seed)), "CompressionType": "GZIP"},
    }
    if compute.spot:
        arguments["EnableManagedSpotTraining"] = True
        arguments["StoppingCondition"]["MaxWaitTimeInSeconds"] = 2 * compute.max_seconds
    return {"Name": f"Train-{seed}", "Type": "Training", "Arguments": arguments, "RetryPolicies": RETRIES}


def _process(
    name: str,
    *,
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    arguments: Sequence[str],
    property_file: str,
    role_arn: str,
    image: str,
    bucket: str,
    source_uri: str,
    compute: Compute,
) -> dict[str, Any]:
    """The script of this name, in lower case; the first of its outputs holds the property file, called as the output is."""
    return {
        "Name": name,
        "Type": "Processing",
        "Arguments": {
            "ProcessingResources": {
                "ClusterConfig": {"InstanceType": compute.instance_type, "InstanceCount": 1, "VolumeSizeInGB": compute.volume_gb}
            },
            "AppSpecification": {
                "ImageUri": image,
                "ContainerArguments": list(arguments),
                "ContainerEntrypoint": ["bash", "-c", BOOTSTRAP, f"{name.lower()}.py"],
            },
            "RoleArn": role_arn,
            "ProcessingInputs": [
                {
                    "InputName": entry,
                    "S3Input": {
                        "S3Uri": uri,
                        "LocalPath": f"{PROCESSING_ROOT}/input/{entry}",
                        "S3DataType": "S3Prefix",
                        "S3InputMode": "File",
                        "S3DataDistributionType": "FullyReplicated",
                        "S3CompressionType": "None",
                    },
                }
                for entry, uri in {"code": source_uri, **inputs}.items()
            ],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": output,
                        "S3Output": {
                            "S3Uri": _results(bucket, output),
                            "LocalPath": f"{PROCESSING_ROOT}/output/{output}",
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                    for output in outputs
                ]
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": compute.max_seconds},
        },
        "RetryPolicies": RETRIES,
        "PropertyFiles": [{"PropertyFileName": property_file, "OutputName": outputs[0], "FilePath": f"{outputs[0]}.json"}],
    }


def _register(name: str, status: dict[str, Any], package_group: str, image: str, region: str) -> dict[str, Any]:
    return {
        "Name": name,
        "Type": "RegisterModel",
        "Arguments": {
            "ModelPackageGroupName": package_group,
            "CustomerMetadataProperties": {key: _evaluation(f"metadata.{key}") for key in METADATA},
            "InferenceSpecification": {
                "Containers": [
                    {
                        "Image": image,
                        "Environment": {
                            "SAGEMAKER_PROGRAM": "inference.py",
                            "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
                            "SAGEMAKER_CONTAINER_LOG_LEVEL": "20",
                            "SAGEMAKER_REGION": region,
                            "SAGEMAKER_MODEL_SERVER_WORKERS": "1",  # one a processor otherwise, each with the whole image's imports
                        },
                        "ModelDataUrl": _join(_output("model"), "model.tar.gz"),
                    }
                ],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
                "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
            },
            "ModelApprovalStatus": status,
            "ModelMetrics": {
                "ModelQuality": {
                    "Statistics": {"ContentType": "application/json", "S3Uri": _join(_output("evaluation"), "evaluation.json")}
                }
            },
            "SkipModelValidation": "None",
        },
    }


def _results(bucket: str, *names: str) -> dict[str, Any]:
    return _join(f"s3://{bucket}/models", {"Get": "Execution.PipelineExecutionId"}, *names)


def _output(name: str) -> dict[str, str]:
    return {"Get": f"Steps.Evaluate.ProcessingOutputConfig.Outputs['{name}'].S3Output.S3Uri"}


def _evaluation(path: str) -> dict[str, Any]:
    return _read("Evaluate", "Evaluation", path)


def _read(step: str, file: str, path: str) -> dict[str, Any]:
    return {"Std:JsonGet": {"PropertyFile": {"Get": f"Steps.{step}.PropertyFiles.{file}"}, "Path": path}}


def _join(*values: Any) -> dict[str, Any]:
    return {"Std:Join": {"On": "/", "Values": list(values)}}
