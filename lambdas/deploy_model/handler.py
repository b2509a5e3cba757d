"""A model package was approved or rejected: serve it, then let it decide or watch.

Event: EventBridge "SageMaker Model Package State Change"; only its `detail.ModelPackageArn` and `time` are used, the status is read from
the registry, so late and repeated events do what is right now. An endpoint that is still being made raises `NotServingYetError`: the
asynchronous retry continues from there. One that failed, or that does not answer as the package's own, is an alert of the day on which
`health` looks next, and the error of the function; the pointer stays where it was. What nothing points to any more is deleted at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any

import boto3
from botocore.config import Config

from lambdas.common import environment
from lambdas.common.lake.provenance import default_registry
from lambdas.common.ledger.ledger import ledger_from_environment
from lambdas.common.ledger.records import AlertRecord, ServedModel
from lambdas.common.ledger.roles import roles_now
from lambdas.common.telemetry import entry, logger
from lambdas.deploy_model.leftovers import tidy
from lambdas.deploy_model.news import of_a_verdict, of_a_wait
from lambdas.deploy_model.packages import DeploymentError, ModelPackage, describe, has_role, serve, waits_for_approval
from lambdas.deploy_model.pointers import point
from lambdas.deploy_model.probe import fitting, probe
from lambdas.deploy_model.verdict import refusals
from schema.exchange_time import iso, new_york_date, parse_utc
from schema.served_names import served_name
from schema.settings import deployed

POLL_SECONDS = 5.0
RESERVE_MS = 90_000  # a probe of a cold endpoint, and what follows it
SATURDAY = 5


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
    app = variables.endpoint_name
    endpoint = served_name(app, version=package.version, model_hash=package.metadata.model_hash)

    def deploy() -> None:
        wait = _wait_while_time_is_left(context.get_remaining_time_in_millis if context else lambda: 0)
        card = fitting(s3=boto3.client("s3"), package=package, slots=settings.row_slots)
        serve(sagemaker=sagemaker, package=package, name=endpoint, role_arn=variables.serving_role_arn, wait=wait)
        probe(runtime=_runtime(), package=package, card=card, endpoint=endpoint, wait=wait)

    def still(model: ServedModel) -> bool:
        return has_role(sagemaker=sagemaker, arn=model.spec, role=model.role)

    since, reasons = event["time"], partial(refusals, default_registry(), package)
    try:
        outcome = point(ledger=ledger, package=package, endpoint=endpoint, since=since, deploy=deploy, refused=reasons, still=still)
    except DeploymentError as error:
        ledger.put_alert(_not_deployed(package, error, time=event["time"]))
        raise
    model = ledger.incumbent() if package.role == "incumbent" else ledger.shadow()
    if model is not None and model.spec == package.arn:  # also after a run that died in between: a notice is put once
        ledger.put_notice(of_a_verdict(model, roles=roles_now(ledger, settings), time=event["time"]))
    serving = {model.endpoint for model in (ledger.incumbent(), ledger.shadow()) if model is not None and model.endpoint}
    gone = tidy(sagemaker=sagemaker, app=app, serving=serving, up_to=package.version)
    made_by = {"trial": package.metadata.trial or "", "configuration": package.metadata.configuration or ""}
    removed = ", ".join(f"{made.kind} {made.name}" for made in gone)
    return _outcome(outcome, package=package.arn, endpoint=endpoint, role=package.role, removed=removed, **made_by)


def _not_deployed(package: ModelPackage, error: DeploymentError, *, time: str) -> AlertRecord:
    """Training ends on a Saturday, and `health` looks on working days: the alert is of the next one."""
    day = new_york_date(parse_utc(time))
    while day.weekday() >= SATURDAY:
        day += timedelta(days=1)
    subject = f"Version {package.version} is not the {package.role}; what was stays"
    return AlertRecord(
        rule=f"model-not-served:{package.version}", session=day.isoformat(), subject=subject, detail=str(error), time=iso(parse_utc(time))
    )


@lru_cache(maxsize=1)
def _runtime() -> Any:
    """A cold endpoint may take a minute; `probe` asks it again itself."""
    return boto3.client("sagemaker-runtime", config=Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 1}))


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
