"""What a synth writes, as plain dictionaries, and a synth in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import app as application
from schema.settings import Settings, load
from stacks.constructs.archives import Target
from tests.once import once

ROOT = Path(application.__file__).resolve().parent
ACCOUNT = application.LOCAL_ACCOUNT
STACKS = ("lake", "ingest", "features", "model", "trading", "monitoring")

Resource = dict[str, Any]


@dataclass(frozen=True)
class Assembly:
    """What a synth wrote: its folder, and each stack's template by its short name."""

    folder: Path
    templates: dict[str, dict[str, Any]]

    def resources(self, kind: str) -> Iterator[tuple[str, str, Resource]]:
        """Yield (stack, logical id, resource) of every resource of a CloudFormation type."""
        for stack, template in self.templates.items():
            for name, resource in template["Resources"].items():
                if resource["Type"] == kind:
                    yield stack, name, resource

    def functions(self) -> dict[str, Resource]:
        """Function folder -> properties."""
        found = (resource["Properties"] for _, _, resource in self.resources("AWS::Lambda::Function"))
        return {properties["Handler"].split(".")[1]: properties for properties in found}

    def schedules(self) -> dict[str, Resource]:
        """Schedule name without the app's -> properties."""
        found = (resource["Properties"] for _, _, resource in self.resources("AWS::Scheduler::Schedule"))
        return {properties["Name"].removeprefix("papertape-"): properties for properties in found}


def read(folder: Path) -> Assembly:
    return Assembly(
        folder=folder, templates={stack: json.loads((folder / f"papertape-{stack}.template.json").read_text()) for stack in STACKS}
    )


def synthesize(folder: Path, *, settings: Settings, target: Target = "aws", account: str | None = None) -> Assembly:
    app = application.new_app(folder)
    application.compose(app, settings=settings, target=target, account=account)
    app.synth()
    return read(folder)


def for_aws(factory: pytest.TempPathFactory) -> Assembly:
    """The app of this repository's settings, synthesized once for all workers."""
    settings = load(ROOT / "settings.toml")
    return read(once(factory, "aws-assembly", lambda folder: synthesize(folder / "cdk.out", settings=settings)) / "cdk.out")
