"""What the execution API answers, as a person reads it: the status, and the trace from an order back to its data.

Promise: everything that an operator must not miss (a halt, a breaker, an order in doubt, an alert, a link that differs or is missing) is in
words, not in colour alone. Nothing is requested here.
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


def show_status(document: Document, *, console: Console) -> None:
    state = document["trading_state"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("trading state", f"[{STATES[state['state']]}]{state['state']}[/] ({_state(state)})")
    tripped = [f"{name}: {detail}" for name, detail in document["breakers"].items()]
    table.add_row("breakers", escape("; ".join(tripped)) if tripped else "none has tripped")
    table.add_row("last snapshot", _snapshot(document["snapshot"]))
    table.add_row("last decision", _decision(document["last_decision"]))
    for role in ("incumbent", "shadow"):
        table.add_row(role, _model(document[role], role=role))
    unsettled, alerts = document["unsettled"], document["alerts"]
    doubtful = sum(order["status"] in {"pending", "unknown"} for order in unsettled)
    table.add_row("open orders", f"{len(unsettled)}, of them {doubtful} in doubt" if unsettled else "none")
    table.add_row(
        "alerts", f"{len(alerts)} of session {document['session']}" if alerts else f"none of session {document['session'] or '-'}"
    )
    console.print(table)
    if unsettled:
        _show_orders(unsettled, title="Open orders", console=console)
    for alert in alerts:
        console.print(f"[bold yellow]alert[/] {escape(alert['rule'])}: {escape(alert['detail'])}", soft_wrap=True)


def show_state(document: Document, *, console: Console) -> None:
    console.print(f"trading state: [{STATES[document['state']]}]{document['state']}[/] ({_state(document)})", soft_wrap=True)


def show_batch(document: Document, *, console: Console) -> None:
    """What a flatten has done so far."""
    if document.get("orders"):
        _show_orders(document["orders"], title=str(document.get("decision_id", "")), console=console)
    words = [f"flatten: {document['verdict']}, {document['state']}", str(document.get("reason") or "")]
    words += [f"{symbol}: {why}" for symbol, why in document.get("refused", {}).items()]
    console.print(escape("; ".join(word for word in words if word)), soft_wrap=True)


def unsound(document: Document) -> list[str]:
    """The links of a trace that are missing or differ."""
    return [link["link"] for link in document["trace"] if link["status"] in {"differs", "missing"}]


def show_trace(document: Document, *, console: Console) -> None:
    """Each link in lines of its own, never folded: hashes and places are there to be copied."""
    if "orders" in document:
        _show_orders(document["orders"], title=f"Orders of {document['decision_id']}", console=console)
    console.print("\nFrom the order back to its data")
    for link in document["trace"]:
        style = FOUND[link["status"]]
        found = f"[{style}]{link['status']}[/]" if style else link["status"]
        lines = [f"[bold]{link['link']}[/]: {found}", f"  {escape(link['says'])}"]
        lines += [f"  {name} {escape(link[key])}" for key, name in (("detail", "found"), ("hash", "hash"), ("where", "in")) if key in link]
        console.print("\n".join(lines), soft_wrap=True, highlight=False)
    broken = unsound(document)
    verified = sum(link["status"] == "verified" for link in document["trace"])
    console.print(f"{verified} of {len(document['trace'])} links verified" + (f"; not sound: {', '.join(broken)}" if broken else ""))


def _state(state: Document) -> str:
    since = f", since {state['since']} by {state['by']}" if state.get("since") else ""
    return escape(f"{state['reason']}{since}")


def _snapshot(document: Document | None) -> str:
    if document is None:
        return "none yet"
    snapshot = Snapshot.model_validate(document)
    held = len(snapshot.positions)
    return f"{snapshot.session}: ${snapshot.equity:,.2f}, {held} positions, cash ${snapshot.cash:,.2f}"


def _decision(document: Document | None) -> str:
    if document is None:
        return "none yet"
    words = f"{document['decision_id']}: {document['verdict']}, {document['state']}, {document['planned']} orders planned"
    return escape(words + (f" ({document['reason']})" if document.get("reason") else ""))


def _model(document: Document | None, *, role: str) -> str:
    if document is None:
        return "equal weight, until a model passes" if role == "incumbent" else "none"
    known = f", knows data to {document['trained_until']}" if document.get("trained_until") else ""
    return escape(f"{document['spec']} (model {document['model_version'][:12]}) since {document['since']}{known}")


def _show_orders(orders: list[Document], *, title: str, console: Console) -> None:
    """One line per order, the id last and whole, also where the terminal is narrower."""
    rows = [("side", "symbol", "quantity", "filled", "status", "risk", "order")]
    for order in orders:
        quantity, filled = (f"{Decimal(order.get(name, '0')):,f}" for name in ("quantity", "filled_quantity"))
        named = (order["status"], order.get("risk") or "-", order["client_order_id"])
        rows.append((order["side"], order["symbol"], quantity, filled, *named))
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join(f"{{:{'>' if place in {2, 3} else '<'}{width}}}" for place, width in enumerate(wide))
    lines = [form.format(*row) for row in rows]
    console.print(escape("\n".join([f"{title}:", *(line.rstrip() for line in lines)])), soft_wrap=True, highlight=False)
