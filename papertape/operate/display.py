"""What the execution API tells, for a person's eyes: the status, and the way back from an order to its data.

Promise: everything that a person must not miss (a halt, a breaker, an order in doubt, an alert, a link that differs or is missing) is in
words, not in colour alone. Nothing is asked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lambdas.common.ledger.records import Snapshot

Document = Mapping[str, Any]

STATES = {"active": "green", "reduce_only": "yellow", "halted": "bold red"}
FOUND = {"verified": "green", "recorded": "", "none": "dim", "missing": "bold yellow", "differs": "bold red"}


def show_status(said: Document, *, console: Console) -> None:
    state = said["trading_state"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("trading state", f"[{STATES[state['state']]}]{state['state']}[/] ({_state(state)})")
    tripped = [f"{name}: {detail}" for name, detail in said["breakers"].items()]
    table.add_row("breakers", escape("; ".join(tripped)) if tripped else "none has tripped")
    table.add_row("last snapshot", _snapshot(said["snapshot"]))
    table.add_row("last decision", _decision(said["last_decision"]))
    for role in ("incumbent", "shadow"):
        table.add_row(role, _model(said[role], role=role))
    unsettled, alerts = said["unsettled"], said["alerts"]
    doubtful = sum(order["status"] in {"pending", "unknown"} for order in unsettled)
    table.add_row("open orders", f"{len(unsettled)}, of them {doubtful} in doubt" if unsettled else "none")
    table.add_row("alerts", f"{len(alerts)} of session {said['session']}" if alerts else f"none of session {said['session'] or '-'}")
    console.print(table)
    if unsettled:
        _show_orders(unsettled, title="Open orders", console=console)
    for alert in alerts:
        console.print(f"[bold yellow]alert[/] {escape(alert['rule'])}: {escape(alert['detail'])}", soft_wrap=True)


def show_state(said: Document, *, console: Console) -> None:
    console.print(f"trading state: [{STATES[said['state']]}]{said['state']}[/] ({_state(said)})", soft_wrap=True)


def show_batch(said: Document, *, console: Console) -> None:
    """What a flatten has done so far."""
    if said.get("orders"):
        _show_orders(said["orders"], title=str(said.get("decision_id", "")), console=console)
    words = [f"flatten: {said['verdict']}, {said['state']}", str(said.get("reason") or "")]
    words += [f"{symbol}: {why}" for symbol, why in said.get("refused", {}).items()]
    console.print(escape("; ".join(word for word in words if word)), soft_wrap=True)


def unsound(said: Document) -> list[str]:
    """The links of a trace that are missing or differ."""
    return [link["link"] for link in said["trace"] if link["status"] in {"differs", "missing"}]


def show_trace(said: Document, *, console: Console) -> None:
    """Each link in lines of its own, never folded: hashes and places are there to be copied."""
    if "orders" in said:
        _show_orders(said["orders"], title=f"Orders of {said['decision_id']}", console=console)
    console.print("\nFrom the order back to its data")
    for link in said["trace"]:
        style = FOUND[link["status"]]
        found = f"[{style}]{link['status']}[/]" if style else link["status"]
        lines = [f"[bold]{link['link']}[/]: {found}", f"  {escape(link['says'])}"]
        lines += [f"  {name} {escape(link[key])}" for key, name in (("detail", "found"), ("hash", "hash"), ("where", "in")) if key in link]
        console.print("\n".join(lines), soft_wrap=True, highlight=False)
    broken = unsound(said)
    verified = sum(link["status"] == "verified" for link in said["trace"])
    console.print(f"{verified} of {len(said['trace'])} links verified" + (f"; not sound: {', '.join(broken)}" if broken else ""))


def _state(state: Document) -> str:
    since = f", since {state['since']} by {state['by']}" if state.get("since") else ""
    return escape(f"{state['reason']}{since}")


def _snapshot(document: Document | None) -> str:
    if document is None:
        return "none yet"
    snapshot = Snapshot.model_validate(document)
    held = len(snapshot.positions)
    return f"{snapshot.session}: ${snapshot.equity:,.2f}, {held} positions, cash ${snapshot.cash:,.2f}"


def _decision(said: Document | None) -> str:
    if said is None:
        return "none yet"
    words = f"{said['decision_id']}: {said['verdict']}, {said['state']}, {said['planned']} orders planned"
    return escape(words + (f" ({said['reason']})" if said.get("reason") else ""))


def _model(said: Document | None, *, role: str) -> str:
    if said is None:
        return "equal weight, until a model passes" if role == "incumbent" else "none"
    known = f", knows data to {said['trained_until']}" if said.get("trained_until") else ""
    return escape(f"{said['spec']} (model {said['model_version'][:12]}) since {said['since']}{known}")


def _show_orders(orders: list[Document], *, title: str, console: Console) -> None:
    """One line an order, the id last and whole, also where the terminal is narrower."""
    rows = [("side", "symbol", "quantity", "filled", "status", "risk", "order")]
    for order in orders:
        quantity, filled = (f"{Decimal(order.get(name, '0')):,f}" for name in ("quantity", "filled_quantity"))
        named = (order["status"], order.get("risk") or "-", order["client_order_id"])
        rows.append((order["side"], order["symbol"], quantity, filled, *named))
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join(f"{{:{'>' if place in {2, 3} else '<'}{width}}}" for place, width in enumerate(wide))
    lines = [form.format(*row) for row in rows]
    console.print(escape("\n".join([f"{title}:", *(line.rstrip() for line in lines)])), soft_wrap=True, highlight=False)
