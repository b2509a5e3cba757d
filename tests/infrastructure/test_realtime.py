"""The runner in the templates: nothing of it by default; with it, one task that may do four things, three rules, and its hours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import app as application  # before aws_cdk: it chooses jsii's Node

# isort: split

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_nag import AwsSolutionsChecks

from local.replay.schedule import check, year
from schema.realtime.events import EVENTS
from schema.settings import BUNDLED, SETTINGS_DOCUMENT, Settings, checked_json
from stacks.constructs import archives
from stacks.constructs.archives import Target
from stacks.constructs.function import PythonFunction, Runtime
from stacks.constructs.permissions import allow
from stacks.lake import LakeStack
from stacks.realtime import RealtimeStack
from tests.infrastructure.assembly import ACCOUNT, Assembly
from tests.infrastructure.gates import check_templates

Template = dict[str, Any]


@dataclass
class OneStream:
    """A stream as the runner's stack needs one."""

    kind: str = "firehose"
    name: str = "papertape-stream"

    def let_write(self, role: iam.Role) -> None:
        allow(role, "firehose:PutRecordBatch", on=["arn:aws:firehose:us-east-1:000000000000:deliverystream/papertape-stream"])


def synthesized(folder: Path, settings: Settings, *, target: Target, stream: OneStream | None) -> Template:
    """The runner's stack, beside a lake and two functions."""
    app = application.new_app(folder)
    env = cdk.Environment(account=ACCOUNT if target == "laptop" else None, region=settings.region)
    runtime = Runtime(app=settings.name, target=target, code=archives.modules("schema", settings=settings, name="code"))
    lake = LakeStack(app, f"{settings.name}-lake", settings=settings, env=env)
    stack = cdk.Stack(app, f"{settings.name}-functions", env=env)
    reconcile, health = (
        PythonFunction(
            stack, folder, folder=folder, bundle="edge", runtime=runtime, environment={}, timeout=cdk.Duration.minutes(1), memory=128,
            description=folder,
        )
        for folder in ("reconcile", "health")
    )  # fmt: skip
    RealtimeStack(
        app, f"{settings.name}-realtime", settings=settings, runtime=runtime, lake=lake, reconcile=reconcile, health=health,
        stream=stream, env=env,
    )  # fmt: skip
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks())
    app.synth()
    template: Template = json.loads((folder / f"{settings.name}-realtime.template.json").read_text(encoding="utf-8"))
    return template


@pytest.fixture(scope="module")
def enabled(settings: Settings) -> Settings:
    return settings.model_copy(update={"runner": settings.runner.model_copy(update={"enabled": True})})


@pytest.fixture(scope="module")
def on_aws(tmp_path_factory: pytest.TempPathFactory, enabled: Settings) -> tuple[Path, Template]:
    folder = tmp_path_factory.mktemp("realtime")
    return folder, synthesized(folder, enabled, target="aws", stream=OneStream())


@pytest.fixture(scope="module")
def template(on_aws: tuple[Path, Template]) -> Template:
    return on_aws[1]


def of(template: Template, kind: str) -> dict[str, Any]:
    """Logical id -> properties."""
    return {name: resource["Properties"] for name, resource in template["Resources"].items() if resource["Type"] == kind}


def test_off_is_the_default_and_leaves_nothing(aws: Assembly) -> None:
    assert not (aws.folder / "papertape-realtime.template.json").exists()
    text = json.dumps(aws.templates)
    assert not [word for word in ("AWS::ECS", "AWS::EC2", "EventBus", "papertape.runner", "runner") if word in text]


def test_the_checks_pass_with_it(on_aws: tuple[Path, Template]) -> None:
    folder, _ = on_aws
    check_templates(folder, "realtime")
    assert "missing" not in json.loads((folder / "manifest.json").read_text()), "nothing is looked up in an account"


def test_the_task_is_small_and_may_do_four_things(template: Template) -> None:
    (task,) = of(template, "AWS::ECS::TaskDefinition").values()
    assert (task["Cpu"], task["Memory"], task["RuntimePlatform"]["CpuArchitecture"]) == ("256", "512", "ARM64")
    (container,) = task["ContainerDefinitions"]
    variables = {one["Name"] for one in container["Environment"]}
    assert variables >= {"LEDGER_TABLE", "BROKER_SECRET_ARN", "EVENT_BUS_NAME", "STREAM_KIND", "STREAM_NAME", "POWERTOOLS_SERVICE_NAME"}
    assert "Command" not in container, "the image has its own"
    (policy,) = [one for name, one in of(template, "AWS::IAM::Policy").items() if name.startswith("RunnerRole")]
    granted = {one["Action"]: one for one in policy["PolicyDocument"]["Statement"]}
    assert granted.keys() == {"events:PutEvents", "secretsmanager:GetSecretValue", "dynamodb:PutItem", "firehose:PutRecordBatch"}
    assert granted["dynamodb:PutItem"]["Condition"] == {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["runner"]}}
    assert granted["events:PutEvents"]["Condition"] == {"StringEquals": {"events:source": "papertape.runner"}}
    assert '"Bus' in json.dumps(granted["events:PutEvents"]["Resource"])


def test_its_network_has_a_way_out_over_tls_and_none_in(template: Template) -> None:
    (group,) = of(template, "AWS::EC2::SecurityGroup").values()
    assert "SecurityGroupIngress" not in group
    assert [(one["FromPort"], one["ToPort"], one["IpProtocol"]) for one in group["SecurityGroupEgress"]] == [(443, 443, "tcp")]
    assert not of(template, "AWS::EC2::NatGateway")
    assert not of(template, "AWS::EC2::EIP")
    (service,) = of(template, "AWS::ECS::Service").values()
    assert service["DesiredCount"] == 0
    assert service["DeploymentConfiguration"] == {"MaximumPercent": 100, "MinimumHealthyPercent": 0}, "never two at a time"


def test_it_lives_from_before_the_open_to_after_the_close_and_is_watched_every_minute(
    template: Template, enabled: Settings, settings: Settings
) -> None:
    schedules = {one["Name"].removeprefix("papertape-"): one for one in of(template, "AWS::Scheduler::Schedule").values()}
    assert {name: one["ScheduleExpression"] for name, one in schedules.items()} == {
        "start_runner": "cron(20 9 ? * MON-FRI *)",
        "keep_runner-first-hour": "cron(25/5 9 ? * MON-FRI *)",
        "keep_runner": "cron(0/5 10-15 ? * MON-FRI *)",
        "stop_runner": "cron(10 16 ? * MON-FRI *)",
        "health-runner": "cron(0/1 9-16 ? * MON-FRI *)",
    }
    assert {one["ScheduleExpressionTimezone"] for one in schedules.values()} == {"America/New_York"}
    for name, count in {"start_runner": 1, "keep_runner-first-hour": 1, "keep_runner": 1, "stop_runner": 0}.items():
        target = schedules[name]["Target"]
        assert json.dumps(target["Arn"]).endswith(':scheduler:::aws-sdk:ecs:updateService"]]}')
        separator, parts = target["Input"]["Fn::Join"]
        assert json.loads(separator.join(part if isinstance(part, str) else "x" for part in parts))["DesiredCount"] == count
        assert target["DeadLetterConfig"]
    assert json.loads(schedules["health-runner"]["Target"]["Input"])["only"] == "runner-silent"
    allowed = [
        (one["Action"], json.dumps(one["Resource"]).count("Service"))
        for name, policy in of(template, "AWS::IAM::Policy").items()
        if ("RunnerSchedule" in name and not name.startswith("Health")) or "HourSchedule" in name
        for one in policy["PolicyDocument"]["Statement"]
        if one["Action"].startswith("ecs:")
    ]
    assert allowed == [("ecs:UpdateService", 1)] * 4, "the count of this service, and nothing else"
    planned = {entry.schedule for entry in year(enabled)} - {entry.schedule for entry in year(settings)}
    assert planned == schedules.keys()


def test_each_event_reaches_who_acts_on_it_and_what_fails_is_a_dead_letter(template: Template) -> None:
    rules = {one["Name"]: one for one in of(template, "AWS::Events::Rule").values()}
    reached = {
        kind: json.dumps(rule["Targets"][0]["Arn"]) for rule in rules.values() for kind in rule["EventPattern"]["detail-type"]
    }  # fmt: skip
    known = {one.detail_type for one in EVENTS}
    assert reached.keys() == known - {"minute closed"}, "which is for whoever reads the bus"
    assert {kind for kind, arn in reached.items() if "health" in arn} == {"feed silent"}
    for rule in rules.values():
        assert rule["EventPattern"]["source"] == ["papertape.runner"]
        assert "Bus" in json.dumps(rule["EventBusName"])
        (target,) = rule["Targets"]
        assert target["RetryPolicy"] == {"MaximumEventAgeInSeconds": 300, "MaximumRetryAttempts": 2}
        assert "DeadLetters" in json.dumps(target["DeadLetterConfig"])


def test_the_image_is_built_from_a_folder_with_code_and_settings_and_the_laptop_publishes_none(
    on_aws: tuple[Path, Template], tmp_path: Path, enabled: Settings
) -> None:
    folder, _ = on_aws
    images = json.loads((folder / "papertape-realtime.assets.json").read_text())["dockerImages"]
    (image,) = images.values()
    context = folder / image["source"]["directory"]
    assert checked_json((context / "code" / BUNDLED).read_bytes(), source="image") == enabled
    assert (context / "code" / "runner" / "__init__.py").is_file()
    assert not list(context.rglob("__pycache__"))
    pinned = set((application.ROOT / "requirements.txt").read_text().split())
    pins = [line for line in (context / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert [pin for pin in pins if pin not in pinned] == []
    assert archives.image_context(settings=enabled) == archives.image_context(settings=enabled)

    template = synthesized(tmp_path, enabled, target="laptop", stream=None)
    assert json.loads((tmp_path / "papertape-realtime.assets.json").read_text())["dockerImages"] == {}
    (task,) = of(template, "AWS::ECS::TaskDefinition").values()
    (container,) = task["ContainerDefinitions"]
    assert container["Command"] == ["python", "-m", "runner"]
    variables = {one["Name"]: one["Value"] for one in container["Environment"]}
    assert checked_json(variables[SETTINGS_DOCUMENT].encode(), source="template") == enabled


def test_every_deployed_schedule_is_planned(enabled: Settings, template: Template, aws: Assembly) -> None:
    own = {one["Name"].removeprefix("papertape-") for one in of(template, "AWS::Scheduler::Schedule").values()}
    check(year(enabled), own | aws.schedules().keys())
