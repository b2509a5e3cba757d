"""The operator's commands: halt, resume, flatten, status, explain.

Promise: the first line names the deployment; `resume` shows what stopped trading before it asks, and changes nothing if that has changed
since. Failure: `OperatorError`.
"""

from __future__ import annotations

import json
from datetime import date

import typer
from rich.console import Console

from papertape.operate import display
from papertape.operate.client import Client, OperatorError

REASON_LIMIT = 300


def halt(client: Client, reason: str, *, console: Console) -> None:
    why = _reasoned("halt", reason)
    console.print(client.name)
    display.show_state(client.halt(why), console=console)


def resume(client: Client, reason: str, *, account: str, yes: bool, console: Console) -> None:
    """Ask, unless `yes`, before the state is set to active and the breakers are re-armed; with `account`, for that one from now on."""
    why = _reasoned("resume", reason)
    console.print(client.name)
    observed = client.status()
    display.show_status(observed, console=console)
    if observed["trading_state"]["state"] == "active" and not observed["breakers"] and not account:
        console.print("It trades already: nothing was changed.")
        return
    breakers = ", ".join(observed["breakers"])
    with_it = f" with account {account}" if account else ""
    console.print(f"Resuming sets it active{with_it}{f' and re-arms {breakers}' if breakers else '; no breaker has tripped'}.")
    for waiting in observed["waiting"]:
        console.print(f"{waiting} has not sold yet and will be dropped: nothing is sold.", markup=False)
    if not yes and not agreed():
        raise OperatorError("nothing was changed; to go on answer y, or add --yes (make: yes=1)")
    display.show_state(client.resume(why, version=observed["trading_state"]["version"], account=account or None), console=console)


def flatten(client: Client, reason: str, *, console: Console) -> None:
    why = _reasoned("flatten", reason)
    console.print(client.name)
    display.show_batch(client.flatten(why), console=console)
    now = client.status()
    display.show_state(now["trading_state"], was=display.state_before(now), console=console)


def status(client: Client, *, as_json: bool, console: Console) -> None:
    response = client.status()
    if as_json:
        print(json.dumps(response, indent=1))
        return
    console.print(client.name)
    display.show_status(response, console=console)


def explain(client: Client, identity: str, *, day: str, as_json: bool, console: Console) -> bool:
    """Show where an order or a decision comes from, or each order of a symbol on `day`; return whether no link is missing or differs."""
    responses = [client.traced(one) for one in _identities(client, identity, day=day)]
    if as_json:
        print(json.dumps(responses if day else responses[0], indent=1))
    else:
        console.print(client.name)
        for response in responses:
            display.show_trace(response, console=console)
    return not any(display.unsound(response) for response in responses)


def _identities(client: Client, identity: str, *, day: str) -> list[str]:
    if not day:
        return [identity]
    try:
        asked = date.fromisoformat(day).isoformat()
    except ValueError as error:
        raise OperatorError(f"--day must be a date like 2020-12-31, was {day}") from error
    symbol = identity.upper()
    found = [str(order["client_order_id"]) for order in client.orders_of(symbol, asked)]
    if not found:
        raise OperatorError(f"{client.name} has no order of {symbol} on {asked}")
    return found


def _reasoned(command: str, reason: str) -> str:
    length = len(reason.strip())
    if not 1 <= length <= REASON_LIMIT:
        how = f'{command} --reason "..." (make {command} reason="...")'
        was = f", was {length}" if length else ""
        raise OperatorError(f"a reason is needed, of at most {REASON_LIMIT} characters{was}: {how}")
    return reason.strip()


def agreed() -> bool:
    """Ask whether to go on; nobody there is a no."""
    try:
        return typer.confirm("Go on?")
    except typer.Abort:  # nobody is there to answer
        return False
