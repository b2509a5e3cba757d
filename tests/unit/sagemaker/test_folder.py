"""The folder `sagemaker/` shares its name with the SDK: what keeps both working, and the archives that leave it."""

from __future__ import annotations

import ast
import importlib.util
import io
import re
import tarfile
from pathlib import Path

import pytest

from learning import configuration, packaging

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "sagemaker"
SETTINGS = '{"name": "x"}'


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar.getmembers()}  # type: ignore[union-attr]


def test_the_folder_never_becomes_a_package() -> None:
    assert not (FOLDER / "__init__.py").exists()
    reserved = {"train", "serve", "core", "mlops", "lineage", "ai_registry", "workflow", "local", "code"}
    assert not reserved & {path.name for path in FOLDER.iterdir() if path.is_dir()}


def test_the_sdk_is_still_what_import_sagemaker_gives() -> None:
    spec = importlib.util.find_spec("sagemaker.core")
    assert spec is not None
    assert "site-packages" in str(spec.origin)


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_scripts_import_no_project_code_through_the_sdks_name_and_torch_only_to_train(script: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert "sagemaker" not in imported
    assert not imported & {"lambdas", "stacks", "local", "glue_jobs", "papertape", "pickle"}
    assert script.name == "registry.py" or not imported & {"boto3", "botocore"}
    if script.name not in ("train.py", "network.py"):
        assert not imported & {"torch", "stable_baselines3", "network", "train"}


def test_containers_install_what_the_lock_file_pins_and_never_torch() -> None:
    def pins(path: Path) -> dict[str, str]:
        found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        return {name.lower().replace("_", "-"): version for name, version in found}

    ours, locked = pins(FOLDER / "requirements.txt"), pins(ROOT / "requirements.txt")
    assert "torch" not in ours
    assert ours
    assert {name: locked.get(name) for name in ours} == ours


def test_the_source_archive_has_the_scripts_flat_with_the_domain_and_the_settings() -> None:
    files = members(packaging.source_archive(settings_json=SETTINGS))
    assert files["settings.json"] == SETTINGS.encode()
    assert files["train.py"] == (FOLDER / "train.py").read_bytes()
    assert {
        "requirements.txt",
        "due.py",
        "evaluate.py",
        "schema/settings.py",
        "learning/training.py",
        "trading_env/__init__.py",
        "trading_env/simulation/policy.py",
    } <= files.keys()
    assert not any("__pycache__" in name or name.startswith(("/", "..")) for name in files)


def test_every_module_of_ours_that_an_archived_one_imports_is_archived_too() -> None:
    for files in (members(packaging.source_archive(settings_json=SETTINGS)), packaging.serving_files()):
        ours = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
        for name, content in files.items():
            for node in ast.walk(ast.parse(content)) if name.endswith(".py") else ():
                module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
                path = module.replace(".", "/")
                if module.partition(".")[0] in ours:
                    assert files.keys() & {f"{path}.py", f"{path}/__init__.py"}, f"{name} imports {module}"


def test_the_version_of_the_code_is_over_what_travels() -> None:
    """Else a container would call the same code another trial than the machine that sent it."""
    assert configuration.PACKAGES == packaging.PACKAGES
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} - {"pipeline.py", "runs_pipeline.py"} == set(packaging.SCRIPTS)


def test_archives_are_the_same_bytes_whatever_the_order_and_the_time(tmp_path: Path) -> None:
    one = packaging.archive({"b": b"2", "a": b"1"})
    assert one == packaging.archive({"a": b"1", "b": b"2"})
    assert one != packaging.archive({"a": b"1", "b": b"3"})
    for folder in ("x", "y"):
        for name in (*(f"{folder}/__init__.py" for folder in packaging.PACKAGES), *(f"sagemaker/{script}" for script in packaging.SCRIPTS)):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name, encoding="utf-8")
    (tmp_path / "y" / "schema" / "__init__.py").touch()
    archives = [packaging.source_archive(root=tmp_path / folder, settings_json=SETTINGS) for folder in ("x", "y")]
    assert archives[0] == archives[1]


def test_a_missing_script_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"due\.py"):
        packaging.source_archive(root=tmp_path, settings_json=SETTINGS)
