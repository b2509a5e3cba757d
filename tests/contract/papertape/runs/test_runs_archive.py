"""What a container of a run unpacks: everything that the worker imports, and nothing of another machine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from learning import packaging

ROOT = Path(__file__).resolve().parents[4]
SETTINGS = (ROOT / "data" / "settings.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    packed = packaging.runs_archive(settings_json="{}")
    assert packed == packaging.runs_archive(settings_json="{}"), "the same bytes each time"
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        tar.extractall(folder, filter="data")
    return folder


def pins(path: Path) -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return dict(line.split("==") for line in lines if line)


def test_its_pins_are_those_of_the_lock_file(unpacked: Path) -> None:
    locked = (ROOT / "requirements.txt").read_text(encoding="utf-8").lower()
    own = pins(ROOT / "papertape" / "runs" / "requirements.txt")
    assert all(f"{name}=={version}" in locked for name, version in own.items())
    assert pins(unpacked / "requirements.txt") == pins(ROOT / "sagemaker" / "requirements.txt") | own


def test_what_was_unpacked_works_alone(unpacked: Path, tmp_path: Path) -> None:
    request = {"id": "training-1", "kind": "train", "by": "ann", "requested_at": "2026-11-22T00:00:00Z", "bars": {"source": "bundled"}}
    script = f"""
import json, sys
from pathlib import Path
import papertape.runs.__main__, papertape.runs.s3_store, papertape.runs.service, papertape.runs.reader
from papertape.runs.store import LocalRunStore
from papertape.runs.studies import Studies
from schema.runs.request import RunRequest
scratch = Path({str(tmp_path)!r})
study = Studies(settings=None, scratch=scratch).of(RunRequest.model_validate_json({json.dumps(request)!r}), LocalRunStore(scratch))
print(papertape.runs.__file__, len(study.folds()))
assert not {{"torch", "lambdas", "local", "stacks"}} & set(sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONPATH": str(unpacked)}
    told = subprocess.run([sys.executable, "-c", script], cwd=unpacked, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(str(unpacked)), "not the modules of this checkout"
