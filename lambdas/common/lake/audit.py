"""The audit bucket: one JSON document a record, where Athena's tables look for it (docs/compliance.md).

Promises: `add` writes a record only where none is, and S3 itself refuses to replace one; the bucket keeps every version locked, so what
was written stays. A record that is asked for and not there is None. Failure: botocore's `ClientError`; `LakeError` for a record that is
not a JSON object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from lambdas.common.lake.lake import document_bytes, document_of, read_object
from lambdas.common.ledger.records import ServedModel
from schema.lake_layout import audit_key, audit_prefix


def model_key(model: ServedModel) -> str:
    """A model from the moment that it was given a role."""
    return audit_key("models", model.since[:10], f"{model.role}-{model.model_version}")


@dataclass(frozen=True, kw_only=True)
class AuditBucket:
    """`s3` is a boto3 client."""

    s3: Any
    name: str
    workers: int = 8

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that have no record yet: one listing a folder."""
        wanted = list(keys)
        there: set[str] = set()
        for folder in sorted({key.rpartition("/")[0] for key in wanted}):
            pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"{folder}/")
            there |= {item["Key"] for page in pages for item in page.get("Contents", ())}
        return [key for key in wanted if key not in there]

    def add(self, documents: Mapping[str, Mapping[str, Any]]) -> int:
        """Write each document under its key, and return how many had no record there; one that had keeps it."""
        if not documents:
            return 0
        with ThreadPoolExecutor(max_workers=min(self.workers, len(documents))) as pool:
            return sum(pool.map(self._add, documents, documents.values()))

    def _add(self, key: str, document: Mapping[str, Any]) -> bool:
        body = document_bytes(document)
        try:
            self.s3.put_object(Bucket=self.name, Key=key, Body=body, ContentType="application/json", IfNoneMatch="*")
        except ClientError as error:
            # 412: it is there; 409: another is writing it at this moment
            if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"):
                return False
            raise
        return True

    def record(self, key: str) -> dict[str, Any] | None:
        body = read_object(self.s3, bucket=self.name, key=key)
        return None if body is None else document_of(body, bucket=self.name, key=key)

    def keys_of(self, table: str) -> list[str]:
        """The keys of a table's records, the oldest day first."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=audit_prefix(table))
        return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))

    def where(self, key: str) -> str:
        return f"s3://{self.name}/{key}"
