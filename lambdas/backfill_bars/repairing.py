"""Put right what a lake's corporate actions were filled with wrongly: copies removed, what the vendor has added, ids given.

Promises: showing writes nothing; applying what was applied changes nothing; a line that the vendor does not list any more is kept, once.
Nothing is read or written before the vendor has answered for every name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from lambdas.backfill_bars.actions import Correction, repair
from lambdas.common.broker.port import MarketData
from lambdas.common.lake.lake import Lake, Row
from schema.lake_layout import ACTIONS, actions_key


@dataclass(frozen=True)
class Repaired:
    """What was wrong, and how many of the lake's objects were written; of those still to be written when it was only shown."""

    applied: bool
    corrections: tuple[Correction, ...]
    identified: int
    objects: int

    def summary(self) -> dict[str, Any]:
        return {
            "repair": "apply" if self.applied else "show",
            "corrections": [one.document() for one in self.corrections],
            "identified": self.identified,
            "objects": self.objects,
        }


def repair_actions(*, vendor: MarketData, lake: Lake, symbols: Sequence[str], last: date, apply: bool) -> Repaired:
    """Hold the lines of `symbols` with an ex-date up to `last` against all that the vendor lists of them since the first stored one."""
    stored = {symbol: rows for symbol in symbols if (rows := lake.read([actions_key(symbol)], prefix=ACTIONS).get(actions_key(symbol)))}
    first = min((row["ex_date"] for rows in stored.values() for row in rows), default=last.isoformat())
    listed = vendor.corporate_actions(list(stored), date.fromisoformat(first), last) if stored else []
    objects: dict[str, list[Row]] = {}
    corrections: list[Correction] = []
    identified = 0
    for symbol, rows in stored.items():
        begins = min(row["ex_date"] for row in rows)
        found, wrong = repair(rows, [row for row in listed if row["symbol"] == symbol and row["ex_date"] >= begins], known=last)
        corrections += wrong
        if found != rows:
            objects[actions_key(symbol)] = found
            identified += max(0, sum("id" in row for row in found) - len({row["id"] for row in rows if "id" in row}))
    written = lake.write(objects) if apply else list(objects)
    return Repaired(applied=apply, corrections=tuple(corrections), identified=identified, objects=len(written))
