"""Each patch of the emulator is still needed and still fits: upstream is asked, in the emulator's own interpreter."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

from local.aws.emulator import ROOT

PYTHON = ROOT / ".venv-cloud" / "bin" / "python"
AWS = ROOT / "local" / "aws"
SOURCE, PATCHING = (AWS / name for name in ("emulator_patches.py", "patching.py"))
OTHERS = (
    "lambda_patches.py",
    "emulator_state.py",
    "services/athena.py",
    "services/containers.py",
    "services/shards.py",
    "services/delivery_streams.py",
)
SOURCES = (SOURCE, *(AWS / name for name in OTHERS))

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="the local cloud's environment is not installed: make setup")


def named(constant: str) -> list[str]:
    """The items of a tuple in the patches' source, read without importing it."""
    for node in ast.parse(SOURCE.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == constant and isinstance(node.value, ast.Tuple):
            return [item.id if isinstance(item, ast.Name) else str(ast.literal_eval(item)) for item in node.value.elts]
    raise AssertionError(f"{constant} is not in {SOURCE.name}")


def cloud_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LOG_LEVEL": "ERROR", "PERSIST_STATE": "0", "AUTH": "false"}
    return subprocess.run([PYTHON, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


@cache
def upstream() -> dict[str, str]:
    done = cloud_python("-m", "tests.e2e.upstream")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(results, dict)
    return results


@pytest.mark.parametrize("patch", named("PATCHES"))
def test_patch_is_needed_and_fits(patch: str) -> None:
    assert patch in upstream(), f"tests/e2e/upstream.py does not say what {patch} patches"
    assert not upstream()[patch], upstream()[patch]


def test_no_check_is_without_its_patch() -> None:
    assert set(upstream()) == set(named("PATCHES"))


def test_every_patch_says_why() -> None:
    functions = {
        node.name: ast.get_docstring(node)
        for source in SOURCES
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert not [patch for patch in named("PATCHES") if not functions[patch]]


def test_moved_symbol_stops_the_start_with_the_patch_and_the_version() -> None:
    moved = "import ministack.services.sns as sns; del sns._fanout; import local.aws.emulator_patches as p; p.main()"
    done = cloud_python("-c", moved)
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        == "patch messages_are_kept: ministack.services.sns._fanout is not there; ministack 1.5.33 is needed, was 1.5.33"
    )


def test_pins_agree() -> None:
    version = next(line.split('"')[1] for line in PATCHING.read_text(encoding="utf-8").splitlines() if line.startswith("VERSION ="))
    for name in ("requirements-cloud.in", "requirements-cloud.txt"):
        assert f"ministack=={version}" in Path(ROOT / name).read_text(encoding="utf-8")


def test_recorded_types_are_those_of_the_templates_that_upstream_does_not_know(synthesized: Path) -> None:
    templates = list(synthesized.glob("*.template.json"))
    assert len(templates) == 6
    used = {r["Type"] for path in templates for r in json.loads(path.read_text(encoding="utf-8"))["Resources"].values()}
    listed = "import json; from ministack.services.cloudformation import provisioners as p; print(json.dumps(list(p._RESOURCE_HANDLERS)))"
    known = set(json.loads(cloud_python("-c", listed).stdout.splitlines()[-1]))
    served = {name for name in used if name.startswith("AWS::SageMaker::")}
    of_the_web_app = {"AWS::Cognito::UserPoolUser"}  # which is off in these
    assert (used | of_the_web_app) - known - served - {"AWS::Athena::NamedQuery"} == set(named("RECORDED_TYPES"))
