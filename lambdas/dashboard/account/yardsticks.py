"""What the account is held against: the benchmark bought and kept, and equal weight of the universe.

Equal weight here is a dollar in equal parts of all names of today's universe that have a close, rebalanced at each close, at close-to-close
returns. Both are before costs, and pay dividends where the settings credit them. So both are a little better than anyone could have
traded; the evaluation's own baselines, which trade at opens and pay costs, stand in its report.

Promise: index values by session, 1 at the first; None where the lake has no closes of a session (the last one's come in the night).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

from lambdas.common.lake.lake import Lake
from lambdas.dashboard.market.prices import PriceHistory, history_of
from schema.settings import Settings

Path = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Yardsticks:
    """`prices` are what both were made from; `made`: what else was computed from the same closes."""

    equal_weight: Path
    benchmark: Path
    prices: PriceHistory
    made: dict[str, object] = field(default_factory=dict, repr=False)


def equal_weight(symbols: Sequence[str], sessions: Sequence[str], prices: PriceHistory, *, dividends: bool) -> Path:
    """The index of `symbols` in equal parts, rebalanced at each session's close."""
    path: list[float | None] = []
    value, at = 1.0, None
    for session in sessions:
        if at is None:
            known = any(session in prices.closes.get(symbol, {}) for symbol in symbols)
            path.append(value if known else None)
            at = session if known else None
            continue
        growths = [one for symbol in symbols if (one := prices.growth(symbol, at, session, dividends=dividends)) is not None]
        if growths:
            value, at = value * sum(growths) / len(growths), session
        path.append(value if growths else None)
    return tuple(path)


class YardstickCache:
    """The last computed ones: computed again after each close, and each hour, because the night's bars come later than the close."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._key: tuple[str, ...] = ()
        self._made: Yardsticks | None = None

    def of(self, sessions: Sequence[str], *, lake: Lake, settings: Settings, hour: str) -> Yardsticks:
        """`sessions`: ISO dates of the closes, at least one; `hour` of the request."""
        universe = settings.universe
        key = (sessions[0], sessions[-1], hour, lake.raw_bucket, *universe.symbols)
        with self._lock:
            if self._made is None or self._key != key:
                prices = history_of(lake, symbols=universe.symbols, first=sessions[0], last=sessions[-1])
                credit = settings.portfolio.dividends == "credit"
                self._made = Yardsticks(
                    equal_weight=equal_weight(universe.symbols, sessions, prices, dividends=credit),
                    benchmark=equal_weight((universe.required_benchmark,), sessions, prices, dividends=credit),
                    prices=prices,
                )
                self._key = key
            return self._made
