"""The gates over the templates: cdk-nag's AwsSolutions rules at synthesis, and CloudFormation's schemas after it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3

import app as application
from schema.settings import Settings
from stacks.constructs.permissions import allow
from tests.infrastructure.assembly import ROOT, STACKS, Assembly

ACKNOWLEDGED = "aws:cdk:acknowledged-rules"


def test_nag_finds_nothing(aws: Assembly) -> None:
    report = json.loads((aws.folder / "validation-report.json").read_text())
    verdicts = {plugin["pluginName"]: (plugin["conclusion"], plugin["violations"]) for plugin in report["pluginReports"]}
    assert verdicts["AwsSolutions"] == ("success", [])


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


def test_cloudformation_schemas_hold(aws: Assembly) -> None:
    """W3005 only says that a dependency, which CDK or we wrote out, was implied as well."""
    lint = str(Path(sys.executable).with_name("cfn-lint"))
    templates = [str(aws.folder / f"papertape-{stack}.template.json") for stack in STACKS]
    done = subprocess.run([lint, "--ignore-checks", "W3005", "--", *templates], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_command_line_is_pinned_and_locked_without_a_host() -> None:
    lock = (ROOT / "package-lock.json").read_text()
    assert json.loads(lock)["packages"]["node_modules/aws-cdk"]["version"] == "2.1148.1"
    assert "://" not in lock
