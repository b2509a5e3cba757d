"""The way back from an order: risk verdict, decision, observation, model package, the gate's verdict, training data, code.

Promise: each link says what it is, its hash, where it lies, and what a second look at it found: `verified` (its hash was computed again,
or two records that were written apart agree), `recorded` (there, with nothing to hold it against), `differs`, `missing`, or `none` where
this kind of order has no such link. No link hides another: what cannot be read now is `missing`, with the reason. Only the ledger's own
failure leaves as an error.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.common.lake.audit import AuditBucket, model_key
from lambdas.common.lake.explanation import ExplainedDecision, explained, watched
from lambdas.common.lake.lake import LakeError
from lambdas.common.lake.provenance import Registry
from lambdas.common.ledger.item import LedgerCorrupt, plain
from lambdas.common.ledger.records import EXTERNAL, RECOVERED, Decision, Fill, OrderRecord, ServedModel, ShadowDecision
from schema.lake_layout import decision_key
from schema.slot import PERSONAL

Status = Literal["verified", "recorded", "differs", "missing", "none"]
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Link:
    link: str
    says: str
    status: Status
    hash: str | None = None
    where: str | None = None
    detail: str | None = None

    def shown(self) -> dict[str, str]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Tracer:
    """`code_version` is that of the functions as they are deployed now."""

    audit: AuditBucket
    registry: Registry
    code_version: str

    def order(self, order: OrderRecord, fills: Sequence[Fill]) -> list[Link]:
        filled = sum((fill.quantity for fill in fills), Decimal(0))
        agrees = filled == order.filled_quantity
        says = f"{order.side} {plain(order.quantity)} {order.symbol}: {order.status}"
        if order.filled_average_price is not None:
            says += f", {plain(order.filled_quantity)} at {plain(order.filled_average_price)}"
        told = f"{len(fills)} fills add up to {plain(filled)}"
        return [
            Link(
                link="order", says=says, status="verified" if agrees else "differs", where=f"ledger order#{order.client_order_id}",
                detail=told if agrees else f"{told}, the order says {plain(order.filled_quantity)}",
            ),
            Link(
                link="risk verdict", says=order.risk or "not judged", status="recorded" if order.risk else "missing",
                where=f"ledger order#{order.client_order_id}", detail=order.reason,
            ),
        ]  # fmt: skip

    def decision(self, decision: Decision | None, *, decision_id: str) -> list[Link]:
        """The decision and all that lies behind it; None: the ledger does not hold it."""
        strategy = decision_id.partition(":")[0]
        if strategy == EXTERNAL:
            return [Link(link="decision", says="an external order, found at the broker", status="none")]
        if strategy == RECOVERED:
            lost = "the ledger was lost, and the order was found at the broker; what the audit bucket kept may name it"
            return [Link(link="decision", says=decision_id, status="missing", detail=lost)]
        if decision is None:
            return [Link(link="decision", says=decision_id, status="missing", detail="the ledger has no such decision")]
        where = f"ledger decision#{decision_id}"
        verdict = f"{decision_id}: {decision.verdict}"
        made = Link(link="decision", says=verdict, status="recorded", where=where)
        if decision.strategy in PERSONAL:
            nobody = Link(link="model", says="a person's order: nothing was observed or predicted", status="none")
            return [made, nobody, self._code(decision)]
        key = _key(decision)
        record, problem = self._kept(key)
        if record is None:
            return [made, Link(link="audit record", says=decision_id, status="missing", detail=problem), self._code(decision)]
        at = self.audit.where(key)
        return [
            _held_against(decision, record, says=verdict, where=f"{where}, {at}"),
            _observation(decision, record, where=at),
            Link(link="input data", says=_observed(decision), status="recorded", hash=record.get("inputs_sha256"), where=at),
            *self._model(decision, record),
            self._code(decision, record),
        ]

    def explained(self, decision: Decision, shadows: Iterable[ShadowDecision] = ()) -> list[ExplainedDecision]:
        """Why the decision wants what it wants, and what the models that watch would have; without its audit record, why that cannot be
        said."""
        record, problem = (None, "") if decision.strategy in PERSONAL else self._kept(_key(decision))
        return [explained(decision, record, problem=problem), *(watched(shadow, record) for shadow in shadows)]

    def _model(self, decision: Decision, record: Record) -> list[Link]:
        try:
            model = ServedModel.model_validate(record.get("model"))
        except ValueError as error:
            return [Link(link="model", says=decision.model_version, status="missing", detail=f"the audit record names none: {error}")]
        if model.policy != "endpoint":
            return [Link(link="model", says=f"{model.spec}: a rule, so no package, verdict or training data", status="none")]
        package = _tried("model package", model.spec, lambda: self._package(decision, model))
        key = model_key(model)
        kept, problem = self._kept(key)
        if kept is None:
            detail = f"{problem}; reconcile writes it after a session's close"
            return [package, *(Link(link=name, says=model.spec, status="missing", detail=detail) for name in ("gate", "training data"))]
        at = self.audit.where(key)
        gate = _tried("gate", model.spec, lambda: self._gate(decision, kept, where=at))
        return [package, gate, _manifest(kept, where=at)]

    def _kept(self, key: str) -> tuple[Record | None, str]:
        """A record of the audit bucket; without one, why."""
        try:
            return self.audit.record(key), f"{self.audit.where(key)} is not there"
        except (ClientError, BotoCoreError, LakeError) as error:
            return None, f"{self.audit.where(key)} cannot be read now: {error}"

    def _package(self, decision: Decision, model: ServedModel) -> Link:
        package = self.registry.package(model.spec)
        found = self.registry.model_hash(package)
        agrees = found == decision.model_version
        return Link(
            link="model package",
            says=f"version {model.spec.rpartition('/')[2]}, {package.approval} now, {model.role} since {model.since}",
            status="verified" if agrees else "missing" if found is None else "differs",
            hash=decision.model_version,
            where=f"{model.spec}, {package.model_uri}",
            detail=None if agrees else "its archive is not there, or not a model" if found is None else f"the archive's model is {found}",
        )

    def _gate(self, decision: Decision, kept: Record, *, where: str) -> Link:
        if kept.get("evaluation_sha256") is None:
            return Link(link="gate", says="no evaluation", status="missing", where=where, detail="the package was registered without one")
        verdict = "passed" if kept["gate_passed"] else f"refused: {'; '.join(kept['gate_reasons'] or ['no reason given'])}"
        body = self.registry.content(kept["evaluation_uri"])
        now = None if body is None else hashlib.sha256(body).hexdigest()
        status: Status = "verified"
        detail = None
        if kept["evaluated_model_hash"] != decision.model_version:
            status, detail = "differs", f"it judged model {kept['evaluated_model_hash']}"
        elif now is None:
            status, detail = "recorded", "the evaluation itself is not there any more"
        elif now != kept["evaluation_sha256"]:
            status, detail = "differs", f"the evaluation has sha256 {now} now"
        says = f"{verdict}; trial {kept['trial']}, configuration {kept['configuration']}"
        at = f"{kept['evaluation_uri']}, {where}"
        return Link(link="gate", says=says, status=status, hash=kept["evaluation_sha256"], where=at, detail=detail)

    def _code(self, decision: Decision, record: Record | None = None) -> Link:
        """Functions carry the hash of their sources; the archive of the same name is the deployment's asset."""
        decided = (record or {}).get("code_version", decision.code_version)
        says = f"ordered by {decision.code_version}" + (f", decided by {decided}" if decided != decision.code_version else "")
        now = decision.code_version == self.code_version
        detail = "what is deployed now" if now else f"deployed now: {self.code_version}"
        where = f"deployment asset {decision.code_version}*.zip"
        status: Status = "verified" if now else "recorded"
        return Link(link="code", says=says, status=status, hash=decision.code_version, where=where, detail=detail)


def _key(decision: Decision) -> str:
    return decision_key(date.fromisoformat(decision.slot[:10]), decision.decision_id)


def _observed(decision: Decision) -> str:
    within = decision.slot[:10] == decision.data_as_of
    return f"the slot bars of {decision.data_as_of} that ended before the slot" if within else f"closes of {decision.data_as_of}"


def _held_against(decision: Decision, record: Record, *, says: str, where: str) -> Link:
    """What decide wrote before it sent, against what the ledger accepted: two writers, one decision."""
    ours, theirs = decision.model_dump(mode="json"), record.get("decision") or {"decision_id": None}
    wrong = [name for name, value in theirs.items() if ours.get(name) != value]
    detail = f"the audit record has another {', '.join(wrong)}" if wrong else "ledger and audit record say the same"
    return Link(link="decision", says=says, status="differs" if wrong else "verified", where=where, detail=detail)


def _observation(decision: Decision, record: Record, *, where: str) -> Link:
    vector = record.get("observation", [])
    found = hashlib.sha256(struct.pack(f"<{len(vector)}f", *vector)).hexdigest()
    agrees = found == decision.observation_hash
    return Link(
        link="observation",
        says=f"{len(vector)} numbers of {', '.join(record.get('symbols', []))}",
        status="verified" if agrees else "differs",
        hash=decision.observation_hash,
        where=where,
        detail=None if agrees else f"the recorded vector has {found}",
    )


def _manifest(kept: Record, *, where: str) -> Link:
    wanted, text = kept.get("manifest_sha256"), kept.get("manifest")
    says = f"trained by code {kept.get('training_code_version')}"
    at = f"{kept.get('manifest_uri')}, {where}"
    if wanted is None or text is None:
        detail = "the evaluation names none" if wanted is None else "no version of it had that hash any more when the model was archived"
        return Link(link="training data", says=says, status="missing", hash=wanted, where=at, detail=detail)
    found = hashlib.sha256(text.encode()).hexdigest()
    status: Status = "verified" if found == wanted else "differs"
    return Link(
        link="training data", says=says, status=status, hash=wanted, where=at,
        detail=None if found == wanted else f"the archived manifest has {found}",
    )  # fmt: skip


def _tried(link: str, says: str, look: Callable[[], Link]) -> Link:
    try:
        return look()
    except (ClientError, BotoCoreError, LakeError, LedgerCorrupt) as error:
        return Link(link=link, says=says, status="missing", detail=f"cannot be read now: {error}")
