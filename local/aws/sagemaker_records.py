"""What SageMaker keeps in the emulator: records by kind and name, their ARNs, and the events that their changes put on the bus.

Failure: `RefusalError`, which the service answers as SageMaker would.
"""

# ruff: noqa: SLF001  (ministack's way to put an event of AWS's own)
# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

import contextvars
import json
import os
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ministack.services.eventbridge as eventbridge
from ministack.core.responses import AccountRegionScopedDict, get_account_id, get_region

from local.aws.sagemaker_model_server import Response
from trading_env.errors import PapertapeError

Record = dict[str, Any]

KINDS = (
    "pipeline",
    "execution",
    "model-package-group",
    "model-package",
    "model",
    "endpoint-config",
    "endpoint",
    "feature-group",
    "feature-record",
)
stores: dict[str, Any] = {kind: AccountRegionScopedDict() for kind in KINDS}
lock = threading.RLock()


class RefusalError(PapertapeError):
    """A request that SageMaker would refuse: its type and message."""

    def __init__(self, message: str, kind: str = "ValidationException") -> None:
        super().__init__(message)
        self.kind = kind


def run_folder() -> Path:
    return Path(os.environ["PAPERTAPE_RUN_DIR"]) / "sagemaker"


def arn(kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:{get_region()}:{get_account_id()}:{kind}/{name}"


def find(kind: str, name: str) -> Record:
    """The record called `name`, which may also be an ARN or `group/version`."""
    key = re.sub(r"^arn:aws:sagemaker:[^:]*:[^:]*:[a-z-]+/", "", name)
    record = stores[kind].get(key)
    if record is None:
        raise RefusalError(
            f'Could not find {kind} "{arn(kind, key)}".', "ResourceNotFound" if kind == "pipeline" else "ValidationException"
        )
    return record  # type: ignore[no-any-return]


def create_record(kind: str, name: str, record: Record) -> Record:
    if name in stores[kind]:
        raise RefusalError(f'Cannot create already existing {kind} "{arn(kind, name)}".')
    now = time.time()
    stores[kind][name] = {**record, "CreationTime": now, "LastModifiedTime": now}
    return stores[kind][name]  # type: ignore[no-any-return]


def in_background(work: Callable[[], None], name: str, *, wait_seconds: float = 0.0) -> None:
    """Run `work` on a thread that keeps the request's account and region; return when it ends or after `wait_seconds`."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True, name=name)
    thread.start()
    thread.join(wait_seconds)


def emit(detail_type: str, resource: str, detail: Record) -> None:
    """Put an event of AWS's own on the default bus, as only services can."""
    entry = {"Source": "aws.sagemaker", "DetailType": detail_type, "Resources": [resource], "Detail": json.dumps(detail, default=str)}
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def client(service: str) -> Any:
    import boto3

    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    return boto3.client(service, region_name=get_region(), aws_access_key_id=get_account_id(), aws_secret_access_key=secret)


def refused(refusal: RefusalError) -> Response:
    document = {"__type": refusal.kind, "message": str(refusal)}
    return 400, {"Content-Type": "application/x-amz-json-1.1", "x-amzn-errortype": refusal.kind}, json.dumps(document).encode()
