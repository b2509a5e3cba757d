"""Which names of the bars a study is of, and when: a list with dates, or the names most traded.

Promise: names that ended are among them; what the bars lack, and what a list does not know, is said in `notes`.
Failure: `UniverseError` or `MembershipError`, one line with the value and what is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from schema.universes import UniverseError, most_traded, named
from trading_env.data.membership import Membership, MostTraded, Spell, Spells

SHOWN = 8


@dataclass(frozen=True)
class StudiedUniverse:
    """`symbols`: whoever was a member and has bars, sorted; `members`: who when; `notes`: what a user should know, a line each."""

    symbols: tuple[str, ...]
    members: Membership
    notes: tuple[str, ...]


def universe_of(chosen: str, bars: pd.DataFrame, *, adjusted: bool = False) -> StudiedUniverse:
    """The universe called `chosen`, `most-traded:N` or a list's name, of `bars` (`BAR_COLUMNS`)."""
    names = most_traded(chosen)
    if names is not None:
        return _by_rule(chosen, MostTraded(names), bars, adjusted=adjusted)
    listed = named(chosen)
    spells = Spells(tuple(Spell(*one) for one in listed.constituents))
    first, last = (day.date() for day in (bars["session"].min(), bars["session"].max()))
    sought = {one.symbol for one in listed.constituents if one.begin <= last and (one.end is None or one.end > first)}
    missing = sorted(sought - set(bars["symbol"]))
    symbols = tuple(sorted(sought.difference(missing)))
    if len(symbols) < 2:
        raise UniverseError(f"the bars must hold 2 members of {chosen} or more, have {', '.join(symbols) or 'none'}")
    notes = [f"{chosen} has bars of {len(symbols)} of its {len(sought)} members from {first} to {last}"]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        notes.append(f"{chosen} lacks bars of {', '.join(missing[:SHOWN])}{more}; of members that ended, that is survivors' bias")
    if first < listed.agreed_from:
        notes.append(f"{chosen} has its members before {listed.agreed_from} from one source, not confirmed by a second one")
    if last > listed.as_of:
        notes.append(f"{chosen} is as of {listed.as_of} and knows no later change")
    return StudiedUniverse(symbols, spells, tuple(notes))


def _by_rule(chosen: str, rule: MostTraded, bars: pd.DataFrame, *, adjusted: bool) -> StudiedUniverse:
    symbols = rule.spells(bars).symbols
    if len(symbols) < 2:
        raise UniverseError(f"the bars must hold a second month for {chosen}, the first one ranks its names")
    ends = bars.groupby("symbol")["session"].max()
    ended = int((ends[list(symbols)] < bars["session"].max()).sum())
    notes = [f"{chosen} made {len(symbols)} of {len(ends)} names members, {ended} of which ended before the last session"]
    if not ended:
        notes.append(f"{chosen} found no name that ended, as in a file of today's names: survivors' bias is left")
    if adjusted:
        notes.append(f"{chosen} ranks by adjusted prices, which make past dollars of dividend payers smaller; raw prices rank exactly")
    return StudiedUniverse(symbols, rule, tuple(notes))
