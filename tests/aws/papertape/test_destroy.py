"""destroy: what goes, what stays, and whose it is; SageMaker's part that does not run in process is the end-to-end test's."""

from __future__ import annotations

import json

import boto3
import pytest
from typer.testing import CliRunner, Result

from papertape import command_line
from papertape.operate import destroy
from schema.served_names import served_name
from tests.aws.services import Stacks

GOING = ("monitoring", "dashboard", "trading", "model", "features", "ingest")
OURS = ("papertape-incumbent", "papertape-shadow")
#: Of another application, or of this one under another name.
OTHERS = ("papertape-2-3-1a2b3c4d1a2b", "papertape-dev-incumbent", "my-papertape-shadow", "papertape-research")


def call(*options: str, answer: str | None = None) -> Result:
    return CliRunner(env={"COLUMNS": "300", "PAPERTAPE_ON": "aws"}).invoke(command_line.app, ["destroy", *options], input=answer)


def make(name: str) -> None:
    """A model, a configuration and an endpoint, as the app makes them and others do."""
    sagemaker, role = boto3.client("sagemaker"), "arn:aws:iam::123456789012:role/serving"
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "image"}, ExecutionRoleArn=role)
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def made() -> set[str]:
    sagemaker = boto3.client("sagemaker")
    endpoints = {entry["EndpointName"] for entry in sagemaker.list_endpoints()["Endpoints"]}
    configurations = {entry["EndpointConfigName"] for entry in sagemaker.list_endpoint_configs()["EndpointConfigs"]}
    models = {entry["ModelName"] for entry in sagemaker.list_models()["Models"]}
    assert endpoints == configurations == models
    return endpoints


@pytest.fixture
def deployed(aws: None, stacks: Stacks, monkeypatch: pytest.MonkeyPatch) -> Stacks:
    monkeypatch.setattr(destroy, "PAUSE", 0.01)
    stacks.deployed = {f"papertape-{part}": {} for part in ("lake", *GOING)}
    for name in (*OURS, *OTHERS):
        make(name)
    return stacks


def test_what_runs_goes_and_the_lake_and_what_is_others_stays(deployed: Stacks) -> None:
    for bucket in ("papertape-lake-raw-1", "papertape-lake-audit-2", "papertape-dev-lake-raw-3", "unrelated"):
        boto3.client("s3").create_bucket(Bucket=bucket)
    boto3.client("dynamodb").create_table(
        TableName="papertape-lake-Ledger-4", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}], AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
    )  # fmt: skip
    boto3.client("logs").create_log_group(logGroupName="/aws/sagemaker/Endpoints/papertape-incumbent")
    deployed.on_delete = lambda name: (
        make(served_name("papertape", version=7, model_hash="1a2b3c4d" * 8)) if name == "papertape-ingest" else None
    )
    result = call("--yes")
    assert result.exit_code == 0, result.output
    assert deployed.deleted == [f"papertape-{part}" for part in GOING], "the last one made first, and never the lake"
    assert made() == set(OTHERS), "also what was made while the stacks went"
    stays = result.stdout.partition("Positions and open orders at the broker stay as they are.")[2]
    for left, command in {
        "stack papertape-lake": "--no-enable-termination-protection --stack-name papertape-lake --region us-east-1",
        "bucket papertape-lake-raw-1": "aws s3api delete-bucket --bucket papertape-lake-raw-1 --region us-east-1",
        "bucket papertape-lake-audit-2, whose records are locked for a year": "--bucket papertape-lake-audit-2",
        "table papertape-lake-Ledger-4": "aws dynamodb delete-table --table-name papertape-lake-Ledger-4 --region us-east-1",
        "log group /aws/sagemaker/Endpoints/papertape-incumbent": "aws logs delete-log-group",
        "secret papertape/alpaca": "aws secretsmanager delete-secret --secret-id papertape/alpaca --region us-east-1",
    }.items():
        assert left in stays
        assert command in stays
    assert "papertape-dev-lake" not in stays
    assert "unrelated" not in stays

    again = call()
    assert (again.exit_code, "Nothing of it runs: nothing was removed." in again.stdout) == (0, True), "there is nothing to ask about"


@pytest.mark.parametrize("answer", ["n\n", None])
def test_it_asks_first(deployed: Stacks, answer: str | None) -> None:
    result = call(answer=answer)
    assert result.exit_code == 1
    assert "removes stack papertape-trading" in result.stdout
    assert "removes endpoint papertape-incumbent" in result.stdout
    assert "nothing was removed; to go on answer y, or add --yes (make: yes=1)" in result.stderr
    assert deployed.deleted == []
    assert made() == {*OURS, *OTHERS}


def test_a_stack_that_does_not_go_says_why_and_the_rest_waits(deployed: Stacks) -> None:
    deployed.stuck["papertape-model"] = "the role is in use"
    result = call("--yes")
    assert result.exit_code == 1
    assert result.stderr == "papertape: stack papertape-model was not removed: Thing: the role is in use\n"
    assert made() == {*OURS, *OTHERS}
    deployed.stuck.clear()
    deployed.deleted.clear()
    assert call("--yes").exit_code == 0, "it may be repeated"
    assert made() == set(OTHERS)


def test_a_stack_that_is_being_changed_is_left_alone(deployed: Stacks) -> None:
    deployed.status = "UPDATE_IN_PROGRESS"
    result = call("--yes")
    assert (result.exit_code, deployed.deleted) == (1, [])
    assert "stack papertape-monitoring is UPDATE_IN_PROGRESS: wait until that has ended, and repeat this" in result.stderr


def test_another_applications_model_packages_stay(aws: None, stacks: Stacks) -> None:
    boto3.client("sagemaker").create_model_package_group(ModelPackageGroupName="papertape-dev")
    result = call("--yes")
    assert result.exit_code == 0, result.output
    assert "Nothing of it runs" in result.stdout
    assert "papertape-dev" not in json.dumps(result.stdout)
