"""The stream as an option, of either kind: nothing of it by default; with it, a stack, two alarms, and no quotes minute by minute."""

from __future__ import annotations

import json
from typing import Any

import app as application  # before aws_cdk: it chooses jsii's Node

# isort: split

import pytest
from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from rich.console import Console

from papertape.operate import cost
from schema.sections.realtime import StreamSettings
from schema.settings import Settings
from stacks.stream import StreamStack
from tests.infrastructure.assembly import STACKS, Assembly, Resource
from tests.infrastructure.gates import check_templates

KINDS = ("firehose", "kinesis")
ON = (*STACKS, "stream")
WORDS = ("Kinesis", "kinesis", "firehose", "Firehose", "consume_stream", "raw/minutes")


@pytest.fixture(scope="module", params=KINDS)
def streamed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> tuple[str, Assembly]:
    """The app with a stream, and what stands in for its producer: a role that may write to it."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    app = application.new_app(folder)
    application.compose(app, settings=settings.model_copy(update={"stream": StreamSettings(kind=kind)}), target="aws", account=None)
    stream = app.node.find_child("papertape-stream")
    assert isinstance(stream, StreamStack)
    producer = Stack(app, "papertape-producer", env={"region": settings.region})
    stream.let_write(iam.Role(producer, "Role", assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com")))
    app.synth()
    templates = {name: json.loads((folder / f"papertape-{name}.template.json").read_text()) for name in (*ON, "producer")}
    return kind, Assembly(folder=folder, templates=templates)


def only(assembly: Assembly, kind: str, *, stack: str = "stream") -> Resource:
    (found,) = [resource["Properties"] for where, _, resource in assembly.resources(kind) if where == stack]
    return dict(found)


def statements(assembly: Assembly, stack: str) -> list[Resource]:
    policies = [one["Properties"]["PolicyDocument"] for where, _, one in assembly.resources("AWS::IAM::Policy") if where == stack]
    return [statement for policy in policies for statement in policy["Statement"]]


def test_off_is_the_default_and_leaves_nothing_in_the_templates(aws: Assembly, settings: Settings) -> None:
    assert settings.stream.kind == "none"
    written = {path.name: path.read_text() for path in aws.folder.glob("*.template.json")}
    assert len(written) == len(STACKS), "no stack of its own"
    assert {(name, word) for name, text in written.items() for word in WORDS if word in text} == set()


def test_it_takes_the_place_of_each_minutes_quotes(aws: Assembly, streamed: tuple[str, Assembly]) -> None:
    _, found = streamed
    assert found.functions().keys() - aws.functions().keys() == {"consume_stream"}
    assert aws.functions().keys() - found.functions().keys() == {"ingest_quotes"}
    assert aws.schedules().keys() - found.schedules().keys() == {"ingest_quotes"}
    alarms = {one["Properties"]["AlarmName"] for _, _, one in found.resources("AWS::CloudWatch::Alarm")}
    before = {one["Properties"]["AlarmName"] for _, _, one in aws.resources("AWS::CloudWatch::Alarm")}
    assert alarms - before == {"papertape-stream-late", "papertape-consume-stream-failed"}


def test_the_checks_pass_with_it(streamed: tuple[str, Assembly]) -> None:
    _, found = streamed
    check_templates(found.folder, "stream", "ingest", "monitoring")


def test_a_producer_may_put_records_and_nothing_else(streamed: tuple[str, Assembly]) -> None:
    kind, found = streamed
    (statement,) = statements(found, "producer")
    verbs = {"firehose": ["PutRecord", "PutRecordBatch"], "kinesis": ["PutRecord", "PutRecords"]}[kind]
    assert statement["Action"] == [f"{kind}:{verb}" for verb in verbs]
    assert "*" not in json.dumps(statement["Resource"])


def test_it_writes_to_its_own_folders_alone(streamed: tuple[str, Assembly]) -> None:
    _, found = streamed
    folders = [json.dumps(one["Resource"]) for one in statements(found, "stream") if "s3:PutObject" in one["Action"]]
    written = set("".join(folders).split('"')) & {"/raw/quotes/*", "/raw/minutes/*", "/raw/quarantine/stream/*"}
    assert written == {"/raw/quotes/*", "/raw/minutes/*", "/raw/quarantine/stream/*"}
    assert all("/models/" not in one and '"/*"' not in one for one in folders)
    actions = {
        action for one in statements(found, "stream") for action in ([one["Action"]] if isinstance(one["Action"], str) else one["Action"])
    }
    assert not [action for action in actions if "*" in action or action in ("s3:GetObject", "s3:DeleteObject")]


@pytest.mark.parametrize("streamed", ["kinesis"], indirect=True)
def test_a_shard_is_encrypted_kept_for_a_day_and_consumed_with_care(streamed: tuple[str, Assembly]) -> None:
    _, found = streamed
    shard, mapping = only(found, "AWS::Kinesis::Stream"), only(found, "AWS::Lambda::EventSourceMapping")
    assert (shard["ShardCount"], shard["RetentionPeriodHours"], shard["StreamModeDetails"]) == (1, 24, {"StreamMode": "PROVISIONED"})
    assert shard["StreamEncryption"] == {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"}
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["BisectBatchOnFunctionError"] is True
    assert mapping["StartingPosition"] == "TRIM_HORIZON", "what came before the first look is not lost"
    assert mapping["MaximumRetryAttempts"] == 5
    assert mapping["MaximumRecordAgeInSeconds"] < 24 * 3600, "a batch is given up, and told, before the shard forgets it"
    assert "DeadLetters" in json.dumps(mapping["DestinationConfig"])


@pytest.mark.parametrize("streamed", ["firehose"], indirect=True)
def test_a_delivery_stream_packs_places_and_keeps_what_fails(streamed: tuple[str, Assembly]) -> None:
    _, found = streamed
    stream = only(found, "AWS::KinesisFirehose::DeliveryStream")
    assert (stream["DeliveryStreamType"], stream["DeliveryStreamEncryptionConfigurationInput"]) == (
        "DirectPut",
        {"KeyType": "AWS_OWNED_CMK"},
    )
    destination: dict[str, Any] = stream["ExtendedS3DestinationConfiguration"]
    assert destination["BufferingHints"] == {"SizeInMBs": 128, "IntervalInSeconds": 300}
    assert (destination["CompressionFormat"], destination["FileExtension"]) == ("GZIP", ".jsonl.gz")
    assert destination["DynamicPartitioningConfiguration"]["Enabled"] is True
    assert destination["Prefix"] == (
        "raw/!{partitionKeyFromLambda:folder}/date=!{partitionKeyFromLambda:date}/!{partitionKeyFromLambda:slot}-"
        "!{timestamp:yyyyMMddHHmmss}-"
    )
    assert destination["ErrorOutputPrefix"].startswith("raw/quarantine/stream/undelivered/!{firehose:error-output-type}/")
    (processor,) = destination["ProcessingConfiguration"]["Processors"]
    assert processor["Type"] == "Lambda"
    assert destination["CloudWatchLoggingOptions"]["Enabled"] is True


def test_each_kind_has_its_price_and_none_costs_what_it_did(aws: Assembly, streamed: tuple[str, Assembly], settings: Settings) -> None:
    kind, found = streamed
    without, bill = (
        cost.bill_of(cost.usage(cost.deployed(settings, [assembly.templates[name] for name in names])))
        for assembly, names in ((aws, STACKS), (found, ON))
    )
    assert not {"Firehose", "Kinesis"} & without.by_service.keys()
    more = bill.monthly - without.monthly
    if kind == "firehose":
        assert 0.3 < bill.by_service["Firehose"] < 1
        assert more < 1, "cents a month"
    else:
        assert 10.95 <= bill.by_service["Kinesis"] < 11.05
        assert 10 < more < 12
    assert any("the stream brings" in line for line in bill.assumptions)
    cost.run(settings, templates=found.folder, out=found.folder / "cost.json", console=Console(quiet=True))
