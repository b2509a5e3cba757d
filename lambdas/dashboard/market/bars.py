"""The lake's daily bars and corporate actions as a page needs them, looked up once an hour: the night's bars come in the night."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

from lambdas.common.lake.lake import Lake, Row
from lambdas.dashboard.market.prices import PriceHistory, history


class RawBars(NamedTuple):
    """Rows as the lake has them, and the closes and actions in them."""

    rows: tuple[Row, ...]
    prices: PriceHistory


class BarCache:
    """What was looked up in this hour, by names and years. Failure: the lake's."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._hour = ""
        self._found: dict[tuple[object, ...], RawBars] = {}

    def of(self, lake: Lake, *, symbols: Sequence[str], years: range, hour: str) -> RawBars:
        key = (tuple(symbols), years)
        with self._lock:
            if self._hour != hour:
                self._hour, self._found = hour, {}
            if key not in self._found:
                rows = tuple(lake.bars(symbols=symbols, years=years))
                self._found[key] = RawBars(rows, history(rows, lake.actions(symbols=symbols)))
            return self._found[key]
