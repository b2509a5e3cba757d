"""`papertape run`: the runner in this process, with the variables of the deployed one, and a line per minute instead of a log.

Promise: it is the deployed runner's code with its ledger, bus, stream and broker, by the credentials of whoever runs it. Failure:
`OperatorError` where none is deployed, and whatever the runner raises.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from botocore.exceptions import ClientError
from rich.console import Console
from rich.markup import escape

from papertape.operate.client import OperatorError
from papertape.operate.cloud import AppCloud, asking
from schema.settings import SETTINGS_FILE

#: What a log record has of its own, and what the logger adds.
PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def run(cloud: AppCloud, *, console: Console) -> None:
    """Follow until Ctrl-C or SIGTERM."""
    from lambdas.common.telemetry import logger
    from runner.process import follow

    with tempfile.TemporaryDirectory(prefix="papertape-run-") as folder:
        os.environ.update(variables(cloud, folder=Path(folder)))
        logger.handlers[:] = [MinuteLines(console)]
        console.print(f"following the market for {cloud.name}; Ctrl-C ends it")
        follow()


def variables(cloud: AppCloud, *, folder: Path) -> dict[str, str]:
    """What the runner is to be started with: the deployed task's variables, the way to its cloud, and settings if its image has them."""
    deployed = _deployed(cloud)
    keys = cloud.session.get_credentials()
    if keys is None:
        raise OperatorError(f"{cloud.name}: there are no credentials; sign in to the account first")
    frozen = keys.get_frozen_credentials()
    way = {
        "AWS_ACCESS_KEY_ID": frozen.access_key,
        "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
        **({"AWS_SESSION_TOKEN": frozen.token} if frozen.token else {}),
        "AWS_DEFAULT_REGION": cloud.settings.region,
        "AWS_REGION": cloud.settings.region,
        **({"AWS_ENDPOINT_URL": cloud.endpoint} if cloud.endpoint else {}),
        **{name: value for name, value in cloud.broker.items() if name in {"ALPACA_TRADING_URL", "ALPACA_DATA_URL"}},
    }
    file = folder / "settings.json"
    file.write_text(cloud.settings.model_dump_json(), encoding="utf-8")
    return {SETTINGS_FILE: str(file)} | deployed | way


def _deployed(cloud: AppCloud) -> dict[str, str]:
    family = f"{cloud.settings.name}-runner"
    remedy = "set [runner] enabled = true and deploy"
    with asking(f"the runner's task {family} cannot be read"):
        try:
            task = cloud.client("ecs").describe_task_definition(taskDefinition=family)["taskDefinition"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ClientException":
                raise OperatorError(f"{cloud.name} has no runner: {remedy}") from None
            raise
    containers = task.get("containerDefinitions") or []
    if not containers:
        raise OperatorError(f"the task {family} has no container: {remedy}")
    return {variable["name"]: variable["value"] for variable in containers[0].get("environment", [])}


class MinuteLines(logging.Handler):
    """A line per minute that is over; warnings and errors as they come; nothing else."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console
        self._quotes = 0

    def emit(self, record: logging.LogRecord) -> None:
        extra = {name: value for name, value in vars(record).items() if name not in PLAIN}
        if record.getMessage() == "minute":
            self._console.print(self._line(extra))
        elif record.levelno >= logging.WARNING or record.getMessage() in {"following", "stopped"}:
            colour = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else "dim"
            detail = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in extra.items())
            self._console.print(f"[{colour}]{escape(record.getMessage())}: {escape(detail)}[/]")

    def _line(self, minute: Mapping[str, object]) -> str:
        quotes = int(str(minute["quotes"]))
        since, self._quotes = quotes - self._quotes, quotes
        at = datetime.fromisoformat(str(minute["minute"]))
        missing = minute["missing"]
        parts = [_counted(int(str(minute["bars"])), "bar"), _counted(since, "quote")]
        if isinstance(missing, tuple | list) and missing:
            parts.append(f"none of {', '.join(missing)}")
        parts += [
            f"{minute[name]} {name}" for name in ("flawed", "differing", "reconnects", "unreadable", "queued", "lost") if minute[name]
        ]
        return f"[bold]{at:%H:%M}[/] UTC  {escape(' · '.join(parts))}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
