"""The end of a deployment: its stacks, what the app made beside them, and a list of what is left.

Promises: only what bears the app's name goes, in the settings' region; the lake (data, ledger, audit) and the broker's secret are never
touched. What is gone already is no error, so it may be repeated after an interruption. Failure: `OperatorError`, with what refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError, WaiterError
from rich.console import Console

from papertape.operate.client import OperatorError
from papertape.operate.cloud import STACKS, AppCloud, asking
from papertape.operate.commands import agreed
from papertape.operate.secret import secret_name
from schema.served_names import served_version

#: What stays, and holds everything that cannot be had again.
KEPT = "lake"
PAUSE, LOOKS = 5.0, 720  # seconds between two looks at a stack that goes, and how many: an hour
#: States of a stack that is being made or changed, which has to end first.
BUSY = re.compile(r"_IN_PROGRESS$")


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something that stays, and the command that deletes it."""

    what: str
    command: str


def run(cloud: AppCloud, *, yes: bool, console: Console) -> None:
    """Show what goes, ask unless `yes`, remove it, and list what stays."""
    console.print(cloud.name)
    stacks = [part for part in reversed(STACKS) if part != KEPT and cloud.described(part) is not None]
    made = list(_made(cloud))
    for line in (*(f"stack {cloud.stack(part)}" for part in stacks), *(what for what, _ in made)):
        console.print(f"  removes {line}", highlight=False)
    if not stacks and not made:
        console.print("Nothing of it runs: nothing was removed.")
    elif not yes and not agreed():
        raise OperatorError("nothing was removed; to go on answer y, or add --yes (make: yes=1)")
    for part in stacks:
        with console.status(f"removing {cloud.stack(part)}"):
            _delete_stack(cloud, part)
        console.print(f"removed stack {cloud.stack(part)}", highlight=False)
    for what, delete in (*made, *_made_since(cloud, made)):
        with asking(f"{what} cannot be removed"):
            _unless_gone(delete)
        console.print(f"removed {what}", highlight=False)
    console.print("Positions and open orders at the broker stay as they are. What else stays, and the command that deletes it:")
    for left in leftovers(cloud):
        console.print(f"  {left.what}\n    {left.command}", soft_wrap=True, highlight=False, markup=False)


def _delete_stack(cloud: AppCloud, part: str) -> None:
    client, name = cloud.client("cloudformation"), cloud.stack(part)
    stack = cloud.described(part)
    if stack is not None and BUSY.search(stack["StackStatus"]) and not stack["StackStatus"].startswith("DELETE"):
        raise OperatorError(f"stack {name} is {stack['StackStatus']}: wait until that has ended, and repeat this")
    with asking(f"stack {name} cannot be removed"):
        client.delete_stack(StackName=name)
        try:
            client.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": PAUSE, "MaxAttempts": LOOKS})
        except WaiterError as error:
            events = client.describe_stack_events(StackName=name)["StackEvents"]
            failed = [e for e in events if e["ResourceStatus"] == "DELETE_FAILED" and e["LogicalResourceId"] != name]
            why = "; ".join(f"{e['LogicalResourceId']}: {e.get('ResourceStatusReason', '')}" for e in failed[:2]) or str(error)
            raise OperatorError(f"stack {name} was not removed: {why}") from error


# What the app makes outside of CloudFormation

Removal = tuple[str, Callable[[], Any]]


def _made(cloud: AppCloud) -> Iterator[Removal]:
    """Endpoints, their configurations, models, model packages and the group of these, in an order in which they can go."""
    client, name = cloud.client("sagemaker"), cloud.settings.name
    kinds = (
        ("endpoint", "list_endpoints", "Endpoints", "EndpointName", client.delete_endpoint),
        ("endpoint configuration", "list_endpoint_configs", "EndpointConfigs", "EndpointConfigName", client.delete_endpoint_config),
        ("model", "list_models", "Models", "ModelName", client.delete_model),
    )
    for kind, listing, key, field, delete in kinds:
        with asking(f"what SageMaker keeps of {name} cannot be listed"):
            pages = client.get_paginator(listing).paginate(NameContains=name)
            found = sorted(entry[field] for page in pages for entry in page[key])
        for one in found:
            if served_version(name, one) is not None:
                yield f"{kind} {one}", partial(delete, **{field: one})
    yield from _packages(client, name)


def _packages(client: Any, group: str) -> Iterator[Removal]:
    with asking(f"the model packages of {group} cannot be listed"):
        groups = client.list_model_package_groups(NameContains=group)["ModelPackageGroupSummaryList"]
        if not any(entry["ModelPackageGroupName"] == group for entry in groups):
            return
        pages = client.get_paginator("list_model_packages").paginate(ModelPackageGroupName=group)
        packages = [entry["ModelPackageArn"] for page in pages for entry in page["ModelPackageSummaryList"]]
    for arn in packages:
        yield f"model package {arn.rpartition('model-package/')[2]}", partial(client.delete_model_package, ModelPackageName=arn)
    yield f"model package group {group}", partial(client.delete_model_package_group, ModelPackageGroupName=group)


def _made_since(cloud: AppCloud, before: Sequence[Removal]) -> list[Removal]:
    """What the app made while its stacks went: after them, nothing can make more."""
    known = {what for what, _ in before}
    return [(what, delete) for what, delete in _made(cloud) if what not in known]


def _unless_gone(delete: Callable[[], Any]) -> None:
    try:
        delete()
    except ClientError as error:
        if not re.search(r"[Cc]ould not find|does not exist|ResourceNotFound", str(error)):
            raise


# What stays


def leftovers(cloud: AppCloud) -> Iterator[Leftover]:
    """What the deployment leaves behind, whether a stack still holds it or not."""
    region, lake = f"--region {cloud.settings.region}", cloud.stack(KEPT)
    if cloud.described(KEPT) is not None:
        unlock = f"aws cloudformation update-termination-protection --no-enable-termination-protection --stack-name {lake} {region}"
        delete = f"aws cloudformation delete-stack --stack-name {lake} {region}"
        yield Leftover(what=f"stack {lake}; its buckets, table and queue stay even then", command=f"{unlock} && {delete}")
    with asking(f"what is left of {cloud.settings.name} cannot be listed"):
        yield from _storage(cloud, lake, region)
        yield from _logs(cloud, region)
    yield Leftover(
        what=f"secret {secret_name(cloud)}, if you stored it",
        command=f"aws secretsmanager delete-secret --secret-id {secret_name(cloud)} {region}",
    )


def _storage(cloud: AppCloud, lake: str, region: str) -> Iterator[Leftover]:
    for bucket in sorted(entry["Name"] for entry in cloud.client("s3").list_buckets()["Buckets"]):
        if bucket.startswith(f"{lake}-"):
            locked = "-audit" in bucket
            why = ", whose records are locked for a year unless you may bypass governance retention" if locked else ""
            yield Leftover(
                what=f"bucket {bucket}{why}",
                command=f"empty it with all its versions in the S3 console, then aws s3api delete-bucket --bucket {bucket} {region}",
            )
    for page in cloud.client("dynamodb").get_paginator("list_tables").paginate():
        for table in page["TableNames"]:
            if table.startswith(f"{lake}-"):
                unlock = f"aws dynamodb update-table --table-name {table} --no-deletion-protection-enabled {region}"
                yield Leftover(what=f"table {table}", command=f"{unlock} && aws dynamodb delete-table --table-name {table} {region}")
    for url in cloud.client("sqs").list_queues(QueueNamePrefix=f"{lake}-").get("QueueUrls", []):
        yield Leftover(what=f"queue {url.rpartition('/')[2]}", command=f"aws sqs delete-queue --queue-url {url} {region}")


def _logs(cloud: AppCloud, region: str) -> Iterator[Leftover]:
    """The services' own log groups, and those of stacks that are gone."""
    client, name = cloud.client("logs"), cloud.settings.name
    services = ("/aws/sagemaker/TrainingJobs", "/aws/sagemaker/ProcessingJobs", "/aws-glue/jobs/")
    ours = (f"{name}-", f"/aws/lambda/{name}-", f"/aws/sagemaker/Endpoints/{name}-", *services)
    for prefix in ours:
        for page in client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
            for group in page["logGroups"]:
                others = "" if name in group["logGroupName"] else ", which other applications of the account write to as well"
                yield Leftover(
                    what=f"log group {group['logGroupName']}{others}",
                    command=f"aws logs delete-log-group --log-group-name {group['logGroupName']} {region}",
                )
