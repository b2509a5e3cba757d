"""The shell of the web app into its bucket: a custom resource of CloudFormation, which waits for the answer at `ResponseURL`.

Properties: `Bucket` (a bucket of nothing else), `ArchiveBucket` and `ArchiveKey` (a zip of the files), `Config` (the text of `config.json`,
which is known only while the stack is made). Create and Update leave exactly these files in the bucket, Delete leaves none, so that it can
be deleted. What fails is answered as FAILED with one line, and the deployment rolls back; only an answer that cannot be sent is raised.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import boto3
import requests

from lambdas.common.telemetry import entry, logger

CONFIG = "config.json"
TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}
#: Browsers and CloudFront keep a file and ask each time whether it is still the same: a new deployment shows at once.
CACHING = "no-cache"
ANSWER_SECONDS = 30


@entry
def handler(event: dict[str, Any], context: Any) -> None:  # noqa: ARG001
    answer = {
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
        "PhysicalResourceId": event["ResourceProperties"]["Bucket"],
        "Status": "SUCCESS",
    }
    try:
        publish(event["RequestType"], event["ResourceProperties"], s3=boto3.client("s3"))
    except Exception as error:  # noqa: BLE001 -- without an answer, CloudFormation waits for an hour
        logger.exception("not published")
        answer |= {"Status": "FAILED", "Reason": f"{type(error).__name__}: {error}"[:1000]}
    # The address is signed as it stands, for a body without a type
    requests.put(event["ResponseURL"], data=json.dumps(answer), headers={"Content-Type": ""}, timeout=ANSWER_SECONDS).raise_for_status()


def publish(request: str, properties: Mapping[str, Any], *, s3: Any) -> None:
    """Leave in the bucket what `request` (Create, Update or Delete) asks for; raises KeyError for a kind of file without a type."""
    bucket = properties["Bucket"]
    files = {} if request == "Delete" else _files(properties, s3=s3)
    for name, content in files.items():
        kind = TYPES[name.rpartition(".")[2]]
        s3.put_object(Bucket=bucket, Key=name, Body=content, ContentType=kind, CacheControl=CACHING)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    for name in [one["Key"] for page in pages for one in page.get("Contents", ())]:
        if name not in files:
            s3.delete_object(Bucket=bucket, Key=name)
    logger.info("published", extra={"files": len(files)})


def _files(properties: Mapping[str, Any], *, s3: Any) -> dict[str, bytes]:
    archive = s3.get_object(Bucket=properties["ArchiveBucket"], Key=properties["ArchiveKey"])["Body"].read()
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {**{name: opened.read(name) for name in opened.namelist()}, CONFIG: properties["Config"].encode()}
