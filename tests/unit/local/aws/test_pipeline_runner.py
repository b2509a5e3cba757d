"""The laptop's pipeline runner reads definitions, arguments and conditions as SageMaker does."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from local.aws.sagemaker_pipeline import PipelineExecution, StepError, Storage, command_line, deterministic_tar, references, tokens


def execution(definition: dict[str, Any], root: Path) -> PipelineExecution:
    return PipelineExecution(
        identifier="abc",
        arn="arn:aws:sagemaker:us-east-1:000000000000:pipeline/p/execution/abc",
        pipeline="p",
        definition=definition,
        parameters={"Seeds": 2},
        root=root,
        storage=Storage(None),
        python="python",
        register=lambda arguments: f"arn:{arguments['Name']}",
        job_arn=lambda kind, name: f"arn:{kind}/{name}",
    )


def test_tokens_of_a_path() -> None:
    path = "Steps.Train-0.ProcessingOutputConfig.Outputs['model'].S3Output[1].Uri"
    assert tokens(path) == ["Steps", "Train-0", "ProcessingOutputConfig", "Outputs", "model", "S3Output", 1, "Uri"]


def test_references_are_found_inside_functions() -> None:
    assert list(references({"Std:Join": {"On": "/", "Values": ["s3:", {"Get": "Steps.A.X"}, {"Get": "Parameters.B"}]}})) == ["A"]


def test_hyperparameters_become_arguments_as_the_toolkit_makes_them() -> None:
    values = {"seed": 0, "live-start": "2020-01-02", "flag": True, "sagemaker_program": "train.py", "settings": {"b": 1, "a": 2}}
    encoded = {name: json.dumps(value) for name, value in values.items()}
    assert command_line(encoded) == ["--flag", "True", "--live-start", "2020-01-02", "--seed", "0", "--settings", "a=2,b=1"]


def test_archive_does_not_depend_on_time(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "code").mkdir(parents=True)
        (tmp_path / folder / "code" / "x.py").write_text("1")
    assert deterministic_tar(tmp_path / "a") == deterministic_tar(tmp_path / "b")


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        ({"Type": "Equals", "LeftValue": {"Get": "Parameters.Seeds"}, "RightValue": 2}, True),
        ({"Type": "Not", "Expression": {"Type": "GreaterThan", "LeftValue": 3, "RightValue": 2}}, False),
        (
            {
                "Type": "Or",
                "Conditions": [{"Type": "In", "QueryValue": 1, "Values": [2]}, {"Type": "LessThan", "LeftValue": 1, "RightValue": 2}],
            },
            True,
        ),
    ],
)
def test_condition_chooses_its_branch(tmp_path: Path, condition: dict[str, Any], outcome: bool) -> None:
    steps = {branch: [{"Name": branch, "Type": "RegisterModel", "Arguments": {"Name": branch}}] for branch in ("IfSteps", "ElseSteps")}
    run = execution({"Steps": [{"Name": "Gate", "Type": "Condition", "Arguments": {"Conditions": [condition], **steps}}]}, tmp_path)
    assert run.run() == ("Succeeded", "")
    assert list(run.steps) == ["Gate", "IfSteps" if outcome else "ElseSteps"]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"Type": "Fail", "Arguments": {"ErrorMessage": {"Std:Join": {"On": " ", "Values": ["no", "bars"]}}}}, "no bars"),
        ({"Type": "Tuning", "Arguments": {}}, "'Tuning' does not run"),
        ({"Type": "RegisterModel", "Arguments": {"Name": {"Get": "Parameters.Nothing"}}}, "'Nothing' is not there, known: Seeds"),
        ({"Type": "RegisterModel", "Arguments": {"Name": {"Get": "Steps.Gone.X"}}}, "depend on what is not there: Last"),
    ],
)
def test_failure_says_why(tmp_path: Path, step: dict[str, Any], reason: str) -> None:
    status, why = execution({"Steps": [{"Name": "Last", **step}]}, tmp_path).run()
    assert status == "Failed"
    assert reason in why


def test_steps_beyond_the_cores_wait_for_their_turn(tmp_path: Path) -> None:
    cores, seen = os.cpu_count() or 1, list[list[str]]()
    names = [f"Step-{number}" for number in range(cores + 1)]
    run = execution({"Steps": [{"Name": name, "Type": "RegisterModel", "Arguments": {"Name": name}} for name in names]}, tmp_path)
    full = threading.Barrier(cores)

    def register(arguments: dict[str, Any]) -> str:
        if arguments["Name"] != names[-1]:
            full.wait(timeout=10)
            while len(run.steps) < len(names):
                time.sleep(0.001)
        seen.append([step["StepStatus"] for step in run.steps.values()])
        return "arn"

    run.register = register
    assert run.run() == ("Succeeded", "")
    assert seen[0] == ["Executing"] * cores + ["Starting"]


def test_uri_that_is_not_s3_is_refused() -> None:
    with pytest.raises(StepError, match="was 'file:///x'"):
        Storage(None).read("file:///x")
