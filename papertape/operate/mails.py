"""The mails of a run on this laptop: what its topic published, as somebody subscribed would have got it.

Promise: only this machine is asked. Failure: `OperatorError` when nothing runs in the folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import requests
from rich.console import Console
from rich.markup import escape

from papertape.operate.client import RUNNING, OperatorError
from schema.loopback import is_loopback

TIMEOUT = 10.0


def show(folder: Path, *, last: int, console: Console) -> None:
    """Print the `last` mails of the run in `folder`, oldest first; 0: all of them."""
    mails = published(folder)
    for mail in mails[-last:]:
        console.print(f"\n[bold]{escape(mail['subject'])}[/]", soft_wrap=True, highlight=False)
        console.print(escape(mail["message"]), soft_wrap=True, highlight=False)
    console.print(f"\n{min(last, len(mails)) if last else len(mails)} of {len(mails)} mails", highlight=False)


def published(folder: Path) -> list[dict[str, str]]:
    """Subject and message of each mail, oldest first."""
    try:
        cloud = str(json.loads((folder / RUNNING).read_text(encoding="utf-8"))["cloud"])
        if not is_loopback(cloud):
            raise OperatorError(f"{folder / RUNNING} must name a cloud of this machine, was {cloud}")
        response = requests.get(f"{cloud}/_papertape/published", timeout=TIMEOUT)
        response.raise_for_status()
        return [{"subject": str(one["subject"]), "message": str(one["message"])} for one in response.json()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "start it with `make local`; on AWS mails go to alert_email"
        raise OperatorError(f"nothing runs in {folder} whose mails could be read: {remedy}") from error
