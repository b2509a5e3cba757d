"""Universes by name: lists that the project keeps in `data/universes` as dated data with their source, and a rule over bars.

Promise: a list says no more than its source says; its members are those of its as-of date. No NumPy and no pandas, for every function
imports the settings. Failure: `UniverseError`, one line with the value and what is allowed.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import PydanticKnownError

from trading_env.errors import PapertapeError

FOLDER = Path(__file__).resolve().parents[1] / "data" / "universes"
LISTS = ("dow-30", "nasdaq-100")
MOST_TRADED = "most-traded:"
STALE = timedelta(days=365)
FEWEST, MOST = 2, 500  # names that can be traded; research by rule has as many as were ever members


class UniverseError(PapertapeError, ValueError):
    """There is no such universe, or its file cannot be used."""


class Constituent(NamedTuple):
    """`symbol` was a member from `begin` up to the day before `end`, None: at the as-of date it still was."""

    symbol: str
    begin: date
    end: date | None


@dataclass(frozen=True)
class NamedList:
    """`as_of`: the last change that the source knows. `agreed_from`: from then on a second source has the same members."""

    name: str
    source: str
    licence: str
    as_of: date
    agreed_from: date
    constituents: tuple[Constituent, ...]

    @property
    def current(self) -> tuple[str, ...]:
        """The members of the as-of date, sorted."""
        return tuple(
            sorted(one.symbol for one in self.constituents if one.begin <= self.as_of and (one.end is None or self.as_of < one.end))
        )


def most_traded(chosen: str) -> int | None:
    """N of the rule `most-traded:N`; None for anything else. Raises UniverseError when N is no number of names."""
    if not chosen.startswith(MOST_TRADED):
        return None
    count = chosen.removeprefix(MOST_TRADED)
    if not (count.isascii() and count.isdigit() and 2 <= int(count) <= 2_000):
        raise UniverseError(f"must be {MOST_TRADED}N with 2 to 2000 names, such as {MOST_TRADED}200, was {chosen}")
    return int(count)


def expanded(section: Mapping[str, Any]) -> Mapping[str, Any]:
    """The universe's section, with a list's name replaced by its current members and the benchmark, and a rule's by no name, for only bars
    know its members; `chosen_by` keeps the word. Raises UniverseError for another word.
    """
    chosen, benchmark = section.get("symbols"), section.get("benchmark")
    if not isinstance(chosen, str):
        return section
    members = () if most_traded(chosen) else named(chosen).current
    joining = (benchmark,) if members and benchmark is not None and benchmark not in members else ()
    return {**section, "symbols": [*members, *joining], "chosen_by": chosen}


def check_count(symbols: Sequence[str], *, chosen_by: str) -> None:
    """Raises Pydantic's own error when these are too few or too many names to trade."""
    if most_traded(chosen_by):
        return
    counted: dict[str, Any] = {"field_type": "Tuple", "actual_length": len(symbols)}
    if len(symbols) < FEWEST:
        raise PydanticKnownError("too_short", {**counted, "min_length": FEWEST})
    if len(symbols) > MOST:
        raise PydanticKnownError("too_long", {**counted, "max_length": MOST})


def refusal(rule: str) -> str:
    """Why a rule cannot be deployed, and what can."""
    return (
        f'universe.symbols = "{rule}" is a rule over the bars of many names, for research (train, evaluate, backtest with --bars); '
        f"what trades needs names: write them, or a list, {' or '.join(LISTS)}"
    )


@cache
def named(name: str) -> NamedList:
    """A list of `LISTS`. Raises UniverseError when there is none of that name."""
    if name not in LISTS:
        raise UniverseError(f"must be a list of symbols, {', '.join(LISTS)}, or for research {MOST_TRADED}N, was {name!r}")
    path = FOLDER / f"{name}.csv"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        head = dict(line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("#"))
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        members = tuple(Constituent(row["symbol"], _day(row["from"]), _day(row["to"]) if row["to"] else None) for row in rows)
        days = _day(head["as-of"]), _day(head["agreed-from"])
        return NamedList(name, head["source"], head["licence"], *days, members)
    except (OSError, KeyError, ValueError) as error:
        raise UniverseError(f"{path}: is no list of symbol, from, to with its source, {error}; restore it from the repository") from error


def stale(chosen_by: str, today: date) -> str:
    """What to know of a list that is older than a year; empty of any other, and of names that no list chose."""
    listed = named(chosen_by) if chosen_by in LISTS else None
    if listed is None or today - listed.as_of <= STALE:
        return ""
    return f"{listed.name} is as of {listed.as_of}, more than a year ago: compare it with the index, or write the symbols yourself"


def _day(text: str) -> date:
    return date.fromisoformat(text)
