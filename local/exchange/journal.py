"""The exchange's memory across processes: each command that changed the books, one JSON line, in order.

The venue is deterministic, so the commands are the state: reading them back gives the same books, to the byte. The first line names the
terms on which the account was opened; a journal of other terms is refused with a `JournalError`. A command is written before its answer
is sent, so a last line that was cut off by a crash was never answered, and is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from local.exchange.faults.plan import FaultPlan
from local.exchange.faults.sampler import InjectedFault
from local.exchange.orders import OrderType, Side, Ticket, TimeInForce
from local.exchange.venue import Venue
from trading_env.errors import PapertapeError


class JournalError(PapertapeError, ValueError):
    """The journal cannot be continued; the message names the file, the line or the term, and the remedy."""


class Journal:
    """An append-only file of a venue's commands."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def attach(self, venue: Venue, *, terms: Mapping[str, str]) -> None:
        """Bring `venue` to where the journal ends, then record each command that it carries out."""
        lines = self._complete_lines()
        self._file = self._path.open("a", encoding="utf-8")
        if lines:
            self._require_terms(lines[0], terms)
        else:
            self.write({"terms": dict(terms)})
        for number, line in enumerate(lines[1:], start=2):
            try:
                _carry_out(venue, json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise JournalError(f"{self._path}: line {number} is not a command ({error}); remove the file to begin anew") from error
        venue.record = self.write

    def close(self) -> None:
        """Nothing more is written."""
        if self._file is not None:
            self._file.close()

    def write(self, command: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(command, separators=(",", ":"), default=_text) + "\n")
        self._file.flush()

    def _complete_lines(self) -> list[str]:
        if not self._path.exists():
            return []
        text = self._path.read_text(encoding="utf-8")
        complete = text[: text.rfind("\n") + 1]
        if complete != text:
            self._path.write_text(complete, encoding="utf-8")
        return complete.splitlines()

    def _require_terms(self, line: str, terms: Mapping[str, str]) -> None:
        try:
            recorded = json.loads(line)["terms"]
        except (ValueError, KeyError, TypeError) as error:
            raise JournalError(f"{self._path}: is not an exchange's journal; remove the file to begin anew") from error
        differing = sorted(name for name in terms if recorded.get(name) != terms[name])
        if differing:
            names = ", ".join(f"{name} {recorded.get(name)} (now {terms[name]})" for name in differing)
            raise JournalError(f"{self._path}: its account was opened with {names}; remove the file to begin anew")


def _carry_out(venue: Venue, command: Mapping[str, Any]) -> None:
    match command:
        case {"advance": now}:
            venue.advance(datetime.fromisoformat(now))
        case {"submit": ticket}:
            venue.take(_ticket(ticket), replaces=command.get("replaces"))
        case {"cancel": order_id}:
            venue.cancel(order_id)
        case {"injected_fault": injected}:
            venue.fault_sampler.restore(InjectedFault(**injected))
        case {"faults": plan}:
            venue.use_faults(FaultPlan.from_document(plan))
        case {"reset": {"cash": cash, "now": now}}:
            venue.reset(cash=Decimal(cash), now=datetime.fromisoformat(now))
        case _:
            raise ValueError(f"unknown command {command}")


def _ticket(fields: Mapping[str, Any]) -> Ticket:
    numbers = {name: Decimal(fields[name]) if fields[name] is not None else None for name in ("quantity", "notional", "limit_price")}
    return Ticket(
        symbol=fields["symbol"],
        side=Side(fields["side"]),
        kind=OrderType(fields["kind"]),
        time_in_force=TimeInForce(fields.get("time_in_force", "day")),
        client_order_id=fields["client_order_id"],
        **numbers,
    )


def _text(value: object) -> str | dict[str, Any]:
    match value:
        case datetime():
            return value.isoformat()
        case Decimal():
            return str(value)
        case Ticket():
            return asdict(value)
    raise TypeError(f"a command holds times, numbers and tickets, was {value!r}")
