"""Repair a lake's corporate actions: what is wrong is shown, and put right on confirmation.

The work is the function's that fills the lake (`lambdas/backfill_bars`), of the laptop's run or of the account of the environment's
credentials; it is only invoked here. Promise: without a yes nothing is changed, and repeating changes nothing. Failure: `OperatorError`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.markup import escape

from papertape.operate.client import OperatorError, running
from papertape.operate.commands import agreed
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET, refuse_foreign_endpoints
from schema.settings import Settings

OUTPUT = "BackfillBarsFunction"
#: The function's own limit is fifteen minutes.
CONFIG = Config(read_timeout=910, retries={"total_max_attempts": 1})
Document = Mapping[str, Any]


@dataclass(frozen=True)
class BackfillFunction:
    """The deployed function, and the name of its deployment that is shown on the first line."""

    name: str
    function: str
    client: Any

    def repair(self, how: str) -> Document:
        try:
            answer = self.client.invoke(FunctionName=self.function, Payload=json.dumps({"repair": how}).encode())
            document = json.loads(answer["Payload"].read())
        except (BotoCoreError, ClientError, ValueError) as error:
            done = "nothing was changed" if how == "show" else "whether it was repaired is unknown; run it again, repeating does no harm"
            raise OperatorError(f"{self.name}: {self.function} has no answer ({error}): {done}") from error
        if "FunctionError" in answer:
            raise OperatorError(f"{self.name}: {self.function} failed: {document.get('errorMessage', document)}")
        found: Document = document
        return found


def function_on_laptop(folder: Path | None) -> BackfillFunction:
    """That of the run on this machine, in `folder` if one is given."""
    run = running(folder)
    session = boto3.Session(aws_access_key_id=LOCAL_ACCOUNT, aws_secret_access_key=LOCAL_SECRET, region_name=run.region)
    return _function(run.name, session, endpoint_url=run.cloud)


def function_on_aws(settings: Settings) -> BackfillFunction:
    """That of the stack of `settings` in the account of the environment's credentials."""
    refuse_foreign_endpoints(os.environ)
    stack = f"{settings.name}-ingest"
    return _function(f"stack {stack} in {settings.region}", boto3.Session(region_name=settings.region), stack=stack)


def repair(function: BackfillFunction, *, yes: bool, console: Console) -> None:
    """Show what is wrong, ask unless `yes`, and put it right."""
    console.print(function.name)
    shown = function.repair("show")
    for line in _lines(shown):
        console.print(escape(line), soft_wrap=True)
    if not shown["objects"]:
        console.print("Every corporate action is there once: nothing is to be repaired.")
        return
    if not yes and not agreed():
        raise OperatorError("nothing was changed; to go on answer y, or add --yes")
    done = function.repair("apply")
    console.print(
        f"Repaired: {done['objects']} objects were written. Features follow with the next nightly build, models with the next training."
    )


def _lines(document: Document) -> list[str]:
    counted = Counter(tuple(correction.items()) for correction in document["corrections"])
    lines = []
    for items, count in counted.items():
        one = dict(items)
        value = "" if one["value"] is None else f" {one['value']:g}"
        many = f" ({count} times)" if count > 1 else ""
        lines.append(f"{one['change']} {one['symbol']} {one['ex_date']} {one['kind']}{value}{many}")
    if document["identified"]:
        lines.append(f"give {document['identified']} more actions the vendor's id")
    return lines


def _function(name: str, session: boto3.Session, *, stack: str | None = None, endpoint_url: str | None = None) -> BackfillFunction:
    try:
        formation = session.client("cloudformation", endpoint_url=endpoint_url)
        pages = formation.get_paginator("describe_stacks").paginate(**({"StackName": stack} if stack else {}))
        outputs = [output for page in pages for one in page["Stacks"] for output in one.get("Outputs", ())]
        found = [output["OutputValue"] for output in outputs if output["OutputKey"] == OUTPUT]
        client = session.client("lambda", endpoint_url=endpoint_url, config=CONFIG)
    except (BotoCoreError, ClientError) as error:
        raise OperatorError(f"{name} cannot be read ({error}): credentials of its account are needed") from error
    if not found:
        raise OperatorError(f"{name} has no output {OUTPUT}: deploy it first")
    return BackfillFunction(name, found[0], client)
