"""The gates over the templates: cdk-nag's AwsSolutions rules at synthesis, and CloudFormation's schemas after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3

import app as application
from schema.settings import Settings
from stacks.constructs.permissions import allow
from tests.infrastructure.assembly import ROOT, STACKS, Assembly
from tests.infrastructure.gates import check_templates, linted

ACKNOWLEDGED = "aws:cdk:acknowledged-rules"


def test_nag_finds_nothing_and_cloudformation_s_schemas_hold(aws: Assembly) -> None:
    check_templates(aws.folder, *STACKS)


def test_nag_runs_at_every_synth(tmp_path: Path, settings: Settings) -> None:
    """A bucket without any care stops the synth: the gate above is real."""
    app = application.new_app(tmp_path)
    application.compose(app, settings=settings, target="aws", account=None)
    s3.Bucket(Stack(app, "careless"), "Open")
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    report = json.loads((tmp_path / "validation-report.json").read_text())
    found = {violation["ruleName"] for plugin in report["pluginReports"] for violation in plugin["violations"]}
    assert {"AwsSolutions-S1", "AwsSolutions-S10"} <= found


def test_every_acknowledgement_says_why(aws: Assembly) -> None:
    reasons = []
    for stack in STACKS:
        metadata = json.loads((aws.folder / f"papertape-{stack}.metadata.json").read_text())
        entries = (entry for entries in metadata.values() for entry in entries if entry["type"] == ACKNOWLEDGED)
        reasons += [(rule, reason) for entry in entries for rule, reason in entry["data"].items()]
    assert len(reasons) > 10
    assert not [rule for rule, reason in reasons if len(reason.split()) < 5]


def test_a_wildcard_needs_a_reason(tmp_path: Path) -> None:
    role = iam.Role(Stack(application.new_app(tmp_path), "stack"), "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    with pytest.raises(ValueError, match="needs a reason"):
        allow(role, "s3:GetObject", on=["arn:aws:s3:::anything/*"])


def test_a_property_that_cloudformation_does_not_know_is_found(tmp_path: Path) -> None:
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketNam": "mine"}}
    (tmp_path / "wrong.json").write_text(json.dumps({"Resources": {"Bucket": bucket}}))
    (found,) = linted([tmp_path / "wrong.json"])
    assert "[E3002" in found
    assert "BucketNam" in found


def test_the_command_line_is_pinned_and_locked_without_a_host() -> None:
    lock = (ROOT / "package-lock.json").read_text()
    assert json.loads(lock)["packages"]["node_modules/aws-cdk"]["version"] == "2.1148.1"
    assert "://" not in lock
