"""The exchange's memory across processes: each command that changed the books, one JSON line, in order.

The venue is deterministic, so the commands are the state: reading them back gives the same books, to the byte. The first line names the
terms on which the account was opened; a journal of other terms is refused with a `JournalError`. A command is written before its answer
is sent, so a last line that was cut off by a crash was never answered, and is dropped. One process has a journal: the kernel's lock on
`<journal>.lock` says so, and goes with its holder, whatever ended it. What cannot be written is an `UnwrittenError`, and nothing is written
after it: the file ends with the last command that was answered. It outlives the process; the machine's own crash may take the last seconds.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from local.exchange.account.preferences import Preferences
from local.exchange.faults.plan import FaultPlan
from local.exchange.faults.sampler import InjectedFault
from local.exchange.orders import OrderClass, OrderType, Refused, Side, Ticket, TimeInForce
from local.exchange.venue import Venue
from trading_env.errors import PapertapeError

NUMBERS = ("quantity", "notional", "limit_price")
STOP_NUMBERS = ("stop_price", "trail_price", "trail_percent")
#: An exchange whose driver was killed notices it within half a second, and ends within two.
ENDING_SECONDS, PAUSE = 4.0, 0.1


class JournalError(PapertapeError, ValueError):
    """The journal cannot be continued; the message names the file, the line or the term, and the remedy."""


class UnwrittenError(PapertapeError, OSError):
    """A command was carried out and not recorded: no answer may show it."""


class Journal:
    """An append-only file of a venue's commands."""

    def __init__(self, path: Path, *, wait_seconds: float = ENDING_SECONDS) -> None:
        """`wait_seconds`: how long the process that has the journal may take to end."""
        self._path = path
        self._wait_seconds = wait_seconds
        self._file: int | None = None
        self._lock: int | None = None
        self._broken: str | None = None

    def attach(self, venue: Venue, *, terms: Mapping[str, str]) -> None:
        """Bring `venue` to where the journal ends, then record each command that it carries out. Raises `JournalError`."""
        self._lock = self._locked()
        lines = self._complete_lines()
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if lines:
            self._require_terms(lines[0], terms)
        else:
            self.write({"terms": dict(terms)})
        for number, line in enumerate(lines[1:], start=2):
            try:
                _carry_out(venue, json.loads(line))
            except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, Refused) as error:
                raise JournalError(
                    f"{self._path}: line {number} cannot be carried out ({_in_short(error)}); remove the file to begin anew"
                ) from error
        venue.record = self.write

    def close(self) -> None:
        """Nothing more is written, and another process may have the file."""
        for descriptor in (self._file, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._lock = None

    def write(self, command: Mapping[str, Any]) -> None:
        """Append `command` whole. Raises `UnwrittenError`, also ever after it did once."""
        assert self._file is not None
        if self._broken is None:
            line = (json.dumps(command, separators=(",", ":"), default=_text) + "\n").encode()
            end = os.fstat(self._file).st_size
            try:
                while line:
                    line = line[os.write(self._file, line) :]
            except OSError as error:
                self._broken = error.strerror
                os.ftruncate(self._file, end)
        if self._broken is not None:
            raise UnwrittenError(f"{self._path}: cannot be written ({self._broken}); make room and start the exchange again")

    def _locked(self) -> int:
        if self._path.is_dir():
            raise JournalError(f"{self._path}: is a folder; name a file in it for the journal")
        path = self._path.with_name(f"{self._path.name}.lock")
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise JournalError(f"{path}: cannot be opened ({error.strerror}); choose another place for the journal") from error
        deadline = time.monotonic() + self._wait_seconds
        while not _taken(lock):
            if time.monotonic() > deadline:
                holder = os.pread(lock, 32, 0).decode().strip() or "unknown"
                os.close(lock)
                raise JournalError(f"{self._path}: is the journal of process {holder}, which runs; end that one, or use another file")
            time.sleep(PAUSE)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock

    def _complete_lines(self) -> list[str]:
        if not self._path.exists():
            return []
        content = self._path.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]
        try:
            lines = complete.decode().splitlines()
        except UnicodeDecodeError as error:
            number = complete.count(b"\n", 0, error.start) + 1
            raise JournalError(f"{self._path}: line {number} is not text; remove the file to begin anew") from error
        if complete != content:
            os.truncate(self._path, len(complete))
        return lines

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
        case {"meet": _}:
            venue.meet()
        case {"cancel": order_id}:
            venue.cancel(order_id)
        case {"counts": {"refused": refused, "duplicates": duplicates}}:
            venue.book.refused, venue.book.duplicates = int(refused), int(duplicates)
        case {"preferences": document}:
            venue.prefer(Preferences.from_document(document))
        case {"injected_fault": injected}:
            venue.fault_sampler.restore(InjectedFault(**injected))
        case {"faults": plan}:
            venue.use_faults(FaultPlan.from_document(plan))
        case {"reset": {"cash": cash, "now": now}}:
            venue.reset(cash=Decimal(cash), now=datetime.fromisoformat(now))
        case _:
            raise ValueError(f"unknown command {command}")


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_short(error: Exception) -> str:
    return str(getattr(error, "message", error))[:200].replace("\n", " ")


def _ticket(fields: Mapping[str, Any]) -> Ticket:
    """A ticket as recorded; fields that a journal of an earlier version lacks have their defaults."""
    given = {name: fields[name] for name in NUMBERS} | {name: fields.get(name) for name in STOP_NUMBERS}
    numbers = {name: Decimal(value) for name, value in given.items() if value is not None}
    return Ticket(
        symbol=fields["symbol"],
        side=Side(fields["side"]),
        kind=OrderType(fields["kind"]),
        time_in_force=TimeInForce(fields.get("time_in_force", "day")),
        client_order_id=fields["client_order_id"],
        extended_hours=fields.get("extended_hours", False),
        order_class=OrderClass(fields.get("order_class", "simple")),
        legs=tuple(_ticket(leg) for leg in fields.get("legs", ())),
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
