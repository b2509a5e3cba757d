"""The client of a running Papertape's execution API, on this laptop or on AWS; every call is signed.

The laptop's run (`make paper` or `make local`) is found by the file that it leaves in its folder while it is up; on AWS the API's address
is an output of the trading stack in the account of the environment's credentials. Promise: only the named API is called. Failure:
`OperatorError`, one line with the remedy, when the API cannot be found, refuses, or does not respond.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from lambdas.common.api.client import Answer, ExecutionApi, ExecutionApiError
from lambdas.common.environment import VariablesError
from papertape.options import ROOT
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET, is_loopback, refuse_foreign_endpoints
from schema.settings import Settings
from trading_env.errors import PapertapeError

RUNNING, RUNNING_SETTINGS = "running.json", "running-settings.json"
DEMO, PAPER = ROOT / "out" / "demo", ROOT / "out" / "paper"
LOCAL_PATH = re.compile(r"^/restapis/(?P<id>[^/]+)/(?P<stage>[^/]+)/_user_request_/?$")
AWS_HOST = re.compile(r"^[a-z0-9]+\.execute-api\.(?P<region>[a-z0-9-]+)\.amazonaws\.com$")

Document = dict[str, Any]


class OperatorError(PapertapeError, RuntimeError):
    """The command was not carried out, or it is unknown whether it was; the message is one line with cause and remedy."""


@contextmanager
def announced(
    folder: Path, *, api_url: str, cloud_url: str, settings: Settings, name: str = "local", broker_url: str = ""
) -> Iterator[None]:
    """While the block runs, `folder` says where the API of `make <name>` answers, and what it runs by. Another process's announcement is
    left alone.

    `broker_url` is its broker, if that is not the vendor's own.
    """
    file = folder / RUNNING
    run = {"api": api_url, "cloud": cloud_url, "region": settings.region, "broker": broker_url, "pid": os.getpid(), "name": name}
    (folder / RUNNING_SETTINGS).write_text(settings.model_dump_json(indent=1) + "\n", encoding="utf-8")
    partial = folder / f"{RUNNING}.part"
    partial.write_text(json.dumps(run) + "\n", encoding="utf-8")
    partial.replace(file)
    try:
        yield
    finally:
        if _pid(file) in (None, os.getpid()):
            file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Client:
    """One running Papertape: the name that is shown on the first line, and its API."""

    name: str
    api: ExecutionApi

    def status(self) -> Document:
        return self._request("GET /status", self.api.status, reads=True)

    def halt(self, reason: str) -> Document:
        return self._request("the halt", lambda: self.api.halt(reason))

    def resume(self, reason: str, *, version: int, account: str | None) -> Document:
        """Set the state to active, if its version is still `version`; it re-arms the breakers."""
        return self._request("the change", lambda: self.api.resume(reason, seen=version, account=account))

    def flatten(self, reason: str) -> Document:
        return self._request("the flatten", lambda: self.api.flatten(reason), also={202})

    def traced(self, identity: str) -> Document:
        """The order or the decision called `identity`, with its trace. Only decisions have a colon, and orders never a slash."""
        reads: list[Callable[[str], Answer]] = [self.api.decision] if ":" in identity else []
        reads += [self.api.order] if "/" not in identity else []
        for read in reads:
            found = self._request(f"GET of {identity}", partial(read, identity), also={404}, reads=True)
            if "trace" in found:
                return found
        raise OperatorError(
            f"{self.name} has no order and no decision {identity}; a decision is called like agent:2020-12-31/open+5, an order like "
            "pt1-..., and `status` names the last decision"
        )

    def orders_of(self, symbol: str, day: str) -> list[Document]:
        """The orders of `symbol` on `day` (ISO date), oldest first."""
        found: list[Document] = []
        cursor: str | None = None
        while True:
            page = self._request("GET /orders", partial(self.api.orders, day[:7], cursor=cursor), reads=True)
            found += [order for order in page["orders"] if (order["symbol"], order["created_at"][:10]) == (symbol, day)]
            if (cursor := page["cursor"]) is None:
                return found

    def _request(
        self, what: str, call: Callable[[], Answer], *, also: frozenset[int] | set[int] = frozenset(), reads: bool = False
    ) -> Document:
        try:
            answer = call()
        except NoCredentialsError as error:
            remedy = "credentials of the account that owns it are needed in this shell; nothing was asked"
            raise OperatorError(f"{self.name}: {what} cannot be signed ({error}): {remedy}") from error
        except (ExecutionApiError, BotoCoreError) as error:
            doubt = "" if reads else ", so whether it was done is unknown"
            raise OperatorError(f"{self.name}: {what} has no answer{doubt}: {error}") from error
        if answer.status == 200 or answer.status in also:
            return answer.body
        reason = answer.body.get("message") or answer.body.get("Message") or answer.body
        if answer.status == 403:
            reason = f"{reason}; credentials of the account that owns it are needed"
        raise OperatorError(f"{self.name}: {what} was refused with {answer.status}: {reason}")


@dataclass(frozen=True, kw_only=True)
class LocalRun:
    """What a run on this machine announced: the API, the cloud it stands on, and its broker, empty if that is the vendor's own."""

    folder: Path
    api: str
    cloud: str
    region: str
    broker: str

    @property
    def name(self) -> str:
        return f"the laptop's run in {_shown(self.folder)}"

    @property
    def settings_file(self) -> Path:
        """The settings that it was deployed with."""
        return self.folder / RUNNING_SETTINGS


def folder_of(on: str, given: Path | None) -> Path | None:
    """Where to look for the laptop's run: in the given folder, in that of `make paper`, or wherever one is up (None)."""
    return PAPER if on == "paper" and given is None else given


def running(folder: Path | None = None) -> LocalRun:
    """The run that `make paper` or `make local` keeps up in `folder`; without one, whichever of the two is up. Raises OperatorError."""
    folders = [folder] if folder is not None else [PAPER, DEMO]
    up = [run for run in map(_announcement, folders) if run is not None and _answers(run.cloud)]
    if not up:
        places = " nor in ".join(_shown(one) for one in folders)
        starts = "`make paper` or `make local`" if folder is None else "`make paper`" if folder == PAPER else "`make local`"
        raise OperatorError(
            f"nothing runs in {places}: start it with {starts}, or add --on aws (make: on=aws) for the account of your credentials"
        )
    if len(up) > 1:
        raise OperatorError("both `make paper` and `make local` are up: add --on paper (make: on=paper) or --folder out/demo")
    return up[0]


def on_laptop(folder: Path | None = None) -> Client:
    """The API of the run that is `running`."""
    run = running(folder)
    return Client(run.name, _local_api(run.api, cloud=run.cloud, region=run.region))


def _announcement(folder: Path) -> LocalRun | None:
    """What a run in `folder` says of itself."""
    try:
        run = json.loads((folder / RUNNING).read_text(encoding="utf-8"))
        own = {name: str(run[name]) for name in ("api", "cloud", "region")}
        found = LocalRun(folder=folder, broker=str(run.get("broker", "")), **own)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not is_loopback(found.cloud):
        raise OperatorError(f"{folder / RUNNING} must name a cloud of this machine, was {found.cloud}")
    return found


def _pid(file: Path) -> int | None:
    """The process that announced itself in `file`, None where nothing readable stands."""
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _answers(cloud: str) -> bool:
    parts = urlsplit(cloud)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=2).close()
    except (OSError, ValueError):
        return False
    return True


def _shown(folder: Path) -> str:
    return str(folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder)


def on_aws(settings: Settings) -> Client:
    """The trading stack of `settings` in the account of the environment's credentials."""
    stack = f"{settings.name}-trading"
    override = _override()
    try:
        client = boto3.Session().client("cloudformation", region_name=settings.region)
        described = client.describe_stacks(StackName=stack)["Stacks"][0]
    except (BotoCoreError, ClientError) as error:
        remedy = "credentials of its account are needed, or --url with the API's address"
        raise OperatorError(f"stack {stack} in {settings.region} cannot be read ({error}): {remedy}") from error
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
    if "ExecutionApiUrl" not in outputs:
        raise OperatorError(f"stack {stack} in {settings.region} has no output ExecutionApiUrl: deploy it, or add --url")
    return Client(f"stack {stack} in {settings.region}", _api(outputs["ExecutionApiUrl"], region=settings.region, override=override))


def at_url(url: str) -> Client:
    """The API at `url`, of AWS or of this machine."""
    parts = urlsplit(url)
    aws, here = AWS_HOST.match(parts.hostname or ""), LOCAL_PATH.match(parts.path)
    if aws:
        return Client(url, _api(url.rstrip("/"), region=aws["region"], override=_override()))
    if here and is_loopback(url):
        named = f"https://{here['id']}.execute-api.us-east-1.amazonaws.com/{here['stage']}"
        return Client(url, _local_api(named, cloud=f"{parts.scheme}://{parts.netloc}", region="us-east-1"))
    raise OperatorError(
        f"--url must be https://<id>.execute-api.<region>.amazonaws.com/<stage>, or the address that `make local` shows, was {url}"
    )


def _override() -> str:
    """The endpoint override of the environment, if any; it may only point to this machine."""
    refuse_foreign_endpoints(os.environ)
    return os.environ.get("AWS_ENDPOINT_URL_EXECUTE_API") or os.environ.get("AWS_ENDPOINT_URL", "")


def _local_api(url: str, *, cloud: str, region: str) -> ExecutionApi:
    session = boto3.Session(aws_access_key_id=LOCAL_ACCOUNT, aws_secret_access_key=LOCAL_SECRET, region_name=region)
    return _api(url, region=region, override=cloud, session=session)


def _api(url: str, *, region: str, override: str, session: boto3.Session | None = None) -> ExecutionApi:
    try:
        return ExecutionApi(url=url, region=region, override=override, session=session)
    except VariablesError as error:
        raise OperatorError(f"the API's address cannot be used: {error}") from error
