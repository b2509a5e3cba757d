"""The endpoint as a dependency that fails, on the local cloud: gone for a day, a model that does not answer, an app that is destroyed.

Last in the order of the files: it approves packages, and the others count what they approved themselves.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable
from typing import Any

import pytest

from lambdas.common.ledger.records import AlertRecord
from lambdas.deploy_model import leftovers
from learning.packaging import archive
from local.replay.local_deployment import TrainingResult
from tests.e2e.conftest import EVE, FIRST, FUNCTIONS, App

pytestmark = pytest.mark.rehearse

BROKEN = b"\ndef predict_fn(request, model):\n    raise RuntimeError('the weights were never loaded')\n"


def until(what: Callable[[], Any], *, seconds: float = 60) -> Any:
    """Poll until `what` is true and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return value


def approve(app: App, arn: str) -> str:
    """Approve a package and wait until it decides; its endpoint."""
    app.deployment.client("sagemaker").update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    model = until(lambda: (now := app.deployment.ledger.incumbent()) is not None and now.spec == arn and now)
    until(lambda: model.endpoint in endpoints(app))
    return str(model.endpoint)


def endpoints(app: App) -> list[str]:
    return [one["EndpointName"] for one in app.deployment.client("sagemaker").list_endpoints()["Endpoints"]]


def alerts(app: App) -> dict[str, AlertRecord]:
    return {alert.rule: alert for alert in app.deployment.ledger.alerts(FIRST[:7])}


@pytest.fixture(scope="module")
def serving(app: App, trained: TrainingResult) -> str:
    """The endpoint of the trained model, which decides."""
    app.begin(f"{EVE}T22:00:00Z")
    return approve(app, trained.package_arn)


def test_an_endpoint_that_is_gone_for_a_day_is_traded_without_and_said(app: App, trained: TrainingResult, serving: str) -> None:
    app.exchange.advance(f"{FIRST}T13:35:00Z")
    wanted = app.deployment.invoke(app.deployment.output(FUNCTIONS["decide"]), {"dry_run": True})
    assert (wanted["strategy"], wanted["rule"], wanted["slot"]) == ("endpoint", None, f"{FIRST}/open+5")
    app.deployment.client("sagemaker").delete_endpoint(EndpointName=serving)
    with app.with_variables("decide", ENDPOINT_RETRY_SECONDS="0"):
        told = app.succeed("decide", f"{FIRST}T13:35:00Z")
    assert (told["outcome"], told["orders"]) == ("decided", 8)
    made = app.deployment.ledger.decision(f"agent:{FIRST}/open+5")
    assert made is not None
    assert made.weights == wanted["targets"], "the endpoint's own, bit for bit"
    assert serving in alerts(app)["endpoint-fallback"].detail
    assert approve(app, trained.package_arn) == serving, "approved again, it is made anew"


def test_a_model_that_does_not_answer_moves_no_pointer(app: App, trained: TrainingResult, serving: str) -> None:
    """Its server comes up and passes the health check; each question ends in an error."""
    sagemaker, before = app.deployment.client("sagemaker"), app.deployment.ledger.incumbent()
    with tarfile.open(fileobj=io.BytesIO(trained.artifact)) as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar.getmembers()}  # type: ignore[union-attr]
    files["code/learning/serving.py"] += BROKEN
    bucket = app.deployment.output("ProcessedBucket")
    app.deployment.client("s3").put_object(Bucket=bucket, Key="models/broken/model/model.tar.gz", Body=archive(files))
    described = sagemaker.describe_model_package(ModelPackageName=trained.package_arn)
    container = {**described["InferenceSpecification"]["Containers"][0], "ModelDataUrl": f"s3://{bucket}/models/broken/model/model.tar.gz"}
    version = sagemaker.create_model_package(
        ModelPackageGroupName=described["ModelPackageGroupName"],
        ModelApprovalStatus="Approved",
        CustomerMetadataProperties=described["CustomerMetadataProperties"],
        InferenceSpecification={**described["InferenceSpecification"], "Containers": [container]},
    )["ModelPackageArn"]
    try:
        (refused,) = until(lambda: [alert for rule, alert in alerts(app).items() if rule.startswith("model-not-served")], seconds=120)
        assert "is in service and does not answer" in refused.detail
        assert app.deployment.ledger.incumbent() == before
    finally:
        sagemaker.delete_model_package(ModelPackageName=version)


def test_what_an_app_made_outside_of_its_stacks_is_listed_and_deleted(app: App, serving: str) -> None:
    sagemaker, name = app.deployment.client("sagemaker"), app.settings.name
    made = leftovers.made_by(sagemaker=sagemaker, app=name)
    assert {"endpoint", "endpoint-config", "model"} == {one.kind for one in made}
    assert serving in {one.name for one in made}
    for one in made:
        assert leftovers.remove(sagemaker=sagemaker, made=one)
    assert leftovers.made_by(sagemaker=sagemaker, app=name) == []
    assert endpoints(app) == []
