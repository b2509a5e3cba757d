"""The vendor's bars among those that the lake has: what is sent replaces, what is not sent stays as it was."""

from __future__ import annotations

from collections.abc import Iterable

from lambdas.common.lake.lake import Lake, Row
from schema.exchange_time import new_york_date, parse_utc
from schema.lake_layout import bars_key, bars_prefix
from schema.slot import SlotRows


def merge_bars(lake: Lake, bars: Iterable[Row], *, rows: SlotRows | None = None) -> tuple[dict[str, list[Row]], list[str]]:
    """The objects to write, and each number that was restated as "symbol session field old -> new", of slot rows with the slot's instant.

    `rows`: the slots of the bars; None for daily bars.
    """
    incoming: dict[str, dict[str, Row]] = {}
    for row in bars:
        incoming.setdefault(bars_key(row["symbol"], new_york_date(parse_utc(row["ts"])).year, rows), {})[row["ts"]] = dict(row)
    stored = lake.read(incoming, prefix=bars_prefix(rows))
    restated: list[str] = []
    objects: dict[str, list[Row]] = {}
    for key, sent in incoming.items():
        known = {row["ts"]: row for row in stored.get(key, ())}
        for ts, row in sent.items():
            restated += [
                f"{row['symbol']} {ts[:10] if rows is None else ts} {name} {old} -> {row[name]}"
                for name, old in known.get(ts, {}).items()
                if name in row and row[name] != old
            ]
        objects[key] = [row for _, row in sorted((known | sent).items())]
    return objects, restated
