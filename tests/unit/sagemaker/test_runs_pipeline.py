"""The pipeline of runs: one job that is told which run it is, reads nothing but its code, and starts again where the service failed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from learning import packaging
from tests.unit.sagemaker.test_folder import members

ROOT = Path(__file__).parents[3]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"papertape_sagemaker_{name}", ROOT / "sagemaker" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pipeline, runs = load("pipeline"), load("runs_pipeline")


def build() -> dict[str, Any]:
    definition: dict[str, Any] = runs.runs_definition(
        role_arn="arn:role",
        bucket="lake",
        source_uri="s3://assets/0abc.gz",
        image="image",
        instance_type="ml.m5.large",
        volume_gb=30,
        max_seconds=3600,
        retries=pipeline.RETRIES,
    )
    return definition


def test_two_builds_are_the_same_and_need_no_account() -> None:
    assert json.dumps(build()) == json.dumps(build())


def test_an_execution_names_its_run_and_one_that_does_not_finds_no_folder() -> None:
    definition = build()
    assert definition["Parameters"] == [{"Name": "Run", "Type": "String", "DefaultValue": "no-such-run"}]
    (step,) = definition["Steps"]
    application = step["Arguments"]["AppSpecification"]
    assert application["ContainerArguments"] == ["--run", {"Get": "Parameters.Run"}, "--bucket", "lake", "--settings", "settings.json"]
    assert all(len(one) <= 256 for one in application["ContainerEntrypoint"]), "one container argument holds 256 characters"


def test_a_job_starts_again_as_those_of_training_do() -> None:
    (step,) = build()["Steps"]
    assert step["RetryPolicies"] == pipeline.RETRIES
    assert step["Arguments"]["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600}


def test_it_is_shaped_as_the_other_pipelines_processing_steps() -> None:
    """Their shape is held against the SDK's own classes; this one has no output, for a run writes its folder itself."""
    other = pipeline._process(
        "Due", inputs={}, outputs=("due",), arguments=[], property_file="Due", role_arn="arn:role", image="image", bucket="lake",
        source_uri="s3://assets/0abc.gz", compute=pipeline.Compute(max_seconds=3600),
    )  # fmt: skip
    (step,) = build()["Steps"]
    assert step.keys() == other.keys() - {"PropertyFiles"}
    ours, theirs = step["Arguments"], other["Arguments"]
    assert ours.keys() == theirs.keys() - {"ProcessingOutputConfig"}
    assert {key for key in ours if ours[key] != theirs[key]} == {"AppSpecification"}


def test_the_archive_holds_what_a_run_imports_and_its_settings() -> None:
    given = members(packaging.runs_archive(settings_json='{"name": "x"}'))
    assert {"requirements.txt", "settings.json", "papertape/__init__.py", "learning/__init__.py", "schema/settings.py"} <= given.keys()
    assert given["settings.json"] == b'{"name": "x"}'
    assert packaging.runs_archive(settings_json="{}") == packaging.runs_archive(settings_json="{}")


@pytest.mark.parametrize("path", ["data/daily_bars.parquet", "data/settings.toml"])
def test_the_archive_has_the_projects_own_bars(path: str) -> None:
    assert path in members(packaging.runs_archive(settings_json="{}"))
