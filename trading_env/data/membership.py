"""Who belongs to a universe when: members with dates from a list, or the names most traded, by a rule over the bars themselves.

Promise: whether a name is a member at a session depends on bars of earlier months alone, and names that ended are members of their time
like any other, so a universe by rule has no survivors' bias but what the bars themselves have. Pure; the same bars give the same members.
Failure: `MembershipError`, one line with the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

import numpy as np
import pandas as pd

from trading_env.data.bars import Mask, Sessions, as_sessions
from trading_env.errors import PapertapeError

MONTHS = 6  # whose dollars traded rank the names of the month that follows


class MembershipError(PapertapeError, ValueError):
    """There are no such members; the message says what is allowed."""


class Membership(Protocol):
    """Who is a member when, as far as `bars` (`BAR_COLUMNS`) tell."""

    def spells(self, bars: pd.DataFrame) -> Spells: ...


@dataclass(frozen=True)
class Spell:
    """`symbol` is a member from `begin` up to the day before `end`, None: until now."""

    symbol: str
    begin: date
    end: date | None = None


@dataclass(frozen=True)
class Spells:
    """Every spell of every member; it is a membership, too, that needs no bars."""

    members: tuple[Spell, ...]

    def spells(self, bars: pd.DataFrame) -> Spells:  # noqa: ARG002  known without them
        return self

    @property
    def symbols(self) -> tuple[str, ...]:
        """Everyone who was ever a member, sorted."""
        return tuple(sorted({spell.symbol for spell in self.members}))

    def on(self, day: date) -> tuple[str, ...]:
        """The members of a day, sorted."""
        return tuple(sorted(spell.symbol for spell in self.members if spell.begin <= day and (spell.end is None or day < spell.end)))

    def mask(self, sessions: Sessions, symbols: Sequence[str]) -> Mask:
        """(T, A) whether a name is a member at a session."""
        column = {symbol: place for place, symbol in enumerate(symbols)}
        found = np.zeros((len(sessions), len(symbols)), dtype=np.bool_)
        for spell in self.members:
            if spell.symbol in column:
                first = int(np.searchsorted(sessions, np.datetime64(spell.begin, "D")))
                stop = len(sessions) if spell.end is None else int(np.searchsorted(sessions, np.datetime64(spell.end, "D")))
                found[first:stop, column[spell.symbol]] = True
        return found


@dataclass(frozen=True)
class MostTraded:
    """Each month the `names` with the most dollars traded (close x volume, raw) in the `MONTHS` before it, of those that still had a bar in
    the last of these; of equals the first by symbol. The bars' first month has no members, and the next ones look back as far as they can.
    """

    names: int

    def __post_init__(self) -> None:
        if self.names < 2:
            raise MembershipError(f"the most traded must be 2 names or more, was {self.names}")

    def spells(self, bars: pd.DataFrame) -> Spells:
        if bars.empty:
            raise MembershipError("the most traded are known from bars, there is none")
        months = as_sessions(bars["session"]).astype("datetime64[M]")
        traded = pd.DataFrame({"month": months.astype(np.int64), "symbol": bars["symbol"], "dollars": bars["close"] * bars["volume"]})
        dollars = traded.pivot_table(index="month", columns="symbol", values="dollars", aggfunc="sum", sort=True)
        dollars = dollars.reindex(range(dollars.index.min(), dollars.index.max() + 1))  # a month without any bar is one all the same
        symbols, table = np.array(dollars.columns, dtype=object), dollars.to_numpy(dtype=np.float64)
        open_since: dict[str, np.datetime64] = {}
        found: list[Spell] = []
        for row in range(1, len(table)):
            month = np.datetime64(int(dollars.index[row]), "M")
            members = set(_most(table[max(0, row - MONTHS) : row], symbols, self.names))
            ended = sorted(open_since.keys() - members)
            found += [Spell(symbol, _first_day(open_since.pop(symbol)), _first_day(month)) for symbol in ended]
            open_since.update({symbol: month for symbol in members if symbol not in open_since})
        end = _first_day(np.datetime64(int(dollars.index[-1]) + 1, "M"))
        found += [Spell(symbol, _first_day(month), end) for symbol, month in open_since.items()]
        return Spells(tuple(sorted(found, key=lambda spell: (spell.symbol, spell.begin))))


def _most(dollars: np.ndarray, symbols: np.ndarray, names: int) -> list[str]:
    """The symbols with the most dollars over the months (rows) that have any in the last one."""
    total = np.where(dollars[-1] > 0, np.nansum(dollars, axis=0), 0.0)
    order = np.argsort(-total, kind="stable")[:names]  # symbols are sorted, so equals keep their order
    return [str(symbols[place]) for place in order if total[place] > 0]


def _first_day(month: np.datetime64) -> date:
    day: date = month.astype("datetime64[D]").astype(object)
    return day
