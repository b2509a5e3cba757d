"""What every page and every route of the web app works with: who asks, when, and the ways to what they ask about.

`of_event` makes it once per request from the gateway's event and the function's variables; clients are kept from one request to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from lambdas.common.api.caller import requested_at
from lambdas.common.api.client import ExecutionApi, execution_api_from_environment
from lambdas.common.environment import Variables, read
from lambdas.common.lake.audit import AuditBucket
from lambdas.common.lake.lake import Lake, lake
from lambdas.common.lake.provenance import Registry, default_registry
from lambdas.common.ledger.actions import Actions, actions_of
from lambdas.common.ledger.ledger import Ledger, ledger_of
from lambdas.dashboard.principal import Principal
from schema.settings import Settings, deployed

#: Months and days that an account can have: arithmetic with them stays within the calendar.
MONTH_PATTERN = r"^(19|20)[0-9]{2}-(0[1-9]|1[0-2])$"
FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(2099, 12, 31)


class DashboardVariables(Variables):
    """`runs_pipeline`: the pipeline that does what is asked for; empty on the laptop, whose server starts what it finds queued.
    `uploads`: "presigned", by S3 itself, or a path of this server."""

    ledger_table: str
    raw_bucket: str
    processed_bucket: str
    audit_bucket: str
    package_group: str
    runs_pipeline: str = ""
    uploads: str = "presigned"
    code_version: str = "unknown"


@dataclass(frozen=True)
class PageRequest:
    """One request: `now` is the gateway's time, ISO 8601 UTC."""

    principal: Principal
    now: str
    variables: DashboardVariables
    settings: Settings

    @classmethod
    def of_event(cls, event: dict[str, Any]) -> PageRequest:
        context = event["requestContext"]
        return cls(principal=Principal.of(context), now=requested_at(context), variables=read(DashboardVariables), settings=deployed())

    @cached_property
    def ledger(self) -> Ledger:
        return ledger_of(self.variables.ledger_table)

    @cached_property
    def actions(self) -> Actions:
        return actions_of(self.variables.ledger_table)

    @cached_property
    def lake(self) -> Lake:
        names = self.variables
        return lake(raw_bucket=names.raw_bucket, processed_bucket=names.processed_bucket, audit_bucket=names.audit_bucket)

    @cached_property
    def registry(self) -> Registry:
        return default_registry()

    @cached_property
    def audit(self) -> AuditBucket:
        return AuditBucket(s3=self.registry.s3, name=self.variables.audit_bucket)

    @cached_property
    def execution(self) -> ExecutionApi:
        return execution_api_from_environment()
