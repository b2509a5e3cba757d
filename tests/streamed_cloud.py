"""The lake and the stream alone, deployed to a local cloud: what a producer puts, and what then lies where readers look."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import aws_cdk as cdk
import boto3

import app as application
from local.aws.deploy import Deployment, deploy_templates, deployed
from local.aws.emulator import Emulator
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET
from schema.sections.realtime import StreamSettings
from schema.settings import Settings
from stacks.constructs import archives
from stacks.constructs.function import Runtime
from stacks.lake import LakeStack
from stacks.stream import StreamStack

Kind = Literal["firehose", "kinesis"]
OPEN = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
BATCH = 500  # records of one call, as both services allow


def synthesize_stream(folder: Path, *, settings: Settings, kind: Kind) -> None:
    """Write the two stacks' templates for this laptop into `folder`."""
    settings = settings.model_copy(update={"stream": StreamSettings(kind=kind)})
    app = application.new_app(folder, validated=False)
    env = cdk.Environment(account=LOCAL_ACCOUNT, region=settings.region)
    code = archives.modules("lambdas", "schema", "sources", "trading_env", settings=settings, name="code")
    runtime = Runtime(app=settings.name, target="laptop", code=code)
    lake = LakeStack(app, f"{settings.name}-lake", settings=settings, env=env)
    StreamStack(app, f"{settings.name}-stream", settings=settings, runtime=runtime, lake=lake, env=env)
    app.synth()


def quotes(count: int, *, per_second: int = 5000) -> list[dict[str, Any]]:
    """`count` quotes, all different, at an even rate from the open on."""
    found = []
    for number in range(count):
        ts = (OPEN + timedelta(seconds=number / per_second)).isoformat().replace("+00:00", "Z")
        prices = {"bid": 600.0 + number % 100 / 100, "bid_size": 100.0, "ask": 601.0 + number % 97 / 100, "ask_size": float(number)}
        found.append({"symbol": f"N{number % 30}", "ts": ts, **prices, "received_at": ts, "feed": "iex", "kind": "quote"})
    return found


@dataclass
class StreamedCloud:
    """A local cloud with the stream of `kind`."""

    emulator: Emulator
    deployment: Deployment
    kind: Kind

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": LOCAL_ACCOUNT, "aws_secret_access_key": LOCAL_SECRET}
        return boto3.Session().client(service, endpoint_url=self.emulator.url, region_name=self.emulator.region, **keys)

    @property
    def name(self) -> str:
        return self.deployment.output("StreamName")

    def put(self, records: Sequence[bytes]) -> None:
        """Put the records as the runner does, a full call at a time; all are acknowledged when this returns."""
        put = self.putter()
        for start in range(0, len(records), BATCH):
            put(records[start : start + BATCH])

    def putter(self) -> Callable[[Sequence[bytes]], None]:
        """What puts one call's records, and returns when they are acknowledged."""
        client, name = self.client(self.kind), self.name

        def to_firehose(batch: Sequence[bytes]) -> None:
            answer = client.put_record_batch(DeliveryStreamName=name, Records=[{"Data": one} for one in batch])
            assert answer["FailedPutCount"] == 0, answer

        def to_shard(batch: Sequence[bytes]) -> None:
            answer = client.put_records(StreamName=name, Records=[{"Data": one, "PartitionKey": "SPY"} for one in batch])
            assert answer["FailedRecordCount"] == 0, answer

        return to_firehose if self.kind == "firehose" else to_shard

    def bodies(self, prefix: str) -> dict[str, bytes]:
        """Every raw object under `prefix`, by key."""
        client, bucket = self.client("s3"), self.deployment.output("RawBucket")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def objects(self, prefix: str) -> dict[str, list[dict[str, Any]]]:
        """The gzipped JSON lines of every raw object under `prefix`, by key."""
        return {key: [json.loads(line) for line in gzip.decompress(body).splitlines()] for key, body in self.bodies(prefix).items()}

    def lines(self, prefix: str) -> list[dict[str, Any]]:
        return [line for rows in self.objects(prefix).values() for line in rows]

    def dead_letters(self) -> list[dict[str, Any]]:
        """Every message that waits in the queue, taken out of it."""
        client, found = self.client("sqs"), list[dict[str, Any]]()
        url = self.deployment.output("DeadLetterQueue")
        while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            found += [json.loads(one["Body"]) for one in messages]
            for one in messages:
                client.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
        return found

    def kill(self) -> None:
        os.killpg(self.emulator.process.pid, signal.SIGKILL)
        self.emulator.process.wait()


@contextmanager
def streamed_cloud(folder: Path, *, kind: Kind, templates: Path | None = None) -> Iterator[StreamedCloud]:
    """A durable local cloud in `folder`, with `templates` deployed, or with what is there already."""
    with Emulator.start(folder, durable=True) as emulator:
        found = deployed(emulator) if templates is None else deploy_templates(emulator, cdk_out=templates)
        if templates is not None:
            emulator.save(whole=True)
        yield StreamedCloud(emulator, found, kind)
