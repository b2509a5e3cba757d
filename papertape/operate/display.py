"""What the execution API answers, as a person reads it: the status, and the trace from an order back to its data.

Promise: everything that an operator must not miss (a halt, a breaker, an order in doubt, an alert, a link that differs or is missing) is in
words, not in colour alone. Nothing is requested here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lambdas.common.ledger.records import Snapshot
from schema.exchange_time import NEW_YORK, parse_utc

Document = Mapping[str, Any]

STATES = {"active": "green", "reduce_only": "yellow", "halted": "bold red"}
#: How a trace is summed up, by what was found of a link.
WORDS = {"verified": "verified", "recorded": "recorded", "none": "does not apply", "missing": "missing", "differs": "differs"}
#: A broker's clock whose next open is longer ago belongs to another world than the request.
REPLAYED = timedelta(days=2)
FOUND = {"verified": "green", "recorded": "", "none": "dim", "missing": "bold yellow", "differs": "bold red"}


def show_status(document: Document, *, console: Console) -> None:
    state = document["trading_state"]
    if document["warning"]:
        console.print(f"[bold yellow]{escape(document['warning'])}[/]", soft_wrap=True)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("trading state", f"[{STATES[state['state']]}]{state['state']}[/] ({_state(state)})")
    earlier = document["history"][1:]  # the first is the state itself
    table.add_row("before", escape("\n".join(f"{one['state']} ({one['reason']}, {one['time']} by {one['by']})" for one in earlier)) or "-")
    tripped = [f"{name}: {detail}" for name, detail in document["breakers"].items()]
    table.add_row("breakers", escape("; ".join(tripped)) if tripped else "none has tripped")
    table.add_row("account", escape(document["account"] or "not known yet"))
    table.add_row("market", _market(document))
    table.add_row("this day", _day(document["day"]))
    table.add_row("last snapshot", _snapshot(document["snapshot"], now=_reference(document)))
    table.add_row("positions", _positions(document["snapshot"]))
    table.add_row("last decision", _decision(document["last_decision"]))
    table.add_row("next decision", _next(document["next_decision"], state=state["state"]))
    for role in ("incumbent", "shadow"):
        table.add_row(role, _model(document[role], role=role, trades=document["trades"] == role))
    for decision_id, outlook in document["waiting"].items():
        table.add_row("waiting", escape(f"{decision_id}: {outlook}"))
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


def show_state(document: Document, *, console: Console, was: str = "") -> None:
    before = f"; it was {was}" if was and was != document["state"] else ""
    console.print(f"trading state: [{STATES[document['state']]}]{document['state']}[/] ({_state(document)}){before}", soft_wrap=True)


def state_before(document: Document) -> str:
    """The trading state before the last change of a status, empty when there is none."""
    return str(document["history"][0]["was"]) if document["history"] else ""


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
    if "explained" in document:
        _show_reasons("Why the model wants it", document["explained"], console=console)
    for watched in document.get("watched", ()):
        _show_reasons(f"What model {watched['model_version'][:12]}, which watches, would have done", watched, console=console)
    console.print("\nFrom the order back to its data")
    for link in document["trace"]:
        style = FOUND[link["status"]]
        found = f"[{style}]{link['status']}[/]" if style else link["status"]
        lines = [f"[bold]{link['link']}[/]: {found}", f"  {escape(link['says'])}"]
        lines += [f"  {name} {escape(link[key])}" for key, name in (("detail", "found"), ("hash", "hash"), ("where", "in")) if key in link]
        console.print("\n".join(lines), soft_wrap=True, highlight=False)
    console.print(_summary(document))


def _show_reasons(title: str, document: Document, *, console: Console) -> None:
    """Each name in a line of its own, the largest change of weight first; how the scores are explained, or why they are not."""
    console.print(f"\n{escape(title)}", soft_wrap=True)
    lines = [f"  {document['says']}", *(f"  {name['words']}" for name in document["names"])]
    console.print(escape("\n".join(lines)), soft_wrap=True, highlight=False)


def _summary(document: Document) -> str:
    """Whether the trace is sound, and what was found of its links; one that this kind of order does not have is no fault."""
    counts = Counter(link["status"] for link in document["trace"])
    words = [f"{counts[status]} {word}" for status, word in WORDS.items() if counts[status]]
    broken = unsound(document)
    return f"{'not sound' if broken else 'sound'}: {', '.join(words)}" + (f" ({', '.join(broken)})" if broken else "")


def _state(state: Document) -> str:
    since = f", since {state['since']} by {state['by']}" if state.get("since") else ""
    return escape(f"{state['reason']}{since}")


def _snapshot(document: Document | None, *, now: datetime) -> str:
    if document is None:
        return "none yet"
    snapshot = Snapshot.model_validate(document)
    age = _age(now - parse_utc(snapshot.taken_at))
    return f"{snapshot.session}: ${snapshot.equity:,.2f}, {len(snapshot.positions)} positions, cash ${snapshot.cash:,.2f}, {age} old"


def _positions(document: Document | None) -> str:
    """Value at the close and share of equity, the largest first."""
    if document is None:
        return "none known"
    snapshot = Snapshot.model_validate(document)
    worth = {symbol: held.quantity * held.close for symbol, held in snapshot.positions.items()}
    ordered = sorted(worth.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{symbol} ${value:,.0f} ({value / snapshot.equity:.1%})" for symbol, value in ordered) or "none"


def _reference(document: Document) -> datetime:
    """What ages count to: the request's time, but the broker's where that is another world's, as in a replay."""
    now, seen = parse_utc(document["now"]), document["broker"]
    return now if seen is None or now - parse_utc(seen["next_open"]) < REPLAYED else parse_utc(seen["now"])


def _market(document: Document) -> str:
    seen = document["broker"]
    if seen is None:
        return "not known yet: reconcile has not read the broker's clock"
    state = f"open until {_time(seen['next_close'])}" if seen["is_open"] else f"closed until {_time(seen['next_open'])}"
    replayed = (
        "" if _reference(document) == parse_utc(document["now"]) else "; that clock is not this day's: a replay, or reconcile has stopped"
    )
    return f"{state}, when reconcile looked last at {_time(seen['now'])}{replayed}"


def _day(document: Document | None) -> str:
    if document is None:
        return "not known yet"
    dollars = Decimal(document["dollars"])
    return f"{'-' if dollars < 0 else '+'}${abs(dollars):,.2f} ({float(document['share']):+.2%}) since the close of {document['since']}"


def _next(document: Document | None, *, state: str) -> str:
    if document is None:
        return "not known yet"
    held = {"active": "", "reduce_only": "; while reduce_only it buys nothing", "halted": "; while halted it orders nothing"}[state]
    return f"{document['slot']}, {_time(document['time'])}{held}"


def _time(text: str) -> str:
    moment = parse_utc(text)
    return f"{moment.astimezone(NEW_YORK):%a %Y-%m-%d %H:%M} New York ({moment:%H:%M} UTC)"


def _age(age: timedelta) -> str:
    minutes = max(0, round(age.total_seconds() / 60))
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes / 60:.0f} h" if minutes < 72 * 60 else f"{age.days} days"


def _decision(document: Document | None) -> str:
    if document is None:
        return "none yet"
    words = f"{document['decision_id']}: {document['verdict']}, {document['state']}, {document['planned']} orders planned"
    return escape(words + (f" ({document['reason']})" if document.get("reason") else ""))


def _model(document: Document | None, *, role: str, trades: bool) -> str:
    part = "trades" if trades else "watches"
    if document is None:
        return f"equal weight, until a model passes; {part}" if role == "incumbent" else "none"
    verdict = f"; the gate refused it: {document['refused'][0]}" if document.get("refused") else ""
    known = _known(document.get("trained_until"), document.get("evaluated_until"))
    return escape(f"{document['spec']} (model {document['model_version'][:12]}) since {document['since']}{known}; {part}{verdict}")


def _known(trained: str | None, judged: str | None) -> str:
    """Training and judging end on different days: what lies between is the holdout, which no training has seen."""
    if trained and judged:
        return f", trained to {trained}, judged to {judged}"
    return f", knows data to {trained or judged}" if trained or judged else ""


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
