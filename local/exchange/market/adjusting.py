"""Bars adjusted for what came after them: splits, cash dividends, or both; nothing that is not known yet.

A bar before the ex-date of a split of r new shares for each old one has its prices divided by r and its volume multiplied by it. Before the
ex-date of a dividend D, prices are multiplied by 1 - D/C, C being the raw close of the session before: the usual factor (CRSP's, and what
data vendors print as adjusted close). Prices are rounded to four decimals, as the vendor prints them. Spin-offs are not recorded.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from local.exchange.market.rows import Action, RecordedBar
from local.exchange.money import HALF_UP, PRICE_TICK, RATIOS
from local.exchange.sessions import new_york_midnight

KINDS = {"split": frozenset({"split"}), "dividend": frozenset({"dividend"}), "spin-off": frozenset[str](), "raw": frozenset[str]()}
ALL = frozenset({"split", "dividend"})


class AdjustmentError(ValueError):
    """A dividend that leaves nothing of the price: no factor makes sense of it."""


def kinds_of(text: str) -> frozenset[str] | None:
    """The actions that an adjustment is for: "raw", "split", "dividend", "spin-off", "all", or some with commas; else `None`."""
    words = text.split(",")
    if any(word not in KINDS and word != "all" for word in words):
        return None
    return ALL if "all" in words else frozenset().union(*(KINDS[word] for word in words))


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Factors of one symbol: `prices[i]` and `shares[i]` are for bars before `since[i]`, and from `since[i - 1]` on."""

    since: Sequence[datetime] = ()
    prices: Sequence[Decimal] = ()
    shares: Sequence[Decimal] = ()

    def __call__(self, bar: RecordedBar) -> RecordedBar:
        index = bisect_right(self.since, bar.start)
        if index == len(self.since):
            return bar
        price, shares = self.prices[index], self.shares[index]
        opens, high, low, close = (
            RATIOS.multiply(value, price).quantize(PRICE_TICK, context=HALF_UP) for value in (bar.open, bar.high, bar.low, bar.close)
        )
        volume = int(RATIOS.multiply(Decimal(bar.volume), shares).to_integral_value(context=HALF_UP))
        return RecordedBar(bar.start, open=opens, high=high, low=low, close=close, volume=volume)


def adjustment(actions: Iterable[Action], *, close_before: Callable[[Action], Decimal | None]) -> Adjustment:
    """The factors of one symbol's known `actions`; `close_before` is the raw close of the session before an ex-date.

    Raises `AdjustmentError`.
    """
    price = shares = Decimal(1)
    since: list[datetime] = []
    prices: list[Decimal] = []
    volumes: list[Decimal] = []
    for action in sorted(actions, key=lambda action: action.ex_date, reverse=True):
        if action.kind == "split":
            price, shares = RATIOS.divide(price, action.value), RATIOS.multiply(shares, action.value)
        else:
            close = close_before(action)
            if close is None:
                continue  # there is no bar before it
            if action.value >= close:
                raise AdjustmentError(
                    f"{action.symbol} {action.ex_date}: a dividend of {action.value} is not below the close before, {close}"
                )
            price = RATIOS.multiply(price, 1 - RATIOS.divide(action.value, close))
        begins = new_york_midnight(action.ex_date)
        if since and since[-1] == begins:
            prices[-1], volumes[-1] = price, shares
        else:
            since.append(begins)
            prices.append(price)
            volumes.append(shares)
    return Adjustment(since[::-1], prices[::-1], volumes[::-1])
