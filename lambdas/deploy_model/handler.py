"""A model package was approved or rejected: serve it, then let it decide or watch.

Event: EventBridge "SageMaker Model Package State Change"; only its `detail.ModelPackageArn` and `time` are used, the status is read from
the registry, so late and repeated events do what is right now. An endpoint that is still being made raises `NotServingYetError`: the
asynchronous retry continues from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import boto3

from lambdas.common import environment
from lambdas.common.lake.provenance import default_registry
from lambdas.common.ledger.ledger import ledger_from_environment
from lambdas.common.ledger.roles import roles_now
from lambdas.common.telemetry import entry, logger
from lambdas.deploy_model.news import of_a_verdict, of_a_wait
from lambdas.deploy_model.packages import describe, serve, waits_for_approval
from lambdas.deploy_model.pointers import point
from lambdas.deploy_model.verdict import refusals
from schema.settings import deployed

POLL_SECONDS = 5.0
RESERVE_MS = 15_000


class DeployVariables(environment.Variables):
    endpoint_name: str
    serving_role_arn: str
    model_package_group: str


@entry
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    variables, ledger, sagemaker = environment.read(DeployVariables), ledger_from_environment(), boto3.client("sagemaker")
    settings, arn = deployed(), event["detail"]["ModelPackageArn"]
    package = describe(sagemaker=sagemaker, arn=arn)
    if package is None and waits_for_approval(sagemaker=sagemaker, arn=arn, group=variables.model_package_group):
        ledger.put_notice(of_a_wait(arn, region=settings.region, time=event["time"]))
        return _outcome("waits", reason="a person approves or rejects it", package=arn)
    if package is None or package.group != variables.model_package_group:
        return _outcome("ignored", reason="no role", package=arn)
    endpoint = f"{variables.endpoint_name}-{package.role}"

    def deploy() -> None:
        wait = _wait_while_time_is_left(context.get_remaining_time_in_millis if context else lambda: 0)
        serve(sagemaker=sagemaker, package=package, endpoint=endpoint, role_arn=variables.serving_role_arn, wait=wait)

    reasons = partial(refusals, default_registry(), package)
    outcome = point(ledger=ledger, package=package, endpoint=endpoint, since=event["time"], deploy=deploy, refused=reasons)
    model = ledger.incumbent() if package.role == "incumbent" else ledger.shadow()
    if model is not None and model.spec == package.arn:  # also after a run that died in between: a notice is put once
        ledger.put_notice(of_a_verdict(model, roles=roles_now(ledger, settings), time=event["time"]))
    made_by = {"trial": package.metadata.trial or "", "configuration": package.metadata.configuration or ""}
    return _outcome(outcome, package=package.arn, endpoint=endpoint, role=package.role, **made_by)


def _wait_while_time_is_left(remaining_ms: Callable[[], int]) -> Callable[[], bool]:
    """Pause between two looks at the endpoint while the function has time left."""

    def wait() -> bool:
        if remaining_ms() < RESERVE_MS:
            return False
        time.sleep(POLL_SECONDS)
        return True

    return wait


def _outcome(outcome: str, **details: str) -> dict[str, Any]:
    logger.info(outcome, extra=details)
    return {"outcome": outcome, **details}
