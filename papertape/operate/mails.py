"""The mails of a run on this laptop: what its topic published, as somebody subscribed would have got it.

Promise: only this machine is asked. Failure: `OperatorError` when nothing runs in the folder.
"""

from __future__ import annotations

from pathlib import Path

import requests
from rich.console import Console
from rich.markup import escape

from papertape.operate.client import OperatorError, running

TIMEOUT = 10.0


def show(folder: Path | None, *, last: int, console: Console) -> None:
    """Print the `last` mails of the run in `folder`, oldest first; 0: all of them."""
    mails = published(folder)
    for mail in mails[-last:]:
        console.print(f"\n[bold]{escape(mail['subject'])}[/]", soft_wrap=True, highlight=False)
        console.print(escape(mail["message"]), soft_wrap=True, highlight=False)
    console.print(f"\n{min(last, len(mails)) if last else len(mails)} of {len(mails)} mails", highlight=False)


def published(folder: Path | None) -> list[dict[str, str]]:
    """Subject and message of each mail, oldest first."""
    run = running(folder)
    try:
        response = requests.get(f"{run.cloud}/_papertape/published", timeout=TIMEOUT)
        response.raise_for_status()
        return [{"subject": str(one["subject"]), "message": str(one["message"])} for one in response.json()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OperatorError(f"{run.name} cannot tell its mails ({error}); on AWS mails go to alert_email") from error
