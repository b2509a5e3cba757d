"""Halt, resume, flatten, status, explain: what a person does to a running Papertape, and sees of it.

Promise: the first line names what is spoken to; what stopped trading is shown before it is resumed, and what has changed since is not
resumed unseen. Failure: `OperatorError`.
"""

from __future__ import annotations

import json

import typer
from rich.console import Console

from papertape.operate import display as view
from papertape.operate.client import OperatorError, Target

REASON_LIMIT = 300


def halt(target: Target, reason: str, *, console: Console) -> None:
    why = _reasoned("halt", reason)
    console.print(target.name)
    view.show_state(target.halt(why), console=console)


def resume(target: Target, reason: str, *, account: str, yes: bool, console: Console) -> None:
    """Ask, unless `yes`, before the state is set to active and the breakers are re-armed; with `account`, for that one from now on."""
    why = _reasoned("resume", reason)
    console.print(target.name)
    seen = target.status()
    view.show_status(seen, console=console)
    if seen["trading_state"]["state"] == "active" and not seen["breakers"] and not account:
        console.print("It trades already: nothing was changed.")
        return
    breakers = ", ".join(seen["breakers"])
    with_it = f" with account {account}" if account else ""
    console.print(f"Resuming sets it active{with_it}{f' and re-arms {breakers}' if breakers else '; no breaker has tripped'}.")
    if not yes and not _agreed():
        raise OperatorError("nothing was changed; to go on answer y, or add --yes (make: yes=1)")
    view.show_state(target.resume(why, seen=seen["trading_state"]["version"], account=account or None), console=console)


def flatten(target: Target, reason: str, *, console: Console) -> None:
    why = _reasoned("flatten", reason)
    console.print(target.name)
    view.show_batch(target.flatten(why), console=console)


def status(target: Target, *, as_json: bool, console: Console) -> None:
    said = target.status()
    if as_json:
        print(json.dumps(said, indent=1))
        return
    console.print(target.name)
    view.show_status(said, console=console)


def explain(target: Target, identity: str, *, as_json: bool, console: Console) -> bool:
    """Show where an order or a decision comes from; return whether every link is there and none differs."""
    said = target.traced(identity)
    if as_json:
        print(json.dumps(said, indent=1))
    else:
        console.print(target.name)
        view.show_trace(said, console=console)
    return not view.unsound(said)


def _reasoned(command: str, reason: str) -> str:
    if not 1 <= len(reason.strip()) <= REASON_LIMIT:
        how = f'{command} --reason "..." (make {command} reason="...")'
        raise OperatorError(f"a reason is needed, of at most {REASON_LIMIT} characters: {how}")
    return reason.strip()


def _agreed() -> bool:
    try:
        return typer.confirm("Go on?")
    except typer.Abort:  # nobody is there to answer
        return False
