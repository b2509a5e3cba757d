"""After a session: copy what has become final from the ledger to the audit bucket, where it is locked (docs/compliance.md).

Promises: an order is copied when it has ended, with its risk verdict and its fills; a batch when it is done; each change of the trading
state; each model with what it was trained and judged on. A record is written once; an order that changes after its end gets another
beside it. The days from the session before on are looked at again, so that what one pass could not write the next one does. The ledger is
only read. Failure: `keep` raises what AWS does, `LedgerCorrupt` or `LakeError`, and what was written until then stays; `keep_or_alert`
makes an alert of it, because what is late in the archive is still in the ledger (docs/decisions/0016).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.common.environment import Variables, read
from lambdas.common.lake.audit import AuditBucket, model_key
from lambdas.common.lake.lake import LakeError
from lambdas.common.lake.provenance import EVIDENCE, Registry, default_registry
from lambdas.common.ledger.alerts import raise_alert
from lambdas.common.ledger.item import LedgerCorrupt, Record
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import OrderRecord, ServedModel
from lambdas.common.telemetry import logger
from schema.lake_layout import audit_key, training_manifest
from schema.settings import Settings

Document = dict[str, Any]
Candidate = tuple[str, Callable[[], Document]]


class ArchiveVariables(Variables):
    audit_bucket: str
    processed_bucket: str


def archive_from_environment(ledger: Ledger, settings: Settings) -> AuditArchive:
    """Return the archive of AUDIT_BUCKET."""
    variables, registry = read(ArchiveVariables), default_registry()
    bucket = AuditBucket(s3=registry.s3, name=variables.audit_bucket)
    return AuditArchive(
        ledger=ledger,
        bucket=bucket,
        registry=registry,
        processed_bucket=variables.processed_bucket,
        training_manifest=training_manifest(settings.training.timeframe),
    )


def keep_or_alert(archive: AuditArchive, *, session: str, now: str) -> str:
    """`keep` what `session` has made final, and say how much; what fails is an alert of the session, and nobody's trade."""
    try:
        return f"{archive.keep(session)} records"
    except (BotoCoreError, ClientError, LakeError, LedgerCorrupt) as error:
        logger.exception("not archived")
        detail = f"{type(error).__name__}: {error}; the next run of reconcile tries again"
        raise_alert(ledger=archive.ledger, rule="archive-late", session=session, detail=detail, time=now)
        return f"not archived: {detail}"


@dataclass(frozen=True, kw_only=True)
class AuditArchive:
    ledger: Ledger
    bucket: AuditBucket
    registry: Registry
    processed_bucket: str
    training_manifest: str

    def keep(self, session: str) -> int:
        """Write what is final by the end of `session` (ISO date) and has no record yet; return how many records that were."""
        days = self._days(session)
        # Models last: what cannot be read of one keeps no order from being written
        return sum(self._write(dict(found)) for found in (self._orders(days), self._batches(days), self._changes(days), self._models()))

    def _write(self, candidates: dict[str, Callable[[], Document]]) -> int:
        return self.bucket.add({key: candidates[key]() for key in self.bucket.missing(candidates)})

    def _days(self, session: str) -> list[str]:
        """From the session before, whose orders may have changed since, to this one."""
        before = self.ledger.latest_snapshot(before=session)
        last = date.fromisoformat(session)
        first = date.fromisoformat(before.session) if before is not None else last
        return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]

    def _orders(self, days: list[str]) -> Iterator[Candidate]:
        for day in days:
            for order in self.ledger.orders_of_day(day):
                if order.terminal:
                    yield audit_key("orders", day, f"{order.client_order_id}-{order.version:06d}"), partial(self._order, order)

    def _order(self, order: OrderRecord) -> Document:
        fills = self.ledger.fills_of(order.client_order_id)[: order.fills] if order.fills else []
        return {**_json(order), "fills": [_json(fill) for fill in fills]}

    def _batches(self, days: list[str]) -> Iterator[Candidate]:
        for month in sorted({day[:7] for day in days}):
            for decision in self.ledger.decisions(month):
                if decision.state == "done" and (day := decision.received_at[:10]) in days:
                    yield audit_key("batches", day, decision.decision_id), partial(_json, decision)

    def _changes(self, days: list[str]) -> Iterator[Candidate]:
        newest = self.ledger.trading_state().since  # a person's clock may be another than the exchange's, as in a replay
        for month in sorted({day[:7] for day in days} | ({newest[:7]} if newest else set())):
            for change in self.ledger.state_changes(month):
                yield audit_key("state_changes", change.time[:10], f"{change.version:06d}"), partial(_json, change)

    def _models(self) -> Iterator[Candidate]:
        for model in (self.ledger.incumbent(), self.ledger.shadow()):
            if model is not None:
                yield model_key(model), partial(self._model, model)

    def _model(self, model: ServedModel) -> Document:
        if model.policy != "endpoint":
            return {**_json(model), **dict.fromkeys(EVIDENCE)}
        where = {"processed_bucket": self.processed_bucket, "training_manifest": self.training_manifest}
        return {**_json(model), **self.registry.evidence(model.spec, **where)}


def _json(record: Record) -> Document:
    return record.model_dump(mode="json")
