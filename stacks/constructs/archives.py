"""Deterministic zip archives of what is deployed, code with its settings, and of dependencies, kept in `.cache/bundles`.

An archive is named by what it is made from (requirements, Python version, source files), never by when or where: two synths give the
same asset hashes, and an archive that is already there is used as it is, so a second synth needs neither pip nor a network.
`BundleError` is raised, with one line, when pip cannot install what a bundle pins.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from schema.settings import BUNDLED, Settings
from trading_env.errors import PapertapeError

Bundle = Literal["edge", "trade", "dashboard"]
Target = Literal["aws", "laptop"]

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "bundles"
RUNNER_REQUIREMENTS = ROOT / "runner" / "requirements.txt"
RUNTIME_PYTHON = "3.14"
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64")
UNZIPPED_LIMIT = 250 * 2**20  # bytes, of a function's code and layers together

# Package folders whose tests, headers and stubs no function imports: a sixth of the trade bundle
TRIMMED_PACKAGES = {"numpy", "pandas", "talib", "certifi"}
TRIMMED_FOLDERS = {"tests", "include"}
TRIMMED_SUFFIXES = {".pyi", ".pyx", ".pxd", ".h", ".c", ".pyc"}
# Written by pip; they hold the path of this machine's interpreter
TRIMMED_FILES = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
LAYOUT = "1"  # raise it when what is trimmed changes


class BundleError(PapertapeError, RuntimeError):
    """The dependencies of a bundle could not be installed; the message is one line with a remedy."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file, and the identity under which CDK publishes it."""

    path: Path
    key: str


@dataclass(frozen=True, kw_only=True)
class Code(Archive):
    """Code and the settings that it is deployed with; `version` is the hash of the code alone, `key` of both."""

    version: str


def python_version(target: Target) -> str:
    """Python that runs the functions: the runtime's on AWS, this interpreter's on the laptop."""
    return RUNTIME_PYTHON if target == "aws" else f"{sys.version_info.major}.{sys.version_info.minor}"


def dependencies(bundle: Bundle, *, target: Target) -> Archive:
    """Return the layer archive (`python/...`) of what `lambdas/requirements-<bundle>.txt` pins."""
    requirements = ROOT / "lambdas" / f"requirements-{bundle}.txt"
    version = python_version(target)
    key = _digest([LAYOUT.encode(), version.encode(), " ".join(PLATFORMS).encode(), requirements.read_bytes()])
    path = CACHE / f"{bundle}-py{version}-{key[:16]}.zip"
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            _install(requirements, Path(folder), version=version, cross=target == "aws")
            _keep(path, _zip({f"python/{name}": content for name, content in _kept(Path(folder))}))
    return Archive(path=path, key=key)


def modules(*names: str, settings: Settings, name: str = "modules") -> Code:
    """Return the archive of the given packages of this repository, every source file, with `settings` for `schema.settings.deployed`."""
    files = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for source in (ROOT / part for part in names)
        for path in ([source] if source.is_file() else source.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not path.match("requirements-*.txt")
    }
    archive = archive_of({**files, BUNDLED: settings.model_dump_json().encode()}, name=name)
    return Code(path=archive.path, key=archive.key, version=_digest_of(files))


def image_context(*, settings: Settings) -> Path:
    """Return the folder that `runner/Dockerfile` is built in: that file, the runner's dependencies, its code and `settings`."""
    code = modules("runner", "lambdas/common", "lambdas/__init__.py", "schema", "trading_env", settings=settings, name="runner-code")
    files = {"Dockerfile": (ROOT / "runner" / "Dockerfile").read_bytes(), "requirements.txt": RUNNER_REQUIREMENTS.read_bytes()}
    with zipfile.ZipFile(code.path) as archive:
        files |= {f"code/{name}": archive.read(name) for name in archive.namelist()}
    folder = CACHE / f"runner-image-{_digest_of(files)[:16]}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=CACHE, suffix=".part"))
        for name, content in files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            partial.rename(folder)
        except OSError:  # another synth was first
            shutil.rmtree(partial)
    return folder


def archive_of(files: Mapping[str, bytes], *, name: str) -> Archive:
    """Return a zip archive of {path in the archive: content}."""
    key = _digest_of(files)
    path = CACHE / f"{name}-{key[:16]}.zip"
    if not path.exists():
        _keep(path, _zip(files))
    return Archive(path=path, key=key)


def file_of(content: bytes, *, name: str, suffix: str) -> Archive:
    """Return a file with the given content, named by it."""
    key = _digest([content])
    path = CACHE / f"{name}-{key[:16]}{suffix}"
    if not path.exists():
        _keep(path, content)
    return Archive(path=path, key=key)


def _install(requirements: Path, folder: Path, *, version: str, cross: bool) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps"]
    command += ["--only-binary=:all:", "--target", str(folder), "--requirement", str(requirements)]
    if cross:
        command += ["--implementation", "cp", "--python-version", version]
        command += [part for platform in PLATFORMS for part in ("--platform", platform)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines() or ["no message"]
        raise BundleError(
            f"lambdas/{requirements.name} cannot be installed for Python {version}: {errors[-1]}; "
            "correct the pin, or run this once with a network (the result is kept in .cache/bundles)"
        )


def _kept(folder: Path) -> Iterable[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        trimmed = parts[0] in TRIMMED_PACKAGES and (TRIMMED_FOLDERS & set(parts) or path.suffix in TRIMMED_SUFFIXES)
        left_by_pip = parts[0] == "bin" or "__pycache__" in parts or (parts[0].endswith(".dist-info") and path.name in TRIMMED_FILES)
        if path.is_file() and not trimmed and not left_by_pip:
            yield "/".join(parts), path.read_bytes()


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr, entry.compress_type = 0o100644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def _keep(path: Path, content: bytes) -> None:
    """Write `path` whole or not at all: two synths may make the same archive at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
        part.write(content)
    Path(part.name).replace(path)


def _digest_of(files: Mapping[str, bytes]) -> str:
    return _digest(part for path in sorted(files) for part in (path.encode(), files[path]))


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
