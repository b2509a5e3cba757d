"""The gates over what a synth wrote: cdk-nag's AwsSolutions rules, and CloudFormation's schemas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cfnlint.config import ConfigMixIn
from cfnlint.rules import Rules
from cfnlint.runner import Runner
from cfnlint.runner.template import run_template_by_file_paths


def check_templates(folder: Path, *stacks: str) -> None:
    """Fail unless cdk-nag found nothing at the synth, and the stacks' templates agree with CloudFormation's schemas."""
    report = json.loads((folder / "validation-report.json").read_text())
    verdicts = {plugin["pluginName"]: (plugin["conclusion"], plugin["violations"]) for plugin in report["pluginReports"]}
    assert verdicts == {"AwsSolutions": ("success", [])}
    assert linted([folder / f"papertape-{stack}.template.json" for stack in stacks]) == []


def linted(templates: Sequence[Path]) -> list[str]:
    """What cfn-lint says of templates, but W3005: that a dependency, which CDK or we wrote out, was implied as well."""
    config = ConfigMixIn(["--ignore-checks", "W3005", "--", *map(str, templates)])
    return [str(found) for found in run_template_by_file_paths(config, _rules())]


@cache
def _rules() -> Rules:
    """cfn-lint's own; a process of cfn-lint spends more on reading them than on most templates."""
    return Runner(ConfigMixIn([])).rules
