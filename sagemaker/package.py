"""Deterministic archives: the same files give the same bytes, on any machine and at any time.

`source_archive` is what the containers unpack (a SageMaker `sourcedir.tar.gz`), `archive` packs any set of named bytes. Names are sorted;
time, owner and mode are fixed; the gzip header carries neither a time nor a name. Standard library only: the stacks load it by path.
A missing file raises `FileNotFoundError` with its path; nothing is skipped silently.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCRIPTS = (
    "dataset.py",
    "document.py",
    "evaluate.py",
    "inference.py",
    "job.py",
    "judging.py",
    "network.py",
    "package.py",
    "registry.py",
    "requirements.txt",
    "train.py",
)


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


def domain_files(root: Path) -> dict[str, bytes]:
    """Every module of `trading_env`, which the containers import."""
    package = root / "trading_env"
    if not (package / "__init__.py").is_file():
        raise FileNotFoundError(f"{package} must be the trading_env package, its __init__.py is not there")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in package.rglob("*.py")}


def source_archive(*, root: Path, settings_json: str) -> bytes:
    """Pack the scripts of `root`/sagemaker flat, with `trading_env/`, `settings.py` and the given settings as `settings.json`."""
    files = {name: (root / "sagemaker" / name).read_bytes() for name in SCRIPTS}
    files["settings.py"] = (root / "settings.py").read_bytes()
    files["settings.json"] = settings_json.encode()
    return archive({**files, **domain_files(root)})
