"""Raw closes of the lake, and what a holder of a name has had from one close to another.

Promise: the field's arithmetic on unadjusted closes: a split with an ex-date after the first close multiplies the shares, a dividend pays
each share held at the close before; an action that cannot be applied (`corporate_actions.ACTION_RULES`), or a close that is not there,
leaves no number, never a guess. Pure but for `history_of`, whose failure is the lake's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from lambdas.common.lake.lake import Lake
from schema.exchange_time import new_york_date, parse_utc
from trading_env.data.corporate_actions import BREAK


class PriceEvent(NamedTuple):
    """`value`: new shares for each old one, dollars per share, or nothing for a break; `ex_date` is an ISO date."""

    ex_date: str
    kind: Literal["split", "dividend", "break"]
    value: float


@dataclass(frozen=True)
class PriceHistory:
    """`closes`: raw closes by name and session (ISO dates); `events` by name, oldest first."""

    closes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    events: Mapping[str, Sequence[PriceEvent]] = field(default_factory=dict)

    def between(self, symbol: str, before: str, after: str) -> Sequence[PriceEvent]:
        """The events with an ex-date after the close of `before`, up to `after`."""
        events = self.events.get(symbol, ())
        if not events or events[-1].ex_date <= before:
            return ()
        return events[bisect_right(events, before, key=_ex_date) : bisect_right(events, after, key=_ex_date)]

    def ratio(self, symbol: str, before: str, after: str) -> float:
        """New shares for one that was held at the close of `before`."""
        ratio = 1.0
        for event in self.between(symbol, before, after):
            ratio *= event.value if event.kind == "split" else 1.0
        return ratio

    def growth(self, symbol: str, before: str, after: str, *, dividends: bool) -> float | None:
        """What a dollar at the close of `before` is at the close of `after`, dividends kept as cash."""
        closes = self.closes.get(symbol, {})
        first, last = closes.get(before), closes.get(after)
        if not first or not last:
            return None
        shares, cash = 1.0, 0.0
        for event in self.between(symbol, before, after):
            if event.kind == "break":
                return None
            if event.kind == "split":
                shares *= event.value
            elif dividends:
                cash += shares * event.value
        return (shares * last + cash) / first


def history(bars: Iterable[Mapping[str, Any]], actions: Iterable[Mapping[str, Any]]) -> PriceHistory:
    """From lines of raw/bars and raw/actions."""
    closes: dict[str, dict[str, float]] = {}
    for line in bars:
        closes.setdefault(line["symbol"], {})[session_of(line["ts"])] = float(line["close"])
    return PriceHistory(closes=closes, events=events_of(actions))


def events_of(actions: Iterable[Mapping[str, Any]]) -> dict[str, tuple[PriceEvent, ...]]:
    events: dict[str, list[PriceEvent]] = {}
    for line in actions:
        kind = line["kind"]
        value = 0.0 if kind == BREAK else float(line["value"])
        events.setdefault(line["symbol"], []).append(PriceEvent(ex_date=line["ex_date"], kind=kind, value=value))
    return {symbol: tuple(sorted(found)) for symbol, found in events.items()}


def history_of(lake: Lake, *, symbols: Sequence[str], first: str, last: str) -> PriceHistory:
    """Of the years from session `first` to session `last`."""
    years = range(int(first[:4]), int(last[:4]) + 1)
    return history(lake.bars(symbols=symbols, years=years), lake.actions(symbols=symbols))


def _ex_date(event: PriceEvent) -> str:
    return event.ex_date


@lru_cache(maxsize=65536)
def session_of(moment: str) -> str:
    """The New York date (ISO) of an instant."""
    return new_york_date(parse_utc(moment)).isoformat()
