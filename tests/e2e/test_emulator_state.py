"""The local cloud's state on disk: what a durable one has answered survives a crash; a save is read back whole or not at all."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from local.aws.emulator import Emulator, EmulatorError
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET

TABLE = "ledger"


class Cloud:
    """A local cloud with a table of strings, which can be cut off."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        keys = {"aws_access_key_id": LOCAL_ACCOUNT, "aws_secret_access_key": LOCAL_SECRET}
        self.dynamodb, self.secrets, self.logs = (
            boto3.Session().client(name, endpoint_url=emulator.url, region_name=emulator.region, **keys)
            for name in ("dynamodb", "secretsmanager", "logs")
        )

    def create(self) -> None:
        key = {"AttributeName": "pk", "KeyType": "HASH"}
        attribute = {"AttributeName": "pk", "AttributeType": "S"}
        self.dynamodb.create_table(TableName=TABLE, KeySchema=[key], AttributeDefinitions=[attribute], BillingMode="PAY_PER_REQUEST")

    def put(self, name: str, value: str, *, new: bool = False) -> None:
        condition = {"ConditionExpression": "attribute_not_exists(pk)"} if new else {}
        self.dynamodb.put_item(TableName=TABLE, Item={"pk": {"S": name}, "value": {"S": value}}, **condition)

    def items(self) -> dict[str, str]:
        return {item["pk"]["S"]: item["value"]["S"] for item in self.dynamodb.scan(TableName=TABLE)["Items"]}

    def log(self, *, events: int) -> None:
        self.logs.create_log_group(logGroupName="g")
        self.logs.create_log_stream(logGroupName="g", logStreamName="s")
        now = int(time.time() * 1000)
        lines = [{"timestamp": now, "message": str(number)} for number in range(events)]
        self.logs.put_log_events(logGroupName="g", logStreamName="s", logEvents=lines)

    def logged(self) -> int:
        return len(self.logs.get_log_events(logGroupName="g", logStreamName="s", startFromHead=True, limit=10_000)["events"])

    def crash(self) -> None:
        os.killpg(self.emulator.process.pid, signal.SIGKILL)
        self.emulator.process.wait()


@contextmanager
def up(folder: Path, *, durable: bool) -> Iterator[Cloud]:
    with Emulator.start(folder, durable=durable) as emulator:
        yield Cloud(emulator)


def test_every_write_that_a_durable_cloud_has_answered_is_there_after_a_crash(tmp_path: Path) -> None:
    with up(tmp_path, durable=True) as cloud:
        cloud.create()
        cloud.put("saved", "1")
        cloud.secrets.create_secret(Name="keys", SecretString="not for others")
        cloud.emulator.save()
        cloud.put("order", "pending", new=True)
        with pytest.raises(ClientError, match="ConditionalCheckFailed"):
            cloud.put("order", "again", new=True)
        names = {"#v": "value"}
        change = {
            "UpdateExpression": "SET #v = :v",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": {":v": {"S": "filled"}},
        }
        cloud.dynamodb.update_item(TableName=TABLE, Key={"pk": {"S": "order"}}, **change)
        put = {"TableName": TABLE, "Item": {"pk": {"S": "decision"}, "value": {"S": "done"}}}
        cloud.dynamodb.transact_write_items(TransactItems=[{"Put": put}, {"Delete": {"TableName": TABLE, "Key": {"pk": {"S": "saved"}}}}])
        cloud.crash()
    with up(tmp_path, durable=True) as cloud:
        assert cloud.items() == {"order": "filled", "decision": "done"}
        cloud.put("after", "2")
        cloud.crash()
    with up(tmp_path, durable=True) as cloud:
        assert cloud.items() == {"order": "filled", "decision": "done", "after": "2"}, "a journal is continued"
        assert cloud.secrets.get_secret_value(SecretId="keys")["SecretString"] == "not for others"
    state = tmp_path / "cloud" / "state"
    kept = [path for path in state.rglob("*") if path.is_file()]
    assert kept
    assert {path.stat().st_mode & 0o077 for path in kept} == {0}, "the broker's keys are nobody else's to read"


def test_a_save_that_fails_leaves_the_one_before_and_a_cut_off_one_is_not_read(tmp_path: Path) -> None:
    state = tmp_path / "cloud" / "state"
    with up(tmp_path, durable=False) as cloud:
        cloud.create()
        cloud.put("saved", "1")
        cloud.log(events=6000)
        cloud.emulator.save()
        assert cloud.logged() == 5000, "a year of minutes would fill the disk"
        generation = (state / "CURRENT").read_text(encoding="utf-8").strip()
        cloud.put("later", "2")
        (state / "CURRENT.part").mkdir()
        with pytest.raises(EmulatorError, match="was not saved"):
            cloud.emulator.save()
        (state / "CURRENT.part").rmdir()
        following = state / f"{int(generation) + 1:09d}"
        following.mkdir()
        (following / "dynamodb.json").write_text('{"cut off', encoding="utf-8")
        cloud.crash()
    with up(tmp_path, durable=False) as cloud:
        assert cloud.items() == {"saved": "1"}
        cloud.put("kept", "3")
    with up(tmp_path, durable=False) as cloud:
        assert cloud.items() == {"saved": "1", "kept": "3"}, "a clean stop saves"
        assert len([path for path in state.iterdir() if path.name.isdigit()]) == 1
