"""A worker's side of the folder of runs, and what the tests of its API and of its pages share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from lambdas.common.ledger import actions
from lambdas.dashboard.runs import api, views
from schema.lake_layout import run_events_key, run_key, upload_key
from schema.runs.events import AnyRunEvent, Progressed, StateChanged
from schema.runs.request import RunRequest
from schema.runs.status import line_of
from tests.aws.dashboard.conftest import Web

KEY = "key-12345678"
AT = "2020-01-02T14:59:55Z"
TRAIN = {"kind": "train", "title": "First try", "settings": {"training": {"folds": 2, "timesteps": 5000}}, "seeds": 2}


class Lab:
    """What a worker would leave in the folder of runs."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self.s3, self.bucket = s3, bucket

    def say(self, run_id: str, *events: AnyRunEvent) -> None:
        body = b"".join(map(line_of, events))
        self.s3.put_object(Bucket=self.bucket, Key=run_events_key(run_id, events[0].sequence), Body=body)

    def result(self, run_id: str, name: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=run_key(run_id, f"results/{name}"), Body=body)

    def upload(self, name: str, body: bytes = b"Date,Close\n") -> None:
        self.s3.put_object(Bucket=self.bucket, Key=upload_key(name), Body=body)

    def request(self, run_id: str) -> RunRequest:
        body = self.s3.get_object(Bucket=self.bucket, Key=run_key(run_id, "request.json"))["Body"].read()
        return RunRequest.model_validate_json(body)

    def has(self, run_id: str, name: str) -> bool:
        return bool(self.s3.list_objects_v2(Bucket=self.bucket, Prefix=run_key(run_id, name)).get("Contents"))


@pytest.fixture
def lab(web: Web, buckets: SimpleNamespace) -> Lab:
    for cache in (views.folder_of, api._sagemaker, actions.actions_of):
        cache.cache_clear()
    return Lab(boto3.client("s3"), "papertape-processed")


def started(web: Web, body: dict[str, Any] = TRAIN, *, key: str = KEY) -> str:
    made = web.post("api/runs", body, key=key)
    assert made.status == 200, made.text
    return str(made.body["id"])


def state(sequence: int, name: Any, message: str = "", at: str = AT) -> StateChanged:
    return StateChanged(sequence=sequence, at=at, state=name, message=message)


def progress(sequence: int, *, seed: int = 0, fold: int = 1, timesteps: int = 1000, **more: Any) -> Progressed:
    return Progressed(sequence=sequence, at=AT, phase="ppo", seed=seed, fold=fold, folds=2, timesteps=timesteps, of=5000, **more)
