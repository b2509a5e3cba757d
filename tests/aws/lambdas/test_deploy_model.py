"""deploy_model against a model registry in process: approved decides, rejected watches, and no event does harm twice or too late."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.sagemaker.models import sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.roles import roles_now
from lambdas.deploy_model import handler as deploying
from lambdas.deploy_model.packages import DeploymentError, NotServingYetError
from lambdas.deploy_model.pointers import equal_weight
from schema.settings import SETTINGS_FILE, GateSettings, Settings
from tests.settings_files import settings_file

GROUP = "papertape"
BUCKET, EVALUATION = "papertape-processed", "models/1/evaluation/evaluation.json"
METADATA = {"model_hash": "a" * 64, "kappa": "0.1", "feature_hash": "f" * 64, "gate": "passed", "trained_until": "2018-12-21",
            "evaluated_until": "2019-12-31"}  # fmt: skip
Register = Callable[..., str]


def update_endpoint(response: SageMakerResponse) -> str:
    """UpdateEndpoint, which moto lacks: at rest with the new configuration at once."""
    request = json.loads(response.body)
    endpoint = endpoint_of(request["EndpointName"])
    endpoint.endpoint_config_name = request["EndpointConfigName"]
    return json.dumps({"EndpointArn": endpoint.arn})


@pytest.fixture
def sagemaker(ledger_table: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(SageMakerResponse, "update_endpoint", update_endpoint, raising=False)
    monkeypatch.setattr(deploying, "POLL_SECONDS", 0.0)
    monkeypatch.setenv("ENDPOINT_NAME", "papertape")
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings))
    monkeypatch.setenv("SERVING_ROLE_ARN", f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/serving")
    monkeypatch.setenv("MODEL_PACKAGE_GROUP", GROUP)
    client = boto3.client("sagemaker")
    client.create_model_package_group(ModelPackageGroupName=GROUP, ModelPackageGroupDescription="policies")
    return client


@pytest.fixture
def register(sagemaker: Any) -> Register:
    def register(status: str, *, evaluation: dict[str, Any] | None = None, **metadata: str) -> str:
        container = {"Image": "registry/pytorch-inference:2.6.0", "ModelDataUrl": "s3://papertape-processed/models/1/model.tar.gz"}
        metrics = {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": f"s3://{BUCKET}/{EVALUATION}"}}}
        if evaluation is not None:
            boto3.client("s3").create_bucket(Bucket=BUCKET)  # in this region, again is no error
            boto3.client("s3").put_object(Bucket=BUCKET, Key=EVALUATION, Body=json.dumps(evaluation).encode())
        arn = sagemaker.create_model_package(
            **({} if evaluation is None else {"ModelMetrics": metrics}),
            ModelPackageGroupName=GROUP,
            ModelPackageDescription="a policy",
            ModelApprovalStatus=status,
            CustomerMetadataProperties={name: value for name, value in (METADATA | metadata).items() if value},
            InferenceSpecification={
                "Containers": [{**container, "Environment": {"SAGEMAKER_PROGRAM": "inference.py"}}],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )["ModelPackageArn"]
        return str(arn)

    return register


def send(arn: str, *, remaining_ms: int = 60_000, time: str = "2020-01-01T12:00:00Z") -> dict[str, Any]:
    event = {"detail-type": "SageMaker Model Package State Change", "time": time, "detail": {"ModelPackageArn": arn}}
    context = SimpleNamespace(aws_request_id="r", get_remaining_time_in_millis=lambda: remaining_ms)
    return deploying.handler(event, context)  # type: ignore[no-any-return]


def endpoint_of(name: str) -> Any:
    return sagemaker_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].endpoints[name]


def test_an_approved_package_becomes_the_incumbent(sagemaker: Any, register: Register, ledger_table: Ledger) -> None:
    arn = register("Approved")
    assert send(arn)["outcome"] == "deployed"
    endpoint = sagemaker.describe_endpoint(EndpointName="papertape-incumbent")
    assert (endpoint["EndpointConfigName"], endpoint["EndpointStatus"]) == ("papertape-1-incumbent", "InService")
    (variant,) = sagemaker.describe_endpoint_config(EndpointConfigName="papertape-1-incumbent")["ProductionVariants"]
    assert variant["ServerlessConfig"]["MemorySizeInMB"] == 2048
    container = sagemaker.describe_model(ModelName="papertape-1")["PrimaryContainer"]
    assert container["ModelDataUrl"] == "s3://papertape-processed/models/1/model.tar.gz"
    assert container["Environment"] == {"SAGEMAKER_PROGRAM": "inference.py"}
    model = ledger_table.incumbent()
    assert model is not None
    assert (model.policy, model.spec, model.endpoint, model.kappa) == ("endpoint", arn, "papertape-incumbent", 0.1)
    assert (model.model_version, model.feature_hash, model.known_until) == ("a" * 64, "f" * 64, date(2019, 12, 31))
    assert (model.trained_until, model.evaluated_until) == ("2018-12-21", "2019-12-31"), "the holdout is no training"
    assert ledger_table.shadow() is None


def test_the_answer_names_the_trial_and_the_configuration_that_the_package_was_made_by(register: Register) -> None:
    made_by = {"trial": "t" * 64, "configuration": "r" * 64}
    answer = send(register("Approved", **made_by))
    assert answer.items() >= made_by.items()
    assert send(register("Approved"))["trial"] == "", "packages from before there were trials are served as well"


def test_a_rejected_package_becomes_the_shadow(register: Register, ledger_table: Ledger) -> None:
    arn = register("Rejected")
    send(arn)
    shadow = ledger_table.shadow()
    assert shadow is not None
    assert (shadow.spec, shadow.endpoint) == (arn, "papertape-shadow")
    assert ledger_table.incumbent() is None


def judged(*, passed: bool, model: str = "a" * 64) -> dict[str, Any]:
    reasons = ["refused: the mean excess is -3.1 bp per year", "refused: 2 seeds, 10 are needed", "passed: turnover 0.6 %"]
    return {"hashes": {"model_hash": model}, "gate": {"passed": passed, "reasons": reasons}}


def test_the_shadow_carries_the_gates_reasons_against_it(register: Register, ledger_table: Ledger) -> None:
    send(register("Rejected", evaluation=judged(passed=False)))
    shadow = ledger_table.shadow()
    assert shadow is not None
    assert shadow.refused == ("the mean excess is -3.1 bp per year", "2 seeds, 10 are needed")


@pytest.mark.parametrize("evaluation", [judged(passed=True), judged(passed=False, model="b" * 64), {}])
def test_what_a_person_rejected_or_nobody_judged_carries_no_verdict(
    register: Register, ledger_table: Ledger, evaluation: dict[str, Any]
) -> None:
    send(register("Rejected", evaluation=evaluation))
    shadow = ledger_table.shadow()
    assert shadow is not None
    assert shadow.refused == ()


def test_a_verdict_is_noticed_once_with_what_follows_from_it(
    register: Register, ledger_table: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, passed = register("Rejected", evaluation=judged(passed=False)), register("Approved", model_hash="b" * 64)
    for arn in (refused, refused, passed):
        send(arn)
    first, second = ledger_table.waiting_notices()
    assert (first.subject, second.subject) == ("a model passed and trades", "a model was refused")
    why = "The gate refused the model aaaaaaaaaaaa"
    assert second.detail.startswith(why)
    assert "the mean excess is -3.1 bp per year; 2 seeds, 10 are needed. It only watches. Equal weight trades." in second.detail
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings.model_copy(update={"gate": GateSettings(refused="trade")})))
    ledger_table.put_model(equal_weight(since="2020-01-01T12:00:00Z"))
    send(register("Rejected", evaluation=judged(passed=False, model="c" * 64), model_hash="c" * 64))
    third = next(one for one in ledger_table.waiting_notices() if "cccc" in one.detail)
    assert third.subject == "a refused model trades on paper"
    assert "It trades all the same from the next decision on, on paper only." in third.detail


def test_a_person_who_approves_what_the_gate_refused_is_not_taken_for_the_gate(
    register: Register, ledger_table: Ledger, settings: Settings
) -> None:
    send(register("Approved", evaluation=judged(passed=False)))
    (notice,) = ledger_table.waiting_notices()
    assert notice.subject == "a refused model was approved and trades"
    warning = roles_now(ledger_table, settings).warning
    assert warning == (
        "The gate refused the model that trades here, approved by a person: the mean excess is -3.1 bp per year; 2 seeds, 10 are needed"
    )


def test_a_model_that_waits_says_how_it_is_approved(register: Register, ledger_table: Ledger) -> None:
    arn = register("PendingManualApproval")
    for _ in range(2):
        assert send(arn)["outcome"] == "waits"
    (notice,) = ledger_table.waiting_notices()
    assert notice.subject == "a model waits for approval"
    assert (
        f"aws sagemaker update-model-package --region us-east-1 --model-package-arn {arn} --model-approval-status Approved" in notice.detail
    )


def test_a_pending_or_foreign_package_changes_nothing(
    sagemaker: Any, register: Register, ledger_table: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert send(register("PendingManualApproval"))["outcome"] == "waits"
    (notice,) = ledger_table.waiting_notices()
    monkeypatch.setenv("MODEL_PACKAGE_GROUP", "another")
    assert send(register("Approved"))["outcome"] == "ignored"
    assert send(register("PendingManualApproval"))["outcome"] == "ignored"
    assert ledger_table.waiting_notices() == [notice], "of another group, nothing is said"
    assert (ledger_table.incumbent(), ledger_table.shadow()) == (None, None)
    assert sagemaker.list_endpoints()["Endpoints"] == []


def test_the_same_event_twice_changes_nothing(sagemaker: Any, register: Register, ledger_table: Ledger) -> None:
    arn = register("Approved")
    send(arn)
    first = ledger_table.incumbent()
    assert send(arn, time="2020-02-01T12:00:00Z")["outcome"] == "unchanged"
    assert ledger_table.incumbent() == first
    assert len(sagemaker.list_models()["Models"]) == 1


def test_a_newer_package_takes_over_and_a_late_event_of_the_older_does_not(
    sagemaker: Any, register: Register, ledger_table: Ledger
) -> None:
    old, new = register("Approved"), register("Approved", model_hash="b" * 64)
    send(old)
    send(new)
    assert sagemaker.describe_endpoint(EndpointName="papertape-incumbent")["EndpointConfigName"] == "papertape-2-incumbent"
    assert send(old)["outcome"] == "superseded"
    model = ledger_table.incumbent()
    assert model is not None
    assert model.spec == new


def test_the_pointer_waits_until_the_endpoint_serves(register: Register, ledger_table: Ledger) -> None:
    arn = register("Approved")
    send(arn)
    newer = register("Approved", model_hash="b" * 64)
    endpoint_of("papertape-incumbent").endpoint_status = "Updating"
    with pytest.raises(NotServingYetError, match="does not serve papertape-2-incumbent yet"):
        send(newer, remaining_ms=0)
    model = ledger_table.incumbent()
    assert model is not None
    assert model.spec == arn
    endpoint_of("papertape-incumbent").endpoint_status = "InService"
    assert send(newer)["outcome"] == "deployed"
    model = ledger_table.incumbent()
    assert model is not None
    assert model.spec == newer


def test_a_failed_endpoint_is_an_error_that_says_why(register: Register, ledger_table: Ledger) -> None:
    arn = register("Rejected")
    send(arn)
    other = register("Rejected", model_hash="b" * 64)
    endpoint = endpoint_of("papertape-shadow")
    endpoint.endpoint_status, endpoint.endpoint_config_name, endpoint.failure_reason = "Failed", "papertape-2-shadow", "no ping"
    with pytest.raises(DeploymentError, match="papertape-shadow failed with papertape-2-shadow"):
        send(other)


def test_rejecting_the_incumbent_hands_over_to_equal_weight(sagemaker: Any, register: Register, ledger_table: Ledger) -> None:
    arn = register("Approved")
    send(arn)
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Rejected", CustomerMetadataProperties=METADATA)
    send(arn)
    incumbent, shadow = ledger_table.incumbent(), ledger_table.shadow()
    assert incumbent is not None
    assert shadow is not None
    assert (incumbent.policy, incumbent.kappa) == ("equal-weight", 1.0)
    assert shadow.spec == arn


@pytest.mark.parametrize(("missing", "value"), [("model_hash", ""), ("kappa", ""), ("kappa", "fast"), ("kappa", "1.5")])
def test_a_package_without_its_metadata_is_refused(register: Register, ledger_table: Ledger, missing: str, value: str) -> None:
    with pytest.raises(DeploymentError, match=f"CustomerMetadataProperties.{missing}"):
        send(register("Approved", **{missing: value}))
    assert ledger_table.incumbent() is None
