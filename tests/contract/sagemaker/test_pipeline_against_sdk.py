"""The pipeline definition is what the SageMaker SDK's own classes build from the same values, offline.

The SDK runs in a subprocess with every socket blocked, because it changes the environment, its configuration and its loggers. What
may differ is stated by `without_known_differences`, with the reason for each; everything else must be equal.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from schema import settings as settings_module

ROOT = Path(__file__).parents[3]
SETTINGS = settings_module.load(ROOT / "data" / "settings.toml")
ROLE = "arn:aws:iam::123456789012:role/training"
SOURCE = "s3://assets/0abc.gz"

pytestmark = [
    pytest.mark.rehearse,  # the SDK alone takes half a minute to import
    pytest.mark.skipif(importlib.util.find_spec("sagemaker.core") is None, reason="the SageMaker SDK v3 is not installed"),
]

BUILD_WITH_SDK = r"""
import json, os, socket, sys

attempts = []
def deny(*arguments, **_):
    attempts.append(str(arguments[-1]))
    raise OSError("the network is blocked")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = deny

import boto3
from sagemaker.core import image_uris
from sagemaker.core.model_metrics import MetricsSource, ModelMetrics
from sagemaker.core.processing import Processor
from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output, StoppingCondition
from sagemaker.core.workflow.conditions import ConditionEquals
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.model_step import ModelStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.retry import SageMakerJobExceptionTypeEnum as OfJob
from sagemaker.mlops.workflow.retry import SageMakerJobStepRetryPolicy
from sagemaker.mlops.workflow.steps import ProcessingStep, TrainingStep
from sagemaker.serve.model_builder import ModelBuilder
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, OutputDataConfig

given = json.loads(sys.stdin.read())
session = PipelineSession(boto_session=boto3.Session(region_name="us-east-1"), default_bucket="lake")
session._default_bucket = "lake"
features = "s3://lake/processed/training/timeframe=1Day/"
training_image = image_uris.retrieve("pytorch-amzn2023", "us-east-1", version="2.13", instance_type="ml.m5.large", image_scope="training")
serving_image = image_uris.retrieve(
    "pytorch", "us-east-1", version="2.6.0", py_version="py312", instance_type="ml.m5.large", image_scope="inference"
)

def results(*names):
    return Join(on="/", values=["s3://lake/models", ExecutionVariables.PIPELINE_EXECUTION_ID, *names])

retries = [
    SageMakerJobStepRetryPolicy(
        exception_types=[OfJob.RESOURCE_LIMIT, OfJob.CAPACITY_ERROR], backoff_rate=1.0, interval_seconds=60, expire_after_mins=180
    ),
    SageMakerJobStepRetryPolicy(exception_types=[OfJob.INTERNAL_ERROR], backoff_rate=2.0, interval_seconds=60, max_attempts=3),
]

def trained(seed):
    trainer = ModelTrainer(
        training_image=training_image,
        compute=Compute(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=30),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=7200),
        base_job_name=f"Train-{seed}",
        sagemaker_session=session,
        role=given["role"],
        hyperparameters=given["hyperparameters"][str(seed)],
        output_data_config=OutputDataConfig(s3_output_path=results("train", str(seed))),
        input_data_config=[InputData(channel_name="features", data_source=features)],
    )
    return TrainingStep(f"Train-{seed}", step_args=trainer.train(), retry_policies=retries)

trainings = {seed: trained(seed) for seed in given["seeds"]}

def entering(name, uri):
    return ProcessingInput(
        input_name=name,
        s3_input=ProcessingS3Input(
            s3_uri=uri, local_path=f"/opt/ml/processing/input/{name}", s3_data_type="S3Prefix", s3_input_mode="File"
        ),
    )

def leaving(name):
    return ProcessingOutput(
        output_name=name,
        s3_output=ProcessingS3Output(s3_uri=results(name), local_path=f"/opt/ml/processing/output/{name}", s3_upload_mode="EndOfJob"),
    )

def processor(name):
    return Processor(
        image_uri=training_image,
        entrypoint=given["entrypoint"][name],
        role=given["role"],
        instance_type="ml.m5.large",
        instance_count=1,
        volume_size_in_gb=30,
        max_runtime_in_seconds=7200,
        sagemaker_session=session,
    )

answer = PropertyFile("Due", "due", "due.json")
due = ProcessingStep(
    "Due",
    step_args=processor("Due").run(
        inputs=[entering("code", given["source"]), entering("features", features + "manifest.json")],
        outputs=[leaving("due")],
        arguments=given["arguments"]["Due"],
        wait=False,
        logs=False,
    ),
    property_files=[answer],
    retry_policies=retries,
)
verdict = PropertyFile("Evaluation", "evaluation", "evaluation.json")
evaluate = ProcessingStep(
    "Evaluate",
    step_args=processor("Evaluate").run(
        inputs=[entering("code", given["source"]), entering("features", features), entering("models", results("train"))],
        outputs=[leaving("evaluation"), leaving("model")],
        arguments=given["arguments"]["Evaluate"],
        wait=False,
        logs=False,
    ),
    depends_on=list(trainings.values()),
    property_files=[verdict],
    retry_policies=retries,
)

def known_later(path):
    return JsonGet(step_name="Evaluate", property_file=verdict, json_path=path)

def produced(name, file):
    return Join(on="/", values=[evaluate.properties.ProcessingOutputConfig.Outputs[name].S3Output.S3Uri, file])

def registered(name, status):
    builder = ModelBuilder(
        s3_model_data_url=produced("model", "model.tar.gz"),
        image_uri=serving_image,
        sagemaker_session=session,
        role_arn=given["role"],
        env_vars={
            "SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"
        },
    )
    arguments = builder.register(
        model_package_group_name="group",
        content_types=["application/json"],
        response_types=["application/json"],
        inference_instances=["ml.m5.large"],
        approval_status=status,
        customer_metadata_properties={key: known_later(f"metadata.{key}") for key in given["metadata"]},
        model_metrics=ModelMetrics(
            model_statistics=MetricsSource(content_type="application/json", s3_uri=produced("evaluation", "evaluation.json"))
        ),
    )
    return ModelStep(name, step_args=arguments)

when_due = ConditionStep(
    "WhenDue",
    conditions=[ConditionEquals(left=JsonGet(step_name="Due", property_file=answer, json_path="due"), right=True)],
    if_steps=[*trainings.values(), evaluate, registered("Register", known_later("approval"))],
    else_steps=[],
)
steps = [due, when_due]
definition = Pipeline("papertape", steps=steps, sagemaker_session=session, pipeline_experiment_config=None).definition()
regions = {}
for region in given["regions"]:
    at = {"region": region, "instance_type": "ml.m5.large"}
    regions[region] = [
        image_uris.retrieve("pytorch-amzn2023", version="2.13", image_scope="training", **at),
        image_uris.retrieve("pytorch", version="2.6.0", py_version="py312", image_scope="inference", **at),
    ]
print("RESULT" + json.dumps({"definition": json.loads(definition), "attempts": attempts, "regions": regions}))
"""


def load_pipeline() -> ModuleType:
    spec = importlib.util.spec_from_file_location("papertape_sagemaker_pipeline", ROOT / "sagemaker" / "pipeline.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pipeline = load_pipeline()


@pytest.fixture(scope="module")
def ours() -> dict[str, Any]:
    definition: dict[str, Any] = pipeline.definition(
        settings=SETTINGS, role_arn=ROLE, bucket="lake", package_group="group", source_uri=SOURCE
    )
    return definition


@pytest.fixture(scope="module")
def sdk(ours: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the SDK made of our values, the connections that it tried, and its image URIs by region."""
    folder = tmp_path_factory.mktemp("sdk")
    configuration = folder / "config.yaml"
    configuration.write_text(
        "SchemaVersion: '1.0'\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n", encoding="utf-8"
    )
    first, when_due = ours["Steps"]
    steps = {step["Name"]: step["Arguments"] for step in (first, *when_due["Arguments"]["IfSteps"])}
    applications = {name: steps[name]["AppSpecification"] for name in ("Due", "Evaluate")}
    values = {
        "role": ROLE,
        "source": SOURCE,
        "seeds": SETTINGS.training.seeds,
        "hyperparameters": {seed: steps[f"Train-{seed}"]["HyperParameters"] for seed in SETTINGS.training.seeds},
        "entrypoint": {name: application["ContainerEntrypoint"] for name, application in applications.items()},
        "arguments": {name: application["ContainerArguments"] for name, application in applications.items()},
        "metadata": list(steps["Register"]["CustomerMetadataProperties"]),
        "regions": list(pipeline.REGISTRIES),
    }
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "offline",
        "AWS_SECRET_ACCESS_KEY": "offline",
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAGEMAKER_VALIDATE_ROLE": "false",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(configuration),
    }
    run = subprocess.run(
        [sys.executable, "-c", BUILD_WITH_SDK],
        input=json.dumps(values),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    line = next(line for line in run.stdout.splitlines() if line.startswith("RESULT"))
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT"))
    return result


def without_known_differences(definition: dict[str, Any]) -> dict[str, Any]:
    """The SDK spells out optional parts that were not given: null at the top, and empty kinds of model metrics. Absent means the same."""
    assert [key for key, value in definition.items() if value is None] == ["PipelineExperimentConfig", "MlflowConfig"]
    metrics = definition["Steps"][-1]["Arguments"]["IfSteps"][-1]["Arguments"]["ModelMetrics"]
    assert (metrics.pop("Bias"), metrics.pop("Explainability")) == ({}, {})
    return {key: value for key, value in definition.items() if value is not None}


def test_the_sdk_was_offline(sdk: dict[str, Any]) -> None:
    assert sdk["attempts"] == []


def test_the_definition_is_what_the_sdk_builds(ours: dict[str, Any], sdk: dict[str, Any]) -> None:
    assert ours == without_known_differences(sdk["definition"])


def test_image_uris_are_the_sdks_in_every_region_that_we_name(sdk: dict[str, Any]) -> None:
    for region, uris in sdk["regions"].items():
        images = pipeline.default_images(region)
        assert [images.training, images.serving] == uris
