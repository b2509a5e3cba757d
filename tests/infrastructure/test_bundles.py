"""What a function is made of: one platform, under the service's limit, the same bytes from the same sources, and it imports."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from schema.settings import BUNDLED, Settings, load
from stacks.constructs import archives
from stacks.constructs.archives import Archive, Bundle, BundleError, Code, Target
from tests.infrastructure.assembly import ROOT

CLOUD_PYTHON = ROOT / ".venv-cloud" / "bin" / "python"  # what runs the functions on the laptop; it holds boto3, as Lambda's runtime does
FOLDERS: dict[Bundle, list[str]] = {
    "edge": ["control", "deploy_model", "health", "publish_web", "report"],
    "dashboard": ["dashboard"],
    "trade": ["backfill_bars", "collect_news", "decide", "execute_orders", "ingest_quotes", "reconcile"],
}
HEAVY = ("numpy", "pandas", "talib", "alpaca")


def code(settings: Settings | None = None) -> Code:
    own = settings or load(ROOT / "settings.toml")
    return archives.modules("lambdas", "schema", "sources", "trading_env", settings=own, name="code")


def entries(archive: Archive) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(archive.path) as opened:
        return opened.infolist()


@pytest.mark.parametrize("target", ["aws", "laptop"])
@pytest.mark.parametrize("bundle", FOLDERS)
def test_a_function_stays_under_the_limit(bundle: Bundle, target: Target) -> None:
    unzipped = sum(entry.file_size for archive in (archives.dependencies(bundle, target=target), code()) for entry in entries(archive))
    assert unzipped < archives.UNZIPPED_LIMIT


def test_libraries_are_of_the_runtime_and_of_one_platform() -> None:
    names = [entry.filename for entry in entries(archives.dependencies("trade", target="aws"))]
    extensions = [name for name in names if ".cpython-" in name]
    assert len(extensions) > 50
    assert [name for name in extensions if not name.endswith(".cpython-314-x86_64-linux-gnu.so")] == []
    assert all(name.startswith("python/") for name in names)


@pytest.mark.parametrize("bundle", FOLDERS)
def test_archives_hold_no_traces_of_this_machine(bundle: Bundle) -> None:
    for archive in (archives.dependencies(bundle, target="aws"), code()):
        listed = entries(archive)
        assert {entry.date_time for entry in listed} == {(1980, 1, 1, 0, 0, 0)}
        names = [entry.filename for entry in listed]
        assert names == sorted(names)
        assert not [name for name in names if "__pycache__" in name or name.startswith("python/bin/") or "requirements-" in name]
        assert not [name for name in names if name.endswith(("/RECORD", "/direct_url.json"))]


def test_code_is_the_functions_the_domain_and_the_settings() -> None:
    names = {entry.filename for entry in entries(code())}
    assert {name.partition("/")[0] for name in names} == {"lambdas", "schema", "sources", "trading_env"}
    assert {f"lambdas/{folder}/handler.py" for folders in FOLDERS.values() for folder in folders} <= names
    assert BUNDLED in names


def test_other_settings_are_another_asset_and_the_same_code(settings: Settings) -> None:
    ours, theirs = code(), code(settings.model_copy(update={"alert_email": "owner@example.com"}))
    assert ours.key != theirs.key
    assert ours.version == theirs.version
    assert not (ROOT / BUNDLED).exists()  # a bundle's own: here it would answer for every other settings file


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bundle_knows_the_settings_that_it_was_made_with(zipped: bool, tmp_path: Path, settings: Settings) -> None:
    """As a function unpacks it, and as Glue imports from the archive itself."""
    mine = settings.model_copy(update={"alert_email": "owner@example.com"})
    place = code(mine).path
    if not zipped:
        with zipfile.ZipFile(place) as opened:
            opened.extractall(tmp_path)
        place = tmp_path
    assert asked(place) == mine.model_dump_json()


def test_a_bundle_without_settings_says_what_to_do(tmp_path: Path) -> None:
    with zipfile.ZipFile(code().path) as opened:
        opened.extractall(tmp_path)
    (tmp_path / BUNDLED).unlink()
    assert asked(tmp_path) == "schema/settings.json is not in this bundle: deploy again, or name a settings file in PAPERTAPE_SETTINGS_FILE"
    (tmp_path / BUNDLED).write_text('{"name": "Paper Tape"')
    assert asked(tmp_path).startswith("schema/settings.json: is not valid JSON, ")
    (tmp_path / BUNDLED).write_text('{"name": "Paper Tape"}')
    assert asked(tmp_path).startswith("schema/settings.json: name = 'Paper Tape' is not allowed: ")
    assert asked(tmp_path).endswith("; deploy again from a valid settings.toml")


def asked(place: Path) -> str:
    """What code in `place` answers when it is asked for its settings, or how it refuses."""
    program = f"""
import sys
sys.path[:0] = [{str(place)!r}]
from schema.settings import SettingsError, deployed
try:
    print(deployed().model_dump_json())
except SettingsError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.removesuffix("\n")


def test_the_same_sources_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, first = archives.dependencies("edge", target="laptop"), code()
    with zipfile.ZipFile(kept.path) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    monkeypatch.setattr(archives, "CACHE", tmp_path)
    again = code()
    assert (again.key, again.path.read_bytes()) == (first.key, first.path.read_bytes())
    assert archives.archive_of(files, name="edge").path.read_bytes() == kept.path.read_bytes()


@pytest.mark.parametrize("bundle", FOLDERS)
def test_new_york_needs_no_time_zone_of_the_runtime_s(bundle: Bundle, tmp_path: Path) -> None:
    """With PYTHONTZPATH empty only the bundle's own zones are left; the exchange's time is loaded at import."""
    for archive, folder in ((archives.dependencies(bundle, target="laptop"), "layer"), (code(), "code")):
        with zipfile.ZipFile(archive.path) as opened:
            opened.extractall(tmp_path / folder, [name for name in opened.namelist() if name.startswith(("python/tzdata/", "schema/"))])
    program = f"""
import sys
sys.path[:] = [{str(tmp_path / "code")!r}, {str(tmp_path / "layer" / "python")!r}, *(one for one in sys.path if "site-packages" not in one)]
from schema.exchange_time import NEW_YORK
import tzdata, zoneinfo
print(zoneinfo.TZPATH, NEW_YORK, tzdata.__file__.startswith({str(tmp_path)!r}))
"""
    done = subprocess.run(
        [str(CLOUD_PYTHON), "-S", "-c", program], env={"PYTHONTZPATH": "", "PYTHONPATH": ""}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "() America/New_York True\n"), done.stderr


def test_a_kept_bundle_needs_neither_pip_nor_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = archives.dependencies("edge", target="laptop")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert archives.dependencies("edge", target="laptop") == kept


def test_a_pin_that_cannot_be_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lambdas").mkdir()
    (tmp_path / "lambdas" / "requirements-edge.txt").write_text("requests==0.0.0\n")
    monkeypatch.setattr(archives, "ROOT", tmp_path)
    monkeypatch.setattr(archives, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        BundleError, match=r"^lambdas/requirements-edge.txt cannot be installed for Python 3.14: .*requests==0.0.0.*network"
    ) as refused:
        archives.dependencies("edge", target="aws")
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "cache").glob("*"))


def test_pins_agree_with_the_lock() -> None:
    """The functions run what was tested: wherever both pin a package, they pin the same version."""
    lock = pins(ROOT / "requirements.txt")
    for bundle in FOLDERS:
        own = pins(ROOT / "lambdas" / f"requirements-{bundle}.txt")
        assert {name: (version, lock[name]) for name, version in own.items() if lock.get(name, version) != version} == {}
        assert not own.get("python-dateutil", "2").startswith(("3", "4"))  # botocore, in the runtime, needs less than 3


def pins(path: Path) -> dict[str, str]:
    lines = (line.partition("==") for line in path.read_text().splitlines() if "==" in line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version.strip() for name, _, version in lines}


@pytest.mark.parametrize("bundle", FOLDERS)
def test_handlers_import_with_their_bundle_alone(bundle: Bundle, tmp_path: Path) -> None:
    for archive, folder in ((archives.dependencies(bundle, target="laptop"), "layer"), (code(), "code")):
        with zipfile.ZipFile(archive.path) as opened:
            opened.extractall(tmp_path / folder)
    imports = "\n".join(f"import lambdas.{folder}.handler" for folder in FOLDERS[bundle])
    program = f"""
import sys
sys.path[:0] = [{str(tmp_path / "code")!r}, {str(tmp_path / "layer" / "python")!r}]
{imports}
heavy = sorted(set({HEAVY!r}) & set(sys.modules))
elsewhere = sorted(name for name in ("pydantic", "requests", "aws_lambda_powertools", "numpy") if name in sys.modules
                   and not sys.modules[name].__file__.startswith({str(tmp_path)!r}))
print(heavy, elsewhere)
"""
    environment = {"AWS_DEFAULT_REGION": "us-east-1", "POWERTOOLS_SERVICE_NAME": bundle, "POWERTOOLS_METRICS_NAMESPACE": "Papertape"}
    done = subprocess.run([str(CLOUD_PYTHON), "-I", "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heavy, elsewhere = done.stdout.strip().rsplit(" [", 1)
    assert elsewhere == "]"
    assert (heavy == "[]") == (bundle != "trade"), heavy
