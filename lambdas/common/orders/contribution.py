"""What each name has won or lost between two closing snapshots, in dollars. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from lambdas.common.ledger.records import Fill, Snapshot


def by_name(before: Snapshot, after: Snapshot, fills: Iterable[Fill]) -> dict[str, float]:
    """Dollars that each name has won or lost between two closes, the largest first; without names that moved in from elsewhere."""
    worth = {symbol: -held.quantity * held.close for symbol, held in before.positions.items()}
    for symbol, held in after.positions.items():
        worth[symbol] = worth.get(symbol, Decimal(0)) + held.quantity * held.close
    for fill in fills:
        if before.taken_at < fill.time <= after.taken_at:
            paid = fill.quantity * fill.price
            worth[fill.symbol] = worth.get(fill.symbol, Decimal(0)) - (paid if fill.side == "buy" else -paid)
    known = {symbol: float(dollars) for symbol, dollars in worth.items() if symbol not in after.drift}
    return dict(sorted(known.items(), key=lambda one: (-one[1], one[0])))
