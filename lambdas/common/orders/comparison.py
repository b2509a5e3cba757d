"""What the account is held against in a period: the benchmark, its own names, and the targets of the model that watched. Pure.

Promise: prices are the closes that the snapshots hold; what they do not hold is None or left out, never guessed. Dividends are no part of
it, as the paper account pays none. A close that moves by a third or more is taken for a split, and what would need it is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from math import prod

from lambdas.common.ledger.records import Decision, ShadowDecision, Snapshot
from lambdas.common.orders.execution_cost import closes_of
from schema.slot import AGENT

SPLIT = Decimal(1) / 3

Weights = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """What both models' targets would have grown by as shares, before cost, from close to close of so many `sessions`."""

    sessions: int
    traded: float
    watched: float


def price_change(symbol: str, snapshots: Sequence[Snapshot]) -> float | None:
    """The change of a close from the first to the last snapshot, as a share."""
    if len(snapshots) < 2:
        return None
    moves = [_move(symbol, earlier, later) for earlier, later in pairwise(snapshots)]
    known = [move for move in moves if move is not None]
    return prod(1 + move for move in known) - 1 if len(known) == len(moves) else None


def side_by_side(snapshots: Sequence[Snapshot], decisions: Iterable[Decision], watched: Iterable[ShadowDecision]) -> SideBySide | None:
    """Both models' last targets of a session, held from its close to the next one; None where no session has both and its prices."""
    ours = {one.slot[:10]: one.weights for one in sorted(decisions, key=lambda one: one.received_at) if one.strategy == AGENT}
    theirs = {one.slot[:10]: one.weights for one in sorted(watched, key=lambda one: one.time)}
    growths: list[tuple[float, float]] = []
    for earlier, later in pairwise(snapshots):
        if earlier.session in ours.keys() & theirs.keys():
            both = [growth(weights[earlier.session], earlier, later) for weights in (ours, theirs)]
            if both[0] is not None and both[1] is not None:
                growths.append((both[0], both[1]))
    if not growths:
        return None
    return SideBySide(
        sessions=len(growths), traded=prod(1 + one for one, _ in growths) - 1, watched=prod(1 + one for _, one in growths) - 1
    )


def growth(weights: Weights, earlier: Snapshot, later: Snapshot) -> float | None:
    """What targets held from one close to the next would have earned as a share, before cost; None where a price is not known."""
    moves = {symbol: _move(symbol, earlier, later) for symbol, weight in weights.items() if weight}
    known = {symbol: move for symbol, move in moves.items() if move is not None}
    return sum(weights[symbol] * move for symbol, move in known.items()) if len(known) == len(moves) else None


def _move(symbol: str, earlier: Snapshot, later: Snapshot) -> float | None:
    before, after = closes_of(earlier).get(symbol), closes_of(later).get(symbol)
    if not before or not after or abs(after / before - 1) >= SPLIT:
        return None
    return float(after / before) - 1
