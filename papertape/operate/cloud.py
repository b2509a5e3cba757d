"""The cloud that a deployment lives in: AWS in the settings' region, or a local run's cloud with the same API.

Promise: every client has the region of the settings, never the shell's, and no endpoint but AWS's own or this machine's is called; each
thing of the app is found by the outputs of its stacks. Failure: `OperatorError`, one line with the remedy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from papertape.operate.client import Client, OperatorError, on_aws, on_laptop, running
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET, refuse_foreign_endpoints
from schema.settings import Settings

#: The app's stacks in the order in which they are deployed; what outlives the others is in the first.
STACKS = ("lake", "ingest", "features", "model", "trading", "dashboard", "monitoring", "realtime")
#: Those that a setting asks for.
WEB, RUNNER = "dashboard", "realtime"
#: Seconds that a call may take to be answered: as long as a function may run.
LONGEST_CALL = 900.0


@dataclass(frozen=True, kw_only=True)
class AppCloud:
    """Where the app of `settings` is, or will be, deployed. `broker` overrides the broker's addresses, for a local exchange."""

    name: str
    settings: Settings
    session: boto3.Session = field(repr=False)
    endpoint: str = ""
    broker: Mapping[str, str] = field(default_factory=dict)
    api: Client | None = None
    _clients: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def client(self, service: str) -> Any:
        """The service's client; a function is invoked once and waited for, however long it may run."""
        if service not in self._clients:
            once = Config(read_timeout=LONGEST_CALL, tcp_keepalive=True, retries={"total_max_attempts": 1 if service == "lambda" else 4})
            override = {"endpoint_url": self.endpoint} if self.endpoint else {}
            self._clients[service] = self.session.client(service, region_name=self.settings.region, config=once, **override)
        return self._clients[service]

    def stack(self, part: str) -> str:
        return f"{self.settings.name}-{part}"

    def outputs(self, *parts: str) -> dict[str, str]:
        """The outputs of the stacks `parts` (default: all); raise OperatorError for one that is not deployed."""
        found: dict[str, str] = {}
        for part in parts or self._expected():
            described = self.described(part)
            if described is None or not described["StackStatus"].endswith("_COMPLETE") or "ROLLBACK" in described["StackStatus"]:
                state = "does not exist" if described is None else f"is {described['StackStatus']}"
                raise OperatorError(f"stack {self.stack(part)} in {self.settings.region} {state}: deploy first, with `make deploy`")
            found |= {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
        return found

    def _expected(self) -> tuple[str, ...]:
        off = {part for part, on in ((WEB, self.settings.dashboard.enabled), (RUNNER, self.settings.runner.enabled)) if not on}
        return tuple(part for part in STACKS if part not in off)

    def described(self, part: str) -> dict[str, Any] | None:
        """The stack as CloudFormation describes it, None where there is none."""
        with asking(f"stack {self.stack(part)} in {self.settings.region} cannot be read"):
            try:
                stack: dict[str, Any] = self.client("cloudformation").describe_stacks(StackName=self.stack(part))["Stacks"][0]
            except ClientError as error:
                if "does not exist" in str(error):
                    return None
                raise
        return stack

    @property
    def make_option(self) -> str:
        """What the operator's commands of make need to reach this one."""
        return "" if self.api else " on=aws"

    def execution_api(self) -> Client:
        return self.api or on_aws(self.settings)


def aws(settings: Settings) -> AppCloud:
    """The account of the environment's credentials, in the settings' region."""
    refuse_foreign_endpoints(os.environ)
    local = os.environ.get("AWS_ENDPOINT_URL", "")
    where = f"the local cloud at {local}" if local else "AWS"
    return AppCloud(name=f"{settings.name} on {where} in {settings.region}", settings=settings, session=boto3.Session(), broker=os.environ)


def laptop(settings: Settings, folder: Path | None) -> AppCloud:
    """The run that is up on this machine, in `folder` if one is given."""
    run = running(folder)
    session = boto3.Session(aws_access_key_id=LOCAL_ACCOUNT, aws_secret_access_key=LOCAL_SECRET)
    at = {"ALPACA_TRADING_URL": run.broker, "ALPACA_DATA_URL": run.broker} if run.broker else {}
    moved = settings.model_copy(update={"region": run.region})
    api = on_laptop(run.folder)
    return AppCloud(name=f"{settings.name} in {api.name}", settings=moved, session=session, endpoint=run.cloud, broker=at, api=api)


@contextmanager
def asking(problem: str) -> Iterator[None]:
    """Turn AWS's own refusal inside the block into one line that begins with `problem`."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise OperatorError(f"{problem}: {error}") from error


def stored_json(cloud: AppCloud, *, bucket: str, key: str) -> dict[str, Any] | None:
    """The document at `key`, None where there is none."""
    with asking(f"s3://{bucket}/{key} cannot be read"):
        try:
            body = cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return None
            raise
    document: dict[str, Any] = json.loads(body)
    return document
