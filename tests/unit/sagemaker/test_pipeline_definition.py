"""The pipeline definition: where a training is due, one step per seed, one judgement, and a registration that follows the verdict."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from learning import document
from schema import settings as settings_module

ROOT = Path(__file__).parents[3]
SETTINGS = settings_module.load(ROOT / "data" / "settings.toml")


def load_pipeline() -> ModuleType:
    spec = importlib.util.spec_from_file_location("papertape_sagemaker_pipeline", ROOT / "sagemaker" / "pipeline.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pipeline = load_pipeline()


def changed(**sections: dict[str, Any]) -> settings_module.Settings:
    changed = SETTINGS.model_dump()
    for section, values in sections.items():
        changed[section] |= values
    return settings_module.Settings.model_validate(changed)


def build(settings: settings_module.Settings = SETTINGS, **arguments: Any) -> dict[str, Any]:
    given = {"role_arn": "arn:role", "bucket": "lake", "package_group": "group", "source_uri": "s3://assets/0abc.gz", **arguments}
    definition: dict[str, Any] = pipeline.definition(settings=settings, **given)
    return definition


def steps(definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {step["Name"]: step for step in definition["Steps"]}
    return found | {step["Name"]: step for step in found["WhenDue"]["Arguments"]["IfSteps"]}


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in strings(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in strings(inner)]
    return [value] if isinstance(value, str) else []


def test_two_builds_are_the_same_bytes_within_amazons_limit() -> None:
    body = json.dumps(build())
    assert body == json.dumps(build())
    assert len(body) < 1_048_576


def test_one_training_step_a_seed_feeds_the_judgement() -> None:
    found = steps(build(changed(training={"seeds": (3, 5, 8)})))
    assert [name for name in found if name.startswith("Train-")] == ["Train-3", "Train-5", "Train-8"]
    inputs = {entry["InputName"]: entry["S3Input"]["S3Uri"] for entry in found["Evaluate"]["Arguments"]["ProcessingInputs"]}
    written = found["Train-5"]["Arguments"]["OutputDataConfig"]["S3OutputPath"]["Std:Join"]["Values"]
    assert written == [*inputs["models"]["Std:Join"]["Values"], "5"]
    assert found["Evaluate"]["DependsOn"] == ["Train-3", "Train-5", "Train-8"]
    assert found["Evaluate"]["Arguments"]["AppSpecification"]["ContainerArguments"][-3:] == ["3", "5", "8"]


def test_the_judgement_knows_the_log_of_trials_and_the_registry() -> None:
    given = steps(build())["Evaluate"]["Arguments"]["AppSpecification"]["ContainerArguments"]
    assert given[given.index("--trials") + 1] == "s3://lake/models/trials/"
    assert given[given.index("--package-group") + 1] == "group"


def test_what_is_registered_says_which_trial_of_which_configuration_it_is() -> None:
    properties = steps(build())["Register"]["Arguments"]["CustomerMetadataProperties"]
    assert {"trial", "configuration", "data_sha256"} <= set(properties)
    assert {value["Std:JsonGet"]["Path"] for value in properties.values()} == {f"metadata.{key}" for key in properties}


def test_nothing_starts_before_it_is_known_that_a_training_is_due() -> None:
    """Conditions do not nest and branches do not join again: all that a training takes is one branch."""
    due, when_due = build()["Steps"]
    assert (due["Name"], due["Type"], when_due["Type"]) == ("Due", "Processing", "Condition")
    condition = {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Due.PropertyFiles.Due"}, "Path": "due"}}
    assert when_due["Arguments"]["Conditions"] == [{"Type": "Equals", "LeftValue": condition, "RightValue": True}]
    assert when_due["Arguments"]["ElseSteps"] == []
    kinds = [step["Type"] for step in when_due["Arguments"]["IfSteps"]]
    assert kinds == ["Training"] * len(SETTINGS.training.seeds) + ["Processing", "RegisterModel"]
    inputs = {entry["InputName"]: entry["S3Input"]["S3Uri"] for entry in due["Arguments"]["ProcessingInputs"]}
    assert inputs == {"code": "s3://assets/0abc.gz", "features": "s3://lake/processed/training/timeframe=1Day/manifest.json"}
    given = due["Arguments"]["AppSpecification"]["ContainerArguments"]
    assert given[-4:] == ["--trials", "s3://lake/models/trials/", "--package-group", "group"]


def retried(step: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Exception -> the policy by which the step is run again."""
    return {kind: policy for policy in step["RetryPolicies"] for kind in policy["ExceptionType"]}


@pytest.mark.parametrize("name", [*(f"Train-{seed}" for seed in SETTINGS.training.seeds), "Evaluate"])
def test_what_the_quota_and_the_capacity_do_not_take_waits_and_amazons_own_faults_are_tried_again(name: str) -> None:
    """An account may run fewer jobs at once than there are seeds. A fault of our own code is the same each time: it ends the step."""
    policies = retried(steps(build())[name])
    for kind in ("SageMaker.RESOURCE_LIMIT", "SageMaker.CAPACITY_ERROR"):
        assert policies[kind]["ExpireAfterMin"] >= 60
    assert policies["SageMaker.JOB_INTERNAL_ERROR"]["MaxAttempts"] == 3
    assert len(policies) == 3, "each named once, and no other"
    assert all(("MaxAttempts" in policy) != ("ExpireAfterMin" in policy) for policy in policies.values()), "the service takes one of them"


def test_an_endpoint_has_one_worker() -> None:
    (container,) = steps(build())["Register"]["Arguments"]["InferenceSpecification"]["Containers"]
    assert container["Environment"]["SAGEMAKER_MODEL_SERVER_WORKERS"] == "1"


def test_every_reference_names_a_step_and_an_output_that_exist() -> None:
    definition = build()
    names = set(steps(definition))
    evaluate = steps(definition)["Evaluate"]
    outputs = {entry["OutputName"] for entry in evaluate["Arguments"]["ProcessingOutputConfig"]["Outputs"]}
    references = [text for text in strings(definition) if text.startswith("Steps.")]
    assert references
    for reference in references:
        assert reference.split(".")[1] in names
        if "Outputs['" in reference:
            assert reference.split("'")[1] in outputs
    assert {entry["OutputName"] for entry in evaluate["PropertyFiles"]} <= outputs


@pytest.mark.parametrize(
    ("approval", "passed", "status"),
    [
        ("automatic", True, "Approved"),
        ("manual", True, "PendingManualApproval"),
        ("automatic", False, "Rejected"),
        ("manual", False, "Rejected"),
    ],
)
def test_the_verdict_decides_and_a_refused_model_is_never_approved(approval: str, passed: bool, status: str) -> None:
    settings = changed(model={"approval": approval})
    registered = steps(build(settings))["Register"]["Arguments"]["ModelApprovalStatus"]
    assert registered == {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Evaluation"}, "Path": "approval"}}
    assert document.approval(settings, passed=passed) == status


def test_hyperparameters_are_json_as_the_toolkit_decodes_them() -> None:
    arguments = steps(build())["Train-1"]["Arguments"]
    decoded = {name: json.loads(text) for name, text in arguments["HyperParameters"].items()}
    assert all(isinstance(text, str) for text in arguments["HyperParameters"].values())
    assert decoded["seed"] == 1
    assert decoded["settings"] == "settings.json"
    assert decoded["sagemaker_program"] == "train.py"
    assert decoded["sagemaker_submit_directory"] == "s3://assets/0abc.gz"


def test_what_crosses_amazons_limits_is_not_there() -> None:
    """256 characters a container argument, 2,500 a hyperparameter, ten inputs: even for a universe of 500 names and 32 seeds."""
    universe = {"symbols": ("SPY", *(f"S{number}" for number in range(499))), "benchmark": "SPY"}
    found = steps(build(changed(universe=universe, training={"seeds": tuple(range(32))})))
    application = found["Evaluate"]["Arguments"]["AppSpecification"]
    assert len(build()["Steps"][1]["Arguments"]["IfSteps"]) + 2 <= 50, "steps of a pipeline"
    assert max(map(len, application["ContainerEntrypoint"] + application["ContainerArguments"])) <= 256
    assert len(application["ContainerArguments"]) <= 100
    assert len(found["Evaluate"]["Arguments"]["ProcessingInputs"]) <= 10
    assert max(map(len, found["Train-0"]["Arguments"]["HyperParameters"].values())) <= 2500


def test_tokens_pass_through_as_they_are() -> None:
    token = "${Token[TOKEN.41]}"
    definition = build(role_arn=token, bucket=token, package_group=token, source_uri=f"s3://{token}/x.gz")
    found = steps(definition)
    assert found["Train-0"]["Arguments"]["RoleArn"] == token
    assert found["Register"]["Arguments"]["ModelPackageGroupName"] == token
    channel = found["Train-0"]["Arguments"]["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"]
    assert channel == f"s3://{token}/processed/training/timeframe=1Day/"
    assert json.dumps(definition).count(token) == sum(text.count(token) for text in strings(definition))


def test_results_of_one_execution_share_its_folder() -> None:
    found = steps(build())
    for output in found["Evaluate"]["Arguments"]["ProcessingOutputConfig"]["Outputs"]:
        values = output["S3Output"]["S3Uri"]["Std:Join"]["Values"]
        assert values == ["s3://lake/models", {"Get": "Execution.PipelineExecutionId"}, output["OutputName"]]


def test_spot_is_off_unless_asked_for() -> None:
    assert "EnableManagedSpotTraining" not in steps(build())["Train-0"]["Arguments"]
    compute = replace(pipeline.Compute(), spot=True, instance_type="ml.c7i.large")
    arguments = steps(build(compute=compute))["Train-0"]["Arguments"]
    assert arguments["EnableManagedSpotTraining"] is True
    assert arguments["StoppingCondition"]["MaxWaitTimeInSeconds"] >= arguments["StoppingCondition"]["MaxRuntimeInSeconds"]
    assert arguments["ResourceConfig"]["InstanceType"] == "ml.c7i.large"


def test_a_region_without_a_known_registry_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="mars-north-1"):
        pipeline.default_images("mars-north-1")
    images = pipeline.Images(training="t", serving="s")
    found = steps(build(changed(), images=images))
    assert found["Evaluate"]["Arguments"]["AppSpecification"]["ImageUri"] == "t"
    assert found["Register"]["Arguments"]["InferenceSpecification"]["Containers"][0]["Image"] == "s"
