"""`papertape dashboard`: the web app over a deployment on this machine, until Ctrl-C.

Promise: it serves the run that is up (`make paper`, `make local`), or brings the last demo's back up and serves that. It listens on
loopback only and prints the one address that carries the token. The server is a process of its own, beside what trades.
Failure: a `PapertapeError` of one line.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import boto3
import uvicorn
from rich.console import Console

from local.dashboard.gateway import Tokens, create_app
from local.dashboard.processes import RunProcesses, child_environment
from local.dashboard.uploads import upload_route
from local.listening import HOST, listening
from papertape.operate.client import DEMO, PAPER, LocalRun, OperatorError, running
from papertape.options import BUNDLED_SETTINGS, ROOT
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET
from schema.settings import SETTINGS_FILE, Settings, load
from trading_env.errors import PapertapeError

CHILD = ROOT / "papertape" / "child_process.py"
CHECK_SECONDS = 1.0
#: What trades on this machine goes first; trainings, which this server starts, come after it.
NICE = 5
SCOPES = ("read", "trade", "approve")
OUTPUTS = {
    "LEDGER_TABLE": "LedgerTable",
    "RAW_BUCKET": "RawBucket",
    "PROCESSED_BUCKET": "ProcessedBucket",
    "AUDIT_BUCKET": "AuditBucket",
    "EXECUTION_API_URL": "ExecutionApiUrl",
}


class DashboardError(PapertapeError, RuntimeError):
    """The web app cannot be served; the message is one line with the remedy."""


def environment(run: LocalRun) -> dict[str, str]:
    """The variables that the function has on AWS, for the cloud of `run`: names of the deployed stacks, and where the cloud answers."""
    settings = load(run.settings_file)
    session = boto3.Session(aws_access_key_id=LOCAL_ACCOUNT, aws_secret_access_key=LOCAL_SECRET, region_name=run.region)
    pages = session.client("cloudformation", endpoint_url=run.cloud).get_paginator("describe_stacks").paginate()
    outputs = {one["OutputKey"]: one["OutputValue"] for page in pages for stack in page["Stacks"] for one in stack.get("Outputs", [])}
    missing = [name for name in (*OUTPUTS.values(), "ControlFunction") if name not in outputs]
    if missing:
        raise DashboardError(f"{run.name} has no output {missing[0]}: deploy it again")
    functions = session.client("lambda", endpoint_url=run.cloud)
    deployed = functions.get_function_configuration(FunctionName=outputs["ControlFunction"])["Environment"]["Variables"]
    return {
        "CODE_VERSION": deployed["CODE_VERSION"],
        "AWS_ENDPOINT_URL": run.cloud,
        "AWS_ENDPOINT_URL_EXECUTE_API": run.cloud,
        "AWS_ACCESS_KEY_ID": LOCAL_ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": LOCAL_SECRET,
        "AWS_REGION": run.region,
        "AWS_DEFAULT_REGION": run.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "POWERTOOLS_SERVICE_NAME": settings.name,
        "POWERTOOLS_METRICS_NAMESPACE": settings.name,
        "LOG_LEVEL": "WARNING",
        "PACKAGE_GROUP": settings.name,
        "UPLOADS": "/uploads/",
        SETTINGS_FILE: str(run.settings_file),
        **{variable: outputs[name] for variable, name in OUTPUTS.items()},
    }


def serve(listener: socket.socket, *, variables: Mapping[str, str], tokens: Tokens, folder: Path) -> None:
    """Serve in this process, whose environment becomes the function's, until a signal; what runs leave beside the lake lies in `folder`."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(variables)
    from lambdas.dashboard.handler import handler  # reads the environment when it is imported
    from lambdas.dashboard.runs.views import folder_of

    runs = folder_of(variables["PROCESSED_BUCKET"])
    processes = RunProcesses(
        runs, environment=child_environment(variables), settings=Path(variables[SETTINGS_FILE]), folder=folder / "runs"
    )
    app = create_app(
        handler=handler,
        tokens=tokens,
        port=listener.getsockname()[1],
        after_write=processes.after_write,
        upload=upload_route(runs, claims=tokens.claims),
    )
    config = uvicorn.Config(app, loop="asyncio", lifespan="off", log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    processes.start()
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        processes.close()


def run(folder: Path | None, *, port: int, console: Console) -> None:
    """Serve the run that is up in `folder` (None: wherever one is up), else the restored one of the last demo, until Ctrl-C."""
    try:
        found = running(folder)
    except OperatorError:
        if folder == PAPER:
            raise
        _restore(folder or DEMO, port=port, console=console)
        return
    os.nice(NICE)
    token = secrets.token_urlsafe(24)
    with listening(port) as listener:
        address = f"http://{HOST}:{listener.getsockname()[1]}/#token={token}"
        console.print(f"web app over {found.name}: {address}", soft_wrap=True, highlight=False, markup=False)
        serve(listener, variables=environment(found), tokens=Tokens({token: SCOPES}), folder=found.folder)


@contextmanager
def beside(folder: Path, *, port: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """The web app of the run that `folder` announces, in a process of its own, which ends with the block and with this process."""
    command = [sys.executable, "-m", "papertape", "dashboard", "--folder", str(folder), "--port", str(port)]
    server = subprocess.Popen([sys.executable, str(CHILD), "--", *command], cwd=ROOT, stdin=subprocess.PIPE)
    try:
        yield server
    finally:
        server.terminate()
        server.wait()
        if server.stdin is not None:
            server.stdin.close()


def settings_of(folder: Path) -> Settings:
    """Those that the run in `folder` was deployed with, which leaves them there; the demo's own where nothing was deployed."""
    deployed = folder / "settings.toml"
    return load(deployed if deployed.is_file() else BUNDLED_SETTINGS)


def _restore(folder: Path, *, port: int, console: Console) -> None:
    """The run in `folder` brought back up, and its web app."""
    from local.replay.restore import restored

    console.print("bringing the traded year back up")
    with restored(settings_of(folder), folder=folder, port=0) as (deployment, _), beside(folder, port=port) as server:
        try:
            while server.poll() is None and not threading.Event().wait(CHECK_SECONDS):
                deployment.exchange.check()
                deployment.cloud.check()
        except KeyboardInterrupt:
            console.print("stopping; what was traded stays in", str(folder))
