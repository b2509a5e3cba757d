"""Deterministic archives: the same files give the same bytes, on any machine and at any time.

`source_archive` is what the containers unpack (a SageMaker `sourcedir.tar.gz`), `archive` packs any set of named bytes. Names are sorted;
time, owner and mode are fixed; the gzip header carries neither a time nor a name. Standard library only: the stacks load it by path.
A missing file raises `FileNotFoundError` with its path; nothing is skipped silently.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("due.py", "evaluate.py", "inference.py", "requirements.txt", "train.py")
PACKAGES = ("learning", "schema", "trading_env")
RUNS = ("papertape/market_data", "papertape/reports", "papertape/research", "papertape/runs")  # with `PACKAGES`, what a run imports
RUNS_BESIDE = ("papertape/__init__.py", "papertape/child_process.py")
BARS = ("LICENSE-APACHE-2.0", "SHA256SUMS", "corrections.csv", "daily_bars.parquet", "factors.parquet", "settings.toml")
SERVING = ("learning/__init__.py", "learning/serving.py")  # with `trading_env`, all that an endpoint imports


def archive(files: Mapping[str, bytes]) -> bytes:
    """Pack {path in the archive: content} as tar.gz."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=9) as compressed,
        tarfile.open(mode="w", fileobj=compressed, format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(files[name]), 0o644, 0
            tar.addfile(entry, io.BytesIO(files[name]))
    return buffer.getvalue()


def modules(package: str, *, root: Path = ROOT) -> dict[str, bytes]:
    """Every module of a package of ours, by its path below `root`."""
    folder = root / package
    if not (folder / "__init__.py").is_file():
        raise FileNotFoundError(f"{folder} must be the package {package}, its __init__.py is not there")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in folder.rglob("*.py")}


def source_archive(*, root: Path = ROOT, settings_json: str) -> bytes:
    """Pack the scripts of `root`/sagemaker flat, with the packages that they import and the given settings as `settings.json`."""
    files = {name: (root / "sagemaker" / name).read_bytes() for name in SCRIPTS}
    files["settings.json"] = settings_json.encode()
    for package in PACKAGES:
        files |= modules(package, root=root)
    return archive(files)


def runs_archive(*, root: Path = ROOT, settings_json: str) -> bytes:
    """Pack what `python -m papertape.runs` needs, laid out as here: modules, templates, training scripts and the bundled bars. At the top,
    the given settings as `settings.json`, and what the container has to install as `requirements.txt`."""
    installed = [root / "sagemaker" / "requirements.txt", root / "papertape" / "runs" / "requirements.txt"]
    files = {f"sagemaker/{name}": (root / "sagemaker" / name).read_bytes() for name in SCRIPTS}
    files |= {name: (root / name).read_bytes() for name in (*RUNS_BESIDE, *(f"data/{name}" for name in BARS))}
    for package in (*PACKAGES, *RUNS):
        files |= modules(package, root=root)
    files |= {path.relative_to(root).as_posix(): path.read_bytes() for path in (root / "data" / "universes").glob("*.csv")}
    files |= {path.relative_to(root).as_posix(): path.read_bytes() for path in (root / "papertape" / "reports").iterdir() if path.is_file()}
    files["papertape/runs/requirements.txt"] = installed[1].read_bytes()
    files["requirements.txt"] = b"".join(path.read_bytes() for path in installed)
    files["settings.json"] = settings_json.encode()
    return archive(files)


def serving_files(*, root: Path = ROOT) -> dict[str, bytes]:
    """What an endpoint runs: its script, which lies at the root where an archive was unpacked, and the modules that it imports."""
    script = next(path for path in (root / "inference.py", root / "sagemaker" / "inference.py") if path.is_file())
    return {
        "inference.py": script.read_bytes(),
        **{name: (root / name).read_bytes() for name in SERVING},
        **modules("trading_env", root=root),
    }
