"""What moved: a price beyond a threshold of that of some minutes ago, and a price at the band beyond which none may trade. Pure.

Each is raised once: a move again when the price has come back to half of the threshold, or has turned to the other side; a band when the
price has left it. Prices of before a gap are forgotten, so that no move is made up of two that nobody saw.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lambdas.common.broker.streams import PriceBand, QuoteTick, TradeTick

#: How often a price is kept to compare later ones with.
SAMPLED = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    symbol: str
    at: datetime
    price: float
    before: float

    @property
    def change(self) -> float:
        return self.price / self.before - 1


@dataclass(slots=True)
class _Watched:
    samples: deque[tuple[datetime, float]] = field(default_factory=deque)
    raised: int = 0
    band: PriceBand | None = None
    at_band: bool = False


class MoveWatch:
    """`threshold`: share of the price of `minutes` ago, which is the last one at or before then; without one nothing is judged."""

    def __init__(self, *, threshold: float, minutes: int) -> None:
        self._threshold, self._back = threshold, timedelta(minutes=minutes)
        self._names: dict[str, _Watched] = {}

    def trade(self, trade: TradeTick) -> Move | None:
        """The move that this trade completes; one that is older than the last changes nothing."""
        watched = self._names.setdefault(trade.symbol, _Watched())
        samples = watched.samples
        if samples and trade.at < samples[-1][0]:
            return None
        then = trade.at - self._back
        while len(samples) > 1 and samples[1][0] <= then:
            samples.popleft()
        before = samples[0][1] if samples and samples[0][0] <= then else None
        if not samples or trade.at >= samples[-1][0] + SAMPLED:
            samples.append((trade.at, trade.price))
        return None if before is None else self._judge(watched, Move(symbol=trade.symbol, at=trade.at, price=trade.price, before=before))

    def _judge(self, watched: _Watched, move: Move) -> Move | None:
        side = 1 if move.change > 0 else -1
        if abs(move.change) <= self._threshold / 2:
            watched.raised = 0
        if abs(move.change) <= self._threshold or watched.raised == side:
            return None
        watched.raised = side
        return move

    def band(self, band: PriceBand) -> None:
        """From now on this one."""
        watched = self._names.setdefault(band.symbol, _Watched())
        if watched.band is None or band.at >= watched.band.at:
            watched.band = band

    def reached(self, tick: TradeTick | QuoteTick) -> PriceBand | None:
        """The band that this tick is at: a trade at or beyond it, a bid at its top, an offer at its bottom. Once until it is left."""
        watched = self._names.get(tick.symbol)
        if watched is None or watched.band is None or tick.at < watched.band.at:
            return None
        low, high = (tick.price, tick.price) if isinstance(tick, TradeTick) else (tick.ask or watched.band.up, tick.bid)
        at_band = low <= watched.band.down or high >= watched.band.up
        first, watched.at_band = at_band and not watched.at_band, at_band
        return watched.band if first else None

    def forget_prices(self) -> None:
        """Nobody followed for a while: nor whether the price came back meanwhile."""
        for watched in self._names.values():
            watched.samples.clear()
            watched.raised = 0
