"""What an account should hold: the positions of its last snapshot, the fills and the splits since; and what it holds instead.

Promise: whatever fills and splits do not explain is named, never guessed away. Failure: that of the ledger's reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal

from lambdas.common.ledger.item import plain
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Snapshot
from lambdas.common.orders.splits import Splits

Quantities = Mapping[str, Decimal]


def last_snapshot(ledger: Ledger, *, account: str, before: date) -> Snapshot | None:
    """The newest snapshot of a session before `before`, unless it is another account's."""
    found = ledger.latest_snapshot(before=before.isoformat())
    return found if found is not None and found.account_id in {None, account} else None


def traded_since(start: str, *, until: date, ledger: Ledger) -> dict[str, Decimal]:
    """Shares by name, buys positive, that our fills after the instant `start` moved."""
    traded: dict[str, Decimal] = {}
    first, last = (int(day[:4]) * 12 + int(day[5:7]) - 1 for day in (start, until.isoformat()))
    months = [f"{month // 12}-{month % 12 + 1:02d}" for month in range(first, last + 1)]
    for fill in ledger.fills_since(start, months=months):
        signed = fill.quantity if fill.side == "buy" else -fill.quantity
        traded[fill.symbol] = traded.get(fill.symbol, Decimal(0)) + signed
    return traded


def drift_of(now: Quantities, *, before: Snapshot | None, traded: Quantities, splits: Splits) -> dict[str, str]:
    """By name, what is held `now` and neither the snapshot `before`, nor what was `traded` since, nor `splits` explain."""
    held = {symbol: one.quantity for symbol, one in before.positions.items()} if before else {}
    drift = {}
    for symbol in sorted(held.keys() | traded.keys() | now.keys()):
        was, moved, actual = (amounts.get(symbol, Decimal(0)) for amounts in (held, traded, now))
        if not splits.explain(symbol, before=was, traded=moved, now=actual):
            expected = plain(splits.kept(symbol, was) + moved)
            drift[symbol] = f"{symbol}: our fills say {expected}, the broker holds {plain(actual)}"
    return drift
