"""What judging reads and writes outside its folders: the log of trials, and the model that trades now.

Promise: the log is a folder or an S3 prefix of entries `000001.json`, `000002.json`, ..., each one line of `TrialLog.to_lines()`. It is
verified whenever it is read, and an entry is written only where none is: of two judgements at once one gets the number, the other an
error, and nothing is ever overwritten. The incumbent is the newest Approved package of the group.
Failure: `RegistryError` for a log with a gap, a lost race, a package without its model, or AWS's own refusal; `TrialLogError` for a chain
that is broken. Nothing is tried twice, and no AWS endpoint but the real one or this machine is spoken to.
"""

from __future__ import annotations

import os
import re
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from schema.loopback import refuse_foreign_endpoints
from trading_env.errors import PapertapeError
from trading_env.evaluation.trials import TrialLog
from trading_env.simulation.policy import load_policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trading_env.simulation.policy import NumpyPolicy

NAME = re.compile(r"^(\d{6})\.json$")


class RegistryError(PapertapeError, ValueError):
    """The log or the registry cannot be used, or another judgement was faster; the message says which and what to do."""


class TrialStore(Protocol):
    """Numbered lines that are written once."""

    def names(self) -> list[str]: ...

    def line(self, name: str) -> str: ...

    def put(self, name: str, line: str) -> bool:
        """False when there is one of that name already."""
        ...


def trial_store(where: str, *, region: str) -> TrialStore:
    """The log at `where`, `s3://bucket/prefix/` or a folder, which is made when it is written to."""
    return _Bucket(where, region=region) if where.startswith("s3://") else _Folder(Path(where))


def read_log(store: TrialStore) -> TrialLog:
    """The verified log. Raises RegistryError when a number is missing, TrialLogError when an entry is not what it says it is."""
    names = sorted(name for name in store.names() if NAME.match(name))
    for number, name in enumerate(names, start=1):
        if name != _name(number):
            raise RegistryError(f"the log of trials must hold {_name(number)}, its next entry is {name}: one was removed")
    lines = [store.line(name) for name in names]
    if not all(line.strip() for line in lines):
        raise RegistryError(f"the log of trials must not hold an empty entry, {names[[not line.strip() for line in lines].index(True)]} is")
    return TrialLog.from_lines(lines)


def write_log(store: TrialStore, log: TrialLog, *, after: TrialLog) -> None:
    """Write the entries that `log` has beyond `after`, as it was read. Raises RegistryError when somebody wrote one meanwhile."""
    lines = log.to_lines()
    for number in range(len(after.entries) + 1, len(lines) + 1):
        if not store.put(_name(number), lines[number - 1]):
            raise RegistryError(f"another judgement wrote {_name(number)} of the log of trials meanwhile: run this one again")


def _name(number: int) -> str:
    return f"{number:06d}.json"


@dataclass(frozen=True)
class _Folder:
    folder: Path

    def names(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []

    def line(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def put(self, name: str, line: str) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".part", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
            try:
                # A link is there with all of its content or not at all, and never in the place of another
                (self.folder / name).hardlink_to(file.name)
            except FileExistsError:
                return False
        return True


class _Bucket:
    def __init__(self, where: str, *, region: str) -> None:
        self._bucket, self._prefix = _bucket_and_key(where)
        if self._prefix and not self._prefix.endswith("/"):
            raise RegistryError(f"the log's prefix must end with a slash, was {where}")
        self._s3 = _client("s3", region=region)

    def names(self) -> list[str]:
        with _aws("the log of trials cannot be listed"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            return [entry["Key"].removeprefix(self._prefix) for page in pages for entry in page.get("Contents", ())]

    def line(self, name: str) -> str:
        with _aws(f"entry {name} of the log of trials cannot be read"):
            body: bytes = self._s3.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()
            return body.decode()

    def put(self, name: str, line: str) -> bool:
        with _aws(f"entry {name} of the log of trials cannot be written"):
            try:
                self._s3.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=(line + "\n").encode(), IfNoneMatch="*")
            except self._s3.exceptions.ClientError as error:
                # 412: it is there; 409: another writer is at it this moment
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                    return False
                raise
        return True


@dataclass(frozen=True)
class Registered:
    """A package of the registry. `trial`, `configuration` and `data` (the hash of what it was trained on) are what it was registered with,
    empty where it names none; `model` is the s3:// URI of its archive."""

    package: str
    trial: str
    configuration: str
    data: str
    model: str

    @property
    def version(self) -> str:
        """Its group and number, as papertape/3."""
        return "/".join(self.package.split("/")[-2:])


def incumbent(group: str, *, region: str) -> Registered | None:
    """The newest Approved package of the group; None when there is none, and equal weight trades. Raises RegistryError."""
    found = newest(group, region=region, ModelApprovalStatus="Approved")
    if found is None:
        return None
    missing = [key for key, value in (("trial", found.trial), ("configuration", found.configuration)) if not value]
    if missing:
        raise RegistryError(
            f"{found.package} is approved and names no {' and no '.join(missing)}: reject it, or approve a package that does"
        )
    return found


def newest(group: str, *, region: str, **having: str) -> Registered | None:
    """The newest package of the group, whatever its verdict unless `having` asks for one; None when there is none. Raises RegistryError."""
    client = _client("sagemaker", region=region)
    with _aws(f"the packages of {group} cannot be read"):
        pages = client.get_paginator("list_model_packages").paginate(  # a page may be empty and not the last
            ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending", **having
        )
        listed = next((package for page in pages for package in page["ModelPackageSummaryList"]), None)
        if listed is None:
            return None
        found = client.describe_model_package(ModelPackageName=listed["ModelPackageArn"])
    trial, configuration, data = (
        found.get("CustomerMetadataProperties", {}).get(key, "") for key in ("trial", "configuration", "data_sha256")
    )
    model = found["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    return Registered(listed["ModelPackageArn"], trial, configuration, data, model)


def fetch_policy(model: str, *, region: str) -> NumpyPolicy:
    """The policy in the archive at the s3:// URI `model`. Raises RegistryError, or PolicyError when it does not hold a sound one."""
    bucket, key = _bucket_and_key(model)
    with _aws(f"{model} cannot be read"):
        content = _client("s3", region=region).get_object(Bucket=bucket, Key=key)["Body"].read()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with tarfile.open(fileobj=BytesIO(content), mode="r:gz") as tar:
                tar.extractall(scratch, filter="data")
        except tarfile.TarError as error:
            raise RegistryError(f"{model} is not an archive: {error}") from error
        return load_policy(Path(scratch))


def _bucket_and_key(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise RegistryError(f"an S3 URI is s3://bucket/key, was {uri}")
    return parts.netloc, parts.path.lstrip("/")


def _client(service: str, *, region: str) -> Any:
    import boto3

    refuse_foreign_endpoints(os.environ)
    return boto3.client(service, region_name=region)


@contextmanager
def _aws(problem: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise RegistryError(f"{problem}: {error}") from error
