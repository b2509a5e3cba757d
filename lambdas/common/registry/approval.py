"""Approve, reject, and return to a version of the model: what a person does in the registry, from which `deploy_model` follows.

Promise: an action changes nothing but the approval of packages of this app's own group, with who did it, when and why; what must not be
raises `ModelActionError`, one line, before anything is changed. The pointers in the ledger are moved by `deploy_model` alone, from the
registry's own event. The same person asking for the same with the same reason within `REPEATED` repeats a request, and gets its answer.
Failure: botocore's errors; a way back that was interrupted leaves equal weight or the model that traded, and is finished by asking again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict

from lambdas.common.lake.audit import AuditBucket
from lambdas.common.lake.lake import LakeError, document_of, read_object
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import ServedModel
from lambdas.common.ledger.roles import roles
from lambdas.common.registry.package_slots import slots_of
from lambdas.common.registry.rules import ACTIONS, Action, objection, outcome, words_missing
from lambdas.common.registry.versions import (
    DECIDED_AT,
    DECIDED_BY,
    ModelHistoryEntry,
    ModelPage,
    ModelVersion,
    Status,
    evaluation_uri,
    version_of,
)
from schema.exchange_time import iso, new_york_date, parse_utc
from schema.settings import Settings
from trading_env.errors import PapertapeError
from trading_env.simulation.artifact import slots_problem

REASON_LIMIT = 500  # the registry holds 1,024 characters
DONE: dict[Action, Status] = {"approve": "approved", "reject": "rejected", "return": "approved"}
HISTORY = 50
WORKERS = 8
REPEATED = timedelta(minutes=15)
NOT_METADATA = re.compile(r"[^\w .:/=+\-@]")


class ModelActionError(PapertapeError, ValueError):
    """The action must not be taken; the message says why in one line."""


class ModelAction(BaseModel):
    """What was done to a version, and in `words` what happens now."""

    model_config = ConfigDict(frozen=True)
    action: Action
    arn: str
    version: int
    by: str
    reason: str
    at: str
    withdrawn: tuple[int, ...]
    words: str


@dataclass(frozen=True, kw_only=True)
class ModelGroup:
    """The model package group `group` of this app; the clients are boto3's, `audit_bucket` holds the records of models that had a role."""

    sagemaker: Any
    s3: Any
    ledger: Ledger
    settings: Settings
    group: str
    audit_bucket: str

    def page(self, *, now: datetime, limit: int = 20, cursor: str | None = None) -> ModelPage:
        """Versions, the newest first, each with what may not be done to it at `now`."""
        more = {} if cursor is None else {"NextToken": cursor}
        try:
            answer = self.sagemaker.list_model_packages(
                ModelPackageGroupName=self.group, SortBy="CreationTime", SortOrder="Descending", MaxResults=limit, **more
            )
        except ClientError as error:
            if cursor is None or error.response["Error"]["Code"] not in ("ValidationException", "InvalidToken"):
                raise
            raise ModelActionError(f"no such page of versions: {cursor[:80]!r}") from error
        arns = [summary["ModelPackageArn"] for summary in answer["ModelPackageSummaryList"]]
        if not arns:
            return ModelPage(versions=(), cursor=answer.get("NextToken"))
        with ThreadPoolExecutor(max_workers=min(WORKERS, len(arns))) as pool:
            found = list(pool.map(lambda arn: self._version(self._described(arn)), arns))
        return ModelPage(versions=tuple(self._in_place(found, now=now)), cursor=answer.get("NextToken"))

    def version(self, arn: str, *, now: datetime) -> ModelVersion:
        """One version; raises `ModelActionError` when this group has none of that ARN."""
        return self._in_place([self._version(self._described(arn))], now=now)[0]

    def history(self) -> tuple[ModelHistoryEntry, ...]:
        """The models that had a role, the newest first: what the audit bucket kept, and those that have one now."""
        audit = AuditBucket(s3=self.s3, name=self.audit_bucket)
        kept = [record for key in audit.keys_of("models")[-HISTORY:] if (record := audit.record(key)) is not None]
        now = [model.model_dump(mode="json") for model in (self.ledger.incumbent(), self.ledger.shadow()) if model is not None]
        found = {(record["role"], record["since"], record["spec"]): record for record in (*now, *kept)}
        return _history(found.values())

    def approve(self, arn: str, *, reason: str, by: str, at: datetime, words: str = "") -> ModelAction:
        """Let the version trade. `words` repeat the setting that allows it, for one that the gate refused (`rules.WORDS`)."""
        return self._act("approve", arn, reason=reason, by=by, at=at, words=words)

    def reject(self, arn: str, *, reason: str, by: str, at: datetime) -> ModelAction:
        """Let the version only watch; the incumbent is replaced by equal weight."""
        return self._act("reject", arn, reason=reason, by=by, at=at)

    def return_to(self, arn: str, *, reason: str, by: str, at: datetime, words: str = "") -> ModelAction:
        """Go back to an earlier version: reject every newer one that is approved, then approve it again."""
        return self._act("return", arn, reason=reason, by=by, at=at, words=words)

    def _act(self, action: Action, arn: str, *, reason: str, by: str, at: datetime, words: str = "") -> ModelAction:
        why = _reasoned(reason)
        described = self._described(arn)
        version, approved, incumbent = self._version(described), self._approved(), self.ledger.incumbent()
        withdrawn = sorted((number for number in approved if number > version.version), reverse=True) if action == "return" else []
        answer = ModelAction(
            action=action, arn=version.arn, version=version.version, by=by, reason=why, at=iso(at), withdrawn=tuple(withdrawn),
            words=outcome(action, version, withdrawn=withdrawn, incumbent=incumbent, settings=self.settings),
        )  # fmt: skip
        if not withdrawn and _repeated(version, answer, at=at):
            return answer.model_copy(update={"at": version.decided_at})
        refusal = objection(
            action, version, approved=list(approved), incumbent=incumbent, settings=self.settings, today=self._today(at)
        ) or words_missing(action, version, words)
        if refusal is None and action != "reject":
            refusal = self._other_slots(version, described)
        if refusal is not None:
            raise ModelActionError(refusal)
        for number in withdrawn:
            told = f"returned to version {version.version}: {why}"
            self._decide(self._described(approved[number]), "Rejected", reason=told, by=by, at=at)
        if action == "return" and version.status == "approved":
            # An approval that is repeated is no change, and only a change is sure to be an event
            self._decide(described, "PendingManualApproval", reason=why, by=by, at=at)
        self._decide(described, "Rejected" if action == "reject" else "Approved", reason=why, by=by, at=at)
        return answer

    def _other_slots(self, version: ModelVersion, described: Mapping[str, Any]) -> str | None:
        """Why a model of these rows must not trade, whoever wants it."""
        slots, wanted = slots_of(self.s3, described), self.settings.row_slots
        if slots is None or slots == wanted:
            return None
        return f"version {version.version} cannot trade here: {slots_problem(wanted=wanted, was=slots)}; train with the settings' slots"

    def _decide(self, described: Mapping[str, Any], status: str, *, reason: str, by: str, at: datetime) -> None:
        metadata = {**described.get("CustomerMetadataProperties", {}), DECIDED_BY: _by(by), DECIDED_AT: iso(at)}
        self.sagemaker.update_model_package(
            ModelPackageArn=described["ModelPackageArn"],
            ModelApprovalStatus=status,
            ApprovalDescription=reason,
            CustomerMetadataProperties=metadata,
        )

    def _today(self, now: datetime) -> date:
        """The day by the broker's clock, which a model's age counts to: in a replay it is not the person's."""
        seen = self.ledger.broker_state()
        return new_york_date(now if seen is None else parse_utc(seen.now))

    def _described(self, arn: str) -> dict[str, Any]:
        """SageMaker's description of a package of this group; any other is refused, and is not told apart from one that is not there."""
        if f":model-package/{self.group}/" in arn:
            try:
                described: dict[str, Any] = self.sagemaker.describe_model_package(ModelPackageName=arn)
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("ValidationException", "ResourceNotFound"):
                    raise
            else:
                if described.get("ModelPackageGroupName") == self.group:
                    return described
        raise ModelActionError(f"{self.group} has no model package {arn[:200]!r}")

    def _approved(self) -> dict[int, str]:
        """Number -> ARN of every approved version."""
        pages = self.sagemaker.get_paginator("list_model_packages").paginate(
            ModelPackageGroupName=self.group, ModelApprovalStatus="Approved"
        )
        found = (summary["ModelPackageArn"] for page in pages for summary in page["ModelPackageSummaryList"])
        return {number_of(arn): arn for arn in found}

    def _version(self, described: Mapping[str, Any]) -> ModelVersion:
        uri = evaluation_uri(described)
        if uri is None:
            return version_of(described, None, problem="it was registered without an evaluation")
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        body = read_object(self.s3, bucket=bucket, key=key)
        if body is None:
            return version_of(described, None, problem=f"{uri} is not there")
        try:
            return version_of(described, document_of(body, bucket=bucket, key=key))
        except LakeError as error:
            return version_of(described, None, problem=str(error))

    def _in_place(self, versions: list[ModelVersion], *, now: datetime) -> list[ModelVersion]:
        """With the roles that the ledger gives them, and what may not be done to them."""
        incumbent, shadow = self.ledger.incumbent(), self.ledger.shadow()
        trades, approved = roles(incumbent, shadow, self.settings).trades.spec, list(self._approved())
        given = {model.spec: model.role for model in (shadow, incumbent) if model is not None}

        def blocked(version: ModelVersion) -> dict[str, str]:
            known: dict[str, Any] = {"approved": approved, "incumbent": incumbent, "settings": self.settings, "today": self._today(now)}
            found = {action: objection(action, version, **known) for action in ACTIONS}
            return {action: why for action, why in found.items() if why is not None}

        return [
            version.model_copy(update={"role": given.get(version.arn), "trades": version.arn == trades, "blocked": blocked(version)})
            for version in versions
        ]


def number_of(arn: str) -> int:
    return int(arn.rpartition("/")[2])


def _by(user: str) -> str:
    """As the metadata of a package can hold it."""
    return NOT_METADATA.sub(" ", user)[:256]


def _repeated(version: ModelVersion, answer: ModelAction, *, at: datetime) -> bool:
    """Whether this very request was carried out a moment ago."""
    same = (version.status, version.decided_by, version.reason) == (DONE[answer.action], _by(answer.by), answer.reason)
    return same and version.decided_at is not None and abs(at - parse_utc(version.decided_at)) < REPEATED


def _reasoned(reason: str) -> str:
    text = " ".join(reason.split())
    if not 1 <= len(text) <= REASON_LIMIT:
        raise ModelActionError(f"a reason of 1 to {REASON_LIMIT} characters is needed, was {len(text)}")
    return text


def _history(records: Any) -> tuple[ModelHistoryEntry, ...]:
    entries: list[ModelHistoryEntry] = []
    until: dict[str, str] = {}
    for record in sorted(records, key=lambda one: one["since"], reverse=True):
        model = ServedModel.model_validate(record)
        entries.append(_entry(model, record, until=until.get(model.role)))
        until[model.role] = model.since
    return tuple(entries)


def _entry(model: ServedModel, record: Mapping[str, Any], *, until: str | None) -> ModelHistoryEntry:
    version = number_of(model.spec) if model.policy == "endpoint" else None
    name = model.spec if version is None else f"version {version} (model {model.model_version[:12]})"
    passed = record.get("gate_passed")
    verdict = {True: ", passed by the gate", False: ", refused by the gate", None: ""}[passed]
    span = f"since {model.since}" if until is None else f"from {model.since} to {until}"
    return ModelHistoryEntry(
        role=model.role, spec=model.spec, version=version, model_version=model.model_version, since=model.since, until=until,
        gate_passed=passed, trial=record.get("trial"), words=f"{name} was the {model.role} {span}{verdict}",
    )  # fmt: skip
