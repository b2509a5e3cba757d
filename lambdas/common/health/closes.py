"""The lake's last closes beside those of other sources, as `backfill_bars` wrote them, and what is to be said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from lambdas.common.lake.lake import Lake
from schema.lake_layout import CLOSES, closes_key

LIMIT = 0.005
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class ComparedCloses:
    """Symbol, the lake's close of the session and another source's; `failed`: why it has none."""

    session: date
    pairs: tuple[tuple[str, float, float], ...] = ()
    failed: str = ""


def compared_closes(lake: Lake, sources: Sequence[str], earlier: Sequence[date]) -> dict[str, ComparedCloses]:
    """By source, of the last of the sessions `earlier`."""
    if not sources or not earlier:
        return {}
    session, key = earlier[-1], closes_key(earlier[-1])
    found = {row["source"]: row for row in lake.read([key], prefix=CLOSES).get(key, [])}
    nothing: dict[str, Any] = {"pairs": [], "failed": "backfill_bars has not done so"}
    rows = {source: found.get(source, nothing) for source in sources}
    return {
        source: ComparedCloses(session=session, pairs=tuple((name, own, other) for name, own, other in row["pairs"]), failed=row["failed"])
        for source, row in rows.items()
    }


def sentences(compared: Mapping[str, ComparedCloses]) -> dict[str, str]:
    """By source that differs or could not be asked: which names, the worst first, both numbers, and how far apart."""
    told = {name: _sentence(name, found) for name, found in compared.items()}
    return {name: sentence for name, sentence in told.items() if sentence}


def _sentence(name: str, found: ComparedCloses) -> str:
    if found.failed:
        return f"the closes of {found.session} could not be compared: {found.failed}"
    apart = sorted(((abs(other / own - 1), symbol, own, other) for symbol, own, other in found.pairs), reverse=True)
    far = [f"{symbol} {own:g} here, {other:g} there ({share:.1%})" for share, symbol, own, other in apart if share > LIMIT]
    if not far:
        return ""
    more = f" and {len(far) - SHOWN} more" if len(far) > SHOWN else ""
    return f"{len(far)} of {len(found.pairs)} closes of {found.session} differ from {name}'s: {', '.join(far[:SHOWN])}{more}"
