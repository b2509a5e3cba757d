"""The lake's corporate actions and the vendor's: merged night after night, and put right where copies were stored.

Promises: an action is stored once, under the vendor's id; merging the same answer again changes nothing. Lines from before there were ids
are matched by symbol, kind, ex-date and value. A line that comes after the lake has bars of its ex-date carries `known`, the first session
whose decision could know it, unless its ex-date is older than a vendor is late: then it was the lake that lacked it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal, NamedTuple

#: Ex-dates that each night asks for again: a vendor that lists a dividend only when it is paid does so weeks later.
LATE_WITHIN = timedelta(days=120)

Row = dict[str, Any]
Change = Literal["remove", "add", "replace"]


class Span(NamedTuple):
    """Sessions, both included."""

    first: date
    last: date


@dataclass(frozen=True, kw_only=True)
class Correction:
    """A line that repairing removes (a copy), adds (the vendor has it) or replaces (the vendor has other numbers under this id)."""

    change: Change
    row: Row

    def document(self) -> Row:
        return {"change": self.change, **{name: self.row[name] for name in ("symbol", "ex_date", "kind", "value")}}


@dataclass(frozen=True, kw_only=True)
class ActionMerge:
    """The lines to store, and those of them that are new though decisions have been made since their ex-date."""

    rows: list[Row]
    late: list[Row]


def merge(stored: Sequence[Row], listed: Iterable[Row], *, first: date, last: date, bars: Span | None, known: date) -> ActionMerge:
    """One name's lines after the vendor's answer about ex-dates from `first` to `last`, inside of which the vendor is right.

    So one that it corrects or withdraws leaves no copy. `bars`: the sessions that the lake had bars of before tonight; `known`: the
    first session whose decision can know what is new.
    """
    incoming = {row["id"]: row for row in listed if first.isoformat() <= row["ex_date"] <= last.isoformat()}
    outside = [row for row in stored if not first.isoformat() <= row["ex_date"] <= last.isoformat() and row.get("id") not in incoming]
    rows, late = list(outside), []
    for row in incoming.values():
        before = _before(row, stored)
        observed = bars is not None and bars.first.isoformat() <= row["ex_date"] <= bars.last.isoformat()
        if observed and _may_be_late(row, known) and (before is None or _content(before) != _content(row)):
            rows.append({**row, "known": known.isoformat()})
            late.append(row)
        else:
            rows.append(_as_known(row, before))
    return ActionMerge(rows=_sorted(rows), late=late)


def repair(stored: Sequence[Row], listed: Iterable[Row], *, known: date) -> tuple[list[Row], list[Correction]]:
    """One name's lines with each action once, and what was wrong.

    What the vendor lists is stored as it lists it. Of copies that it does not list one is kept: nothing says that it was wrong.
    """
    incoming = {row["id"]: row for row in listed}
    rows, corrections = [], []
    taken: set[int] = set()
    for row in incoming.values():
        own = [
            number
            for number, line in enumerate(stored)
            if number not in taken and (line.get("id") == row["id"] or ("id" not in line and _content(line) == _content(row)))
        ]
        taken.update(own)
        before = stored[own[0]] if own else None
        new = before is None and _may_be_late(row, known)
        rows.append({**row, "known": known.isoformat()} if new else _as_known(row, before))
        if before is None:
            corrections.append(Correction(change="add", row=row))
        elif _content(before) != _content(row):
            corrections.append(Correction(change="replace", row=row))
        corrections += [Correction(change="remove", row=dict(stored[number])) for number in own[1:]]
    contents = {_content(row) for row in rows}
    for line in (line for number, line in enumerate(stored) if number not in taken):
        if _content(line) in contents:
            corrections.append(Correction(change="remove", row=dict(line)))
        else:
            contents.add(_content(line))
            rows.append(dict(line))
    return _sorted(rows), corrections


def _may_be_late(row: Row, known: date) -> bool:
    return date.fromisoformat(row["ex_date"]) >= known - LATE_WITHIN


def _as_known(row: Row, before: Row | None) -> Row:
    """The vendor's line, known since when the stored one was."""
    return {**row, "known": before["known"]} if before is not None and "known" in before else dict(row)


def _before(row: Row, stored: Sequence[Row]) -> Row | None:
    """The stored line of the same action, None if it is new."""
    same = [line for line in stored if line.get("id") == row["id"]]
    same += [line for line in stored if "id" not in line and _content(line) == _content(row)]
    return same[0] if same else None


def _content(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["symbol"], row["kind"], row["ex_date"], row["value"]


def _sorted(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["ex_date"], row["kind"], row["value"] or 0.0, row.get("id", "")))
