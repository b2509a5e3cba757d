"""Splits of what is held: what they make of a quantity, and whether the broker has made it of a position.

Promise: quantities stay on the broker's grid of nine decimals, and what a split leaves beyond whole shares may have been paid in cash.
Nothing here decides to trade. Failure: `BrokerUnavailable`; a failed question is never "no split".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_FLOOR, Decimal

from lambdas.common.broker.port import MarketData
from lambdas.common.ledger.item import plain

QUANTUM = Decimal("1e-9")
#: Positions may differ by what flooring to nine decimals loses.
TOLERANCE = Decimal("2e-9")


@dataclass(frozen=True)
class Splits:
    """Some names' splits over some days: symbol, ex-date, new shares for each old one."""

    events: tuple[tuple[str, date, Decimal], ...] = ()

    def ratio(self, symbol: str, *, after: date = date.min) -> Decimal:
        """New shares for one of `symbol` held at the close of `after`."""
        ratio = Decimal(1)
        for name, ex_date, value in self.events:
            ratio *= value if name == symbol and ex_date > after else 1
        return ratio

    def kept(self, symbol: str, quantity: Decimal) -> Decimal:
        return (quantity * self.ratio(symbol)).quantize(QUANTUM, rounding=ROUND_FLOOR)

    def explain(self, symbol: str, *, before: Decimal, traded: Decimal, now: Decimal) -> bool:
        """Whether `now` is what was held `before` after its splits, and `traded` since; cash may have been paid for part of a share."""
        missing = self.kept(symbol, before) + traded - now
        if abs(missing) <= TOLERANCE:
            return True
        whole = now - traded == (now - traded).to_integral_value()
        return self.ratio(symbol) != 1 and 0 < missing < 1 and whole

    def pending(self, before: Mapping[str, Decimal], traded: Mapping[str, Decimal], now: Mapping[str, Decimal]) -> dict[str, str]:
        """By name, the splits that are announced while the position is what it was without them: its price may already be the new one."""
        found = {}
        for symbol, held in sorted(before.items()):
            moved, is_now = traded.get(symbol, Decimal(0)), now.get(symbol, Decimal(0))
            if self.ratio(symbol) != 1 and abs(held + moved - is_now) <= TOLERANCE < abs(self.kept(symbol, held) - held):
                due = plain(self.kept(symbol, held) + moved)
                found[symbol] = f"{symbol} splits {plain(self.ratio(symbol))} for 1, and the broker holds {plain(is_now)} still, not {due}"
        return found


def splits_between(market_data: MarketData, symbols: Iterable[str], *, first: date, last: date) -> Splits:
    """Ask for the splits of `symbols` with an ex-date from `first` to `last`, both included."""
    names = sorted(symbols)
    if not names or last < first:
        return Splits()
    rows = [row for row in market_data.corporate_actions(names, first, last) if row["kind"] == "split"]
    return Splits(tuple((row["symbol"], date.fromisoformat(row["ex_date"]), Decimal(repr(row["value"]))) for row in rows))
