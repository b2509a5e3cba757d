"""The workflow against its page, and what a deployment asks: nothing of a machine, everything of a person."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from schema.settings import load
from tests.infrastructure.assembly import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
PAGE = (ROOT / "docs" / "delivery.md").read_text(encoding="utf-8")
FAILED = "test"  # the job that the second picture lets fail


def workflow(name: str) -> dict[Any, Any]:
    document = yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    return dict(workflow("delivery.yml")["jobs"])


def edges(jobs: dict[str, Any]) -> set[tuple[str, str]]:
    return {(before, name) for name, job in jobs.items() for before in job.get("needs", [])}


def drawings() -> list[str]:
    return re.findall(r"```mermaid\n(.*?)```", PAGE, flags=re.DOTALL)


def steps(jobs: dict[str, Any]) -> list[dict[str, Any]]:
    called = [job for name in WORKFLOWS.glob("*.yml") for job in workflow(name.name)["jobs"].values()]
    return [step for job in called for step in job.get("steps", [])]


def test_the_pictures_are_the_workflow(jobs: dict[str, Any]) -> None:
    success, failure = drawings()
    for drawing in (success, failure):
        assert set(re.findall(r"^  (\S+) --> (\S+)$", drawing, flags=re.MULTILINE)) == edges(jobs)
    listed = re.findall(r"^\| `([a-z-]+)` \|", PAGE, flags=re.MULTILINE)
    assert sorted(listed) == sorted(jobs)


def test_the_second_picture_stops_what_the_failure_stops(jobs: dict[str, Any]) -> None:
    _, failure = drawings()
    drawn = {kind: set(names.split(",")) for names, kind in re.findall(r"^  class (\S+) (\w+)$", failure, flags=re.MULTILINE)}
    stopped: set[str] = set()
    while more := {name for before, name in edges(jobs) if before in stopped | {FAILED}} - stopped:
        stopped |= more
    assert drawn == {"failed": {FAILED}, "stopped": stopped, "passed": jobs.keys() - stopped - {FAILED}}


def test_a_failing_step_stops_the_rest(jobs: dict[str, Any]) -> None:
    text = "".join(path.read_text() for path in WORKFLOWS.glob("*.yml"))
    assert not re.search(r"continue-on-error|always\(\)|failure\(\)|cancelled\(\)|\|\| true", text)
    assert all(step.get("shell") == "bash" for step in steps(jobs) if "|" in step.get("run", "") and "tee" in step["run"]), (
        "else a pipe hides it"
    )
    assert [name for name in jobs if not jobs[name].get("needs")] == ["lint"]


def test_only_what_passed_everything_is_deployed_and_prod_after_dev(jobs: dict[str, Any]) -> None:
    before = {name: {one for one, after in edges(jobs) if after == name} for name in jobs}

    def all_before(name: str) -> set[str]:
        return before[name].union(*(all_before(one) for one in before[name]))

    assert all_before("deploy-dev") == {"lint", "unit", "synth", "test", "local"}
    assert all_before("deploy-prod") == all_before("deploy-dev") | {"deploy-dev"}
    assert jobs["deploy-dev"]["if"] == jobs["deploy-prod"]["if"] == "github.event_name == 'push'"
    assert workflow("delivery.yml")[True]["push"] == {"branches": ["main"]}  # YAML 1.1 reads `on` as true


def test_no_key_is_stored_and_only_who_needs_it_gets_a_token(jobs: dict[str, Any]) -> None:
    text = "".join(path.read_text() for path in WORKFLOWS.glob("*.yml"))
    assert "secrets." not in text
    assert "access-key" not in text
    assert {name for name, job in jobs.items() if "id-token" in job.get("permissions", {})} == {"diff", "deploy-dev", "deploy-prod"}
    assert workflow("delivery.yml")["permissions"] == {"contents": "read"}
    assert "head.repo.full_name == github.repository" in jobs["diff"]["if"], "a fork gets no token"


def test_the_environments_are_those_of_the_settings(jobs: dict[str, Any]) -> None:
    named = {job["with"]["environment"] for job in jobs.values() if "with" in job} | {jobs["diff"]["env"]["PAPERTAPE_ENVIRONMENT"]}
    assert named == {"dev", "prod"}
    dev, prod = (load(ROOT / "settings.toml", environment=name) for name in ("dev", "prod"))
    assert dev.name != prod.name == load(ROOT / "settings.toml").name


def test_each_target_that_a_job_makes_exists(jobs: dict[str, Any]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {name for line in re.findall(r"^([a-z ]+):", makefile, flags=re.MULTILINE) for name in line.split()}
    made = {name for step in steps(jobs) for name in re.findall(r"\bmake (?:-s )?([a-z]+)", step.get("run", ""))}
    assert {"lint", "unit", "cost", "diff", "deploy", "region", "status"} == made
    assert made <= targets


def deploy(tmp_path: Path, *, answer: str | None, fails: str = "", arguments: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """Run `make deploy` with a command line of CDK's that only writes down what it is asked; `answer` None is no terminal."""
    log, cdk = tmp_path / "log", tmp_path / "cdk"
    cdk.write_text(f'#!/bin/sh\necho "$@" >> {log}\n[ "$1" != "{fails}" ]\n')
    cdk.chmod(0o755)
    command = ["make", "-o", "setup", "-o", "bootstrapped", "-o", "synth", "deploy", f"CDK={cdk}", *arguments]
    if answer is None:
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20)
    else:
        ours, theirs = os.openpty()
        try:
            os.write(ours, f"{answer}\n".encode())
            done = subprocess.run(command, cwd=ROOT, stdin=theirs, capture_output=True, check=False, timeout=20)
        finally:
            os.close(ours)
            os.close(theirs)
    return done.returncode, log.read_text().splitlines()


DIFF, DEPLOY = "diff --app cdk.out --all", "deploy --app cdk.out --all --require-approval never"


@pytest.mark.parametrize(
    ("answer", "arguments", "asked"),
    [(None, (), [DIFF, DEPLOY]), ("y", (), [DIFF, DEPLOY]), ("n", (), [DIFF]), ("", (), [DIFF]), ("n", ("yes=1",), [DIFF, DEPLOY])],
    ids=["no terminal", "yes", "no", "nothing", "yes=1"],
)
def test_a_deployment_is_shown_first_and_asked_for_where_somebody_can_answer(
    tmp_path: Path, answer: str | None, arguments: tuple[str, ...], asked: list[str]
) -> None:
    status, calls = deploy(tmp_path, answer=answer, arguments=arguments)
    assert calls == asked
    assert (status == 0) == (DEPLOY in calls)


def test_what_cannot_be_shown_is_not_deployed(tmp_path: Path) -> None:
    status, calls = deploy(tmp_path, answer=None, fails="diff")
    assert (status != 0, calls) == (True, [DIFF])


def test_make_knows_the_region_of_an_environment() -> None:
    done = subprocess.run(
        ["make", "-s", "-o", "setup", "region", "environment=dev"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.strip() == load(ROOT / "settings.toml", environment="dev").region
