"""The archive that a trained policy travels in, as bytes: its two files, and the hash of both, by which a model is known everywhere.

Promise: standard library only, and nothing of the archive is executed or written. What is no such archive raises `ArtifactError`.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence

from trading_env.errors import PapertapeError

ARRAYS, CARD = "policy.npz", "policy.json"
FILES = (ARRAYS, CARD)  # what a model is the hash of, in this order


class ArtifactError(PapertapeError, ValueError):
    """The archive holds no policy, or another than it should."""


def artifact_hash(files: Mapping[str, bytes]) -> str:
    """sha256 of policy.npz followed by policy.json: the model's version."""
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(files[name])
    return digest.hexdigest()


def read_artifact(content: bytes, *, expected_hash: str | None = None) -> dict[str, bytes]:
    """policy.npz and policy.json of a tar.gz; with `expected_hash` no others than those of that hash."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for name in FILES:
                file = archive.extractfile(_member(archive, name))
                if file is None:
                    raise ArtifactError(f"the model's archive must hold {name} as a file")
                files[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, KeyError) as error:
        raise ArtifactError(f"the model's archive cannot be read: {error}") from error
    if expected_hash is not None and (found := artifact_hash(files)) != expected_hash:
        raise ArtifactError(f"the model in the archive must have the hash {expected_hash}, was {found}")
    return files


def slots_problem(*, wanted: Sequence[str], was: Sequence[str]) -> str:
    """How it is said everywhere that a model is of other slots, which `policy.json` names."""
    needed, found = (", ".join(names) or "none (daily bars)" for names in (wanted, was))
    return f"slots must be {needed}, was {found}"


def _member(archive: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    try:
        return archive.getmember(name)
    except KeyError:
        return archive.getmember(f"./{name}")  # as `tar -C folder .` writes it
