"""Where a served model comes from: its package in the registry, the evaluation that judged it, the manifest of the data it learned from.

Promise: what was never written is None, and what was is taken with its sha256; the manifest is the very one, found among the versions
of its object by the hash that the evaluation names. Failure: botocore's errors, for what cannot be asked now; `LakeError` for an
evaluation that is not JSON.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from lambdas.common.lake.lake import document_of, read_object
from trading_env.simulation.artifact import ArtifactError, artifact_hash, read_artifact


@dataclass(frozen=True, kw_only=True)
class PackageRecord:
    """What the registry says: the approval as it is now, the archive of the model, the evaluation (None: registered without one)."""

    arn: str
    approval: str
    model_uri: str
    evaluation_uri: str | None


@dataclass(frozen=True, kw_only=True)
class Registry:
    """Reads of the registry and of what its packages refer to; the clients are boto3's."""

    sagemaker: Any
    s3: Any

    def package(self, arn: str) -> PackageRecord:
        described = self.sagemaker.describe_model_package(ModelPackageName=arn)
        quality = described.get("ModelMetrics", {}).get("ModelQuality", {})
        return PackageRecord(
            arn=described["ModelPackageArn"],
            approval=described["ModelApprovalStatus"],
            model_uri=described["InferenceSpecification"]["Containers"][0]["ModelDataUrl"],
            evaluation_uri=quality.get("Statistics", {}).get("S3Uri"),
        )

    def content(self, uri: str) -> bytes | None:
        bucket, key = _bucket_and_key(uri)
        return read_object(self.s3, bucket=bucket, key=key)

    def model_hash(self, package: PackageRecord) -> str | None:
        """The hash of the model in the package's archive, by which it is known everywhere; None without a sound archive."""
        body = self.content(package.model_uri)
        if body is None:
            return None
        try:
            return artifact_hash(read_artifact(body))
        except ArtifactError:
            return None

    def evidence(self, arn: str, *, processed_bucket: str, training_manifest: str) -> dict[str, Any]:
        """What the audit keeps of a package: the columns of `EVIDENCE`, None where there is nothing; `training_manifest`: its key."""
        package = self.package(arn)
        found: dict[str, Any] = {**dict.fromkeys(EVIDENCE), "model_uri": package.model_uri, "evaluation_uri": package.evaluation_uri}
        body = self.content(package.evaluation_uri) if package.evaluation_uri else None
        if package.evaluation_uri is None or body is None:
            return found
        bucket, key = _bucket_and_key(package.evaluation_uri)
        said = document_of(body, bucket=bucket, key=key)
        hashes, gate = said.get("hashes", {}), said.get("gate", {})
        version, manifest = self._manifest(processed_bucket, training_manifest, hashes.get("manifest_sha256"))
        return {
            **found,
            "evaluation_sha256": hashlib.sha256(body).hexdigest(),
            "evaluated_model_hash": hashes.get("model_hash"),
            "gate_passed": gate.get("passed"),
            "gate_reasons": gate.get("reasons"),
            "trial": said.get("trial"),
            "configuration": said.get("configuration"),
            "settings_sha256": hashes.get("settings"),
            "training_code_version": hashes.get("code_version"),
            "manifest_sha256": hashes.get("manifest_sha256"),
            "manifest_uri": f"s3://{processed_bucket}/{training_manifest}",
            "manifest_version": version,
            "manifest": manifest,
        }

    def _manifest(self, bucket: str, key: str, sha256: str | None) -> tuple[str | None, str | None]:
        """The version of the training data's manifest with that hash, and its text: it is replaced each night, its older ones expire."""
        if sha256 is None:
            return None, None
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key)
        for version in (version for page in pages for version in page.get("Versions", ())):  # the newest first
            body = read_object(self.s3, bucket=bucket, key=key, version=version["VersionId"])
            if body is not None and hashlib.sha256(body).hexdigest() == sha256:
                return str(version["VersionId"]), body.decode()
        return None, None


@lru_cache(maxsize=1)
def default_registry() -> Registry:
    """The registry of this process's account; its clients give up soon, because others wait for who asks."""
    timeouts = Config(connect_timeout=2, read_timeout=4, retries={"mode": "standard", "total_max_attempts": 2})
    return Registry(sagemaker=boto3.client("sagemaker", config=timeouts), s3=boto3.client("s3", config=timeouts))


EVIDENCE = (
    "model_uri", "evaluation_uri", "evaluation_sha256", "evaluated_model_hash", "gate_passed", "gate_reasons", "trial", "configuration",
    "settings_sha256", "training_code_version", "manifest_sha256", "manifest_uri", "manifest_version", "manifest",
)  # fmt: skip


def _bucket_and_key(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")
