"""Restores a finished run: the exchange with its books and the local cloud with its state, up until Ctrl-C.

Promise: nothing is traded and nothing is deployed; what is stored in the run's folder is the same after as before. The ledger is compared
with the exchange's books before anything is shown. Without a finished run in the folder, or when the two disagree, it is a
`RestoreError` of one line.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lambdas.common.ledger.records import Snapshot
from local.aws.emulator import ROOT
from local.replay.demo import EVE
from local.replay.driver import compare
from local.replay.local_deployment import JOURNAL, LocalDeployment
from papertape.operate.client import announced
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET
from schema.settings import Settings
from trading_env.errors import PapertapeError

CHECK_SECONDS = 1.0


class RestoreError(PapertapeError, RuntimeError):
    """There is nothing to bring back, or it did not come back as it was; the message is one line with the remedy."""


def run(settings: Settings, *, folder: Path, port: int, console: Console) -> None:
    """Bring the run in `folder` up on `port` (0: a free one), show it, and stay until Ctrl-C."""
    with restored(settings, folder=folder, port=port) as (deployment, session):
        _show(deployment, session=session, api=_api(deployment), console=console)
        try:
            while not threading.Event().wait(CHECK_SECONDS):
                deployment.exchange.check()
                deployment.cloud.check()
        except KeyboardInterrupt:
            console.print("stopping; what was traded stays in", _shown(folder))


@contextmanager
def restored(settings: Settings, *, folder: Path, port: int) -> Iterator[tuple[LocalDeployment, str]]:
    """The run in `folder`, up and announced while the block runs, and its last session."""
    shown = _shown(folder)
    if not ((folder / JOURNAL).is_file() and (folder / "cloud" / "state").is_dir()):
        raise RestoreError(f"there is no traded year in {shown}: run `make demo` first")
    with LocalDeployment(folder, settings=settings, now=f"{EVE}T22:00:00Z", cloud_port=port) as deployment:
        deployment.resume()
        snapshot = deployment.ledger.latest_snapshot()
        if snapshot is None:
            raise RestoreError(f"the ledger in {shown} has no closing snapshot: run `make demo` again, to its end")
        day = compare(deployment.ledger, deployment.exchange.books(), snapshot.session)
        if day.differences:
            raise RestoreError(f"ledger and exchange differ after {snapshot.session}: {'; '.join(day.differences)}; run `make demo` again")
        api, cloud, broker = deployment.output("ExecutionApiUrl"), deployment.cloud.url, deployment.exchange.url
        with announced(folder, api_url=api, cloud_url=cloud, settings=settings, broker_url=broker):
            yield deployment, snapshot.session


def _shown(folder: Path) -> str:
    return str(folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder)


def _show(deployment: LocalDeployment, *, session: str, api: str, console: Console) -> None:
    portfolio, status = (_signed(f"{api}/{path}", region=deployment.settings.region) for path in ("portfolio", "status"))
    state = status["trading_state"]
    if status["warning"]:
        console.print(f"[bold yellow]{escape(status['warning'])}[/]", soft_wrap=True)
    console.print(_positions(Snapshot.of(portfolio["snapshot"])))
    table = Table(box=None, show_header=False)
    table.add_row("books", f"ledger and exchange agree after {session}: every position, the session's fills, the cash")
    table.add_row("trading state", f"{state['state']} ({state['reason']})")
    table.add_row("execution API", api)
    table.add_row(
        "AWS endpoint", f"{deployment.cloud.url}  (account {LOCAL_ACCOUNT}, secret {LOCAL_SECRET}, region {deployment.settings.region})"
    )
    table.add_row("exchange", f"{deployment.exchange.url}  (Alpaca's routes; its own books at /admin/books)")
    console.print(table)
    console.print(
        "In another terminal: make status, make halt reason=..., make resume reason=..., make flatten reason=...; papertape mails"
    )
    console.print("Any other request must be signed, for example:")
    service = f"aws:amz:{deployment.settings.region}:execute-api"
    console.print(f"  curl --aws-sigv4 {service} --user {LOCAL_ACCOUNT}:{LOCAL_SECRET} {api}/portfolio", soft_wrap=True)
    console.print("Ctrl-C stops it.")


def _positions(snapshot: Snapshot) -> Table:
    table = Table(title=f"Portfolio at the close of {snapshot.session}: ${snapshot.equity:,.2f}")
    for name in ("symbol", "shares", "close", "value", "share of equity"):
        table.add_column(name, justify="left" if name == "symbol" else "right")
    values = {symbol: held.quantity * held.close for symbol, held in snapshot.positions.items()}
    for symbol, held in sorted(snapshot.positions.items()):
        share = values[symbol] / snapshot.equity
        table.add_row(symbol, f"{held.quantity:,.4f}", f"${held.close:,.2f}", f"${values[symbol]:,.2f}", f"{share:.1%}")
    table.add_row("cash", "", "", f"${snapshot.cash:,.2f}", f"{snapshot.cash / snapshot.equity:.1%}")
    table.add_row("", "", "", f"${sum(values.values(), Decimal(0)) + snapshot.cash:,.2f}", "")
    return table


def _api(deployment: LocalDeployment) -> str:
    """The API's base on this machine, where AWS has https://<id>.execute-api.<region>.amazonaws.com/<stage>."""
    stage = deployment.output("ExecutionApiUrl").rstrip("/").rsplit("/", 1)[1]
    return f"{deployment.cloud.url}/restapis/{deployment.output('ExecutionApiId')}/{stage}/_user_request_"


def _signed(url: str, *, region: str) -> dict[str, Any]:
    """GET one document of the API; raise RestoreError when it does not answer 200."""
    request = AWSRequest(method="GET", url=url)
    SigV4Auth(Credentials(LOCAL_ACCOUNT, LOCAL_SECRET), "execute-api", region).add_auth(request)
    answer = requests.get(url, headers=dict(request.headers), timeout=30)
    if answer.status_code != 200:
        raise RestoreError(f"GET {url} answered {answer.status_code}: {answer.text[:200]}; run `make demo` again")
    document: dict[str, Any] = json.loads(answer.text)
    return document
