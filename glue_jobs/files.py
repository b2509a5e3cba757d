"""The job's objects in S3: raw lines in, Parquet files and a manifest out, and the reader that trusts only the manifest.

Promises: the same table gives the same bytes, so a year that did not change is not written again; the manifest is written after the last
file it lists, and files that it no longer lists are removed after that, so a reader (or Athena) sees each row once. `read_features` raises
`FeaturesUnreadableError` for no manifest, another feature table, a missing file or one whose sha256 differs.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import boto3
import pandas as pd
import pyarrow.parquet as pq
from botocore.exceptions import ClientError

from schema.feature_table import parquet
from schema.lake_layout import MANIFEST, features_prefix
from trading_env.data.features import FEATURE_HASH
from trading_env.data.market import table_columns, table_of
from trading_env.errors import PapertapeError

READERS = 16

Line = dict[str, Any]


class FeaturesUnreadableError(PapertapeError, RuntimeError):
    """The lake holds no complete, matching, intact feature table."""


@dataclass(frozen=True)
class FeatureFile:
    """One Parquet file of the manifest; `key` is relative to the manifest's folder."""

    key: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Bucket:
    """A bucket by name, with a client of the process it is used in: Spark sends the name to its workers, never a client."""

    name: str

    @property
    def client(self) -> Any:
        return boto3.client("s3")

    def index(self, prefix: str) -> dict[str, str]:
        """Key -> ETag under `prefix`."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", ())}

    def lines(self, keys: Sequence[str]) -> list[Line]:
        """The gzipped JSON lines of `keys`, in their order."""
        return [line for lines in self.objects(keys).values() for line in lines]

    def objects(self, keys: Sequence[str]) -> dict[str, list[Line]]:
        """The gzipped JSON lines of each key."""
        client = self.client

        def read(key: str) -> list[Line]:
            body = client.get_object(Bucket=self.name, Key=key)["Body"].read()
            return [json.loads(line) for line in gzip.decompress(body).splitlines()]

        with ThreadPoolExecutor(max_workers=READERS) as pool:
            return dict(zip(keys, pool.map(read, keys), strict=True))

    def get(self, key: str) -> bytes | None:
        try:
            body: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return None
            raise
        return body

    def put(self, key: str, body: bytes, *, content_type: str) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=body, ContentType=content_type)

    def put_lines(self, key: str, lines: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        self.put(key, gzip.compress(text.encode(), mtime=0), content_type="application/gzip")

    def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), 1000):
            batch = [{"Key": key} for key in keys[start : start + 1000]]
            answer = self.client.delete_objects(Bucket=self.name, Delete={"Objects": batch, "Quiet": True})
            if answer.get("Errors"):
                raise RuntimeError(f"s3://{self.name}: could not remove superseded files, {answer['Errors'][0]}")


def write_year(bucket: Bucket, year: int, table: pd.DataFrame, *, present: Iterable[str], prefix: str) -> FeatureFile:
    """Write one year's rows of `table_columns` unless a file of the same content is `present` (keys of the bucket)."""
    body = parquet(table[list(table_columns(table_of(table)))])
    digest = hashlib.sha256(body).hexdigest()
    part = FeatureFile(key=f"year={year}/part-{digest[:12]}.parquet", rows=len(table), sha256=digest)
    if prefix + part.key not in present:
        bucket.put(prefix + part.key, body, content_type="application/vnd.apache.parquet")
    return part


def publish(bucket: Bucket, manifest: Mapping[str, Any], parts: Sequence[FeatureFile], *, prefix: str) -> None:
    """Write the manifest that lists `parts`, then remove every file under `prefix` that it does not list."""
    document = {**manifest, "files": [asdict(part) for part in parts]}
    key = prefix + MANIFEST
    bucket.put(key, (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode(), content_type="application/json")
    listed = {prefix + part.key for part in parts} | {key}
    bucket.delete(sorted(found for found in bucket.index(prefix) if found not in listed))


def read_features(bucket: Bucket, *, prefix: str = features_prefix(), feature_hash: str = FEATURE_HASH) -> pd.DataFrame:
    """The whole feature table, `table_columns`, sessions in order; every file is checked against the manifest before it is used."""
    location = f"s3://{bucket.name}/{prefix}{MANIFEST}"
    body = bucket.get(prefix + MANIFEST)
    if body is None:
        raise FeaturesUnreadableError(f"{location} does not exist; run the build_features job")
    manifest = json.loads(body)
    if manifest["feature_hash"] != feature_hash:
        raise FeaturesUnreadableError(f"{location}: feature_hash must be {feature_hash}, was {manifest['feature_hash']}")
    return pd.concat([_read_part(bucket, FeatureFile(**entry), prefix=prefix) for entry in manifest["files"]], ignore_index=True)


def _read_part(bucket: Bucket, part: FeatureFile, *, prefix: str) -> pd.DataFrame:
    body = bucket.get(prefix + part.key)
    digest = "absent" if body is None else hashlib.sha256(body).hexdigest()
    if body is None or digest != part.sha256:
        raise FeaturesUnreadableError(f"s3://{bucket.name}/{prefix}{part.key}: sha256 must be {part.sha256}, was {digest}; build again")
    table: pd.DataFrame = pq.read_table(io.BytesIO(body)).to_pandas()
    if len(table) != part.rows:
        raise FeaturesUnreadableError(f"s3://{bucket.name}/{prefix}{part.key}: must have {part.rows} rows, was {len(table)}")
    return table
