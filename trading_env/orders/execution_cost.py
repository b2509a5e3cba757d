"""What one order cost against the price it was decided at: its implementation shortfall (Perold, Journal of Portfolio Management, 1988).

*Decision price*: the quote mid that the order was sized at, at which a backtest fills. *Arrival price*: the quote mid that was read last
before the order was sent; it differs where a batch was resumed later. *Fill price*: the average of its fills. *Close*: of the session.
The cost against having got every share at the decision price is, to the last digit,

    delay     filled x side x (arrival - decision)
  + slippage  filled x side x (fill - arrival)
  + missed    (quantity - filled) x side x (close - decision)

in dollars, positive where it cost something; side is 1 for a buy, -1 for a sell. In basis points: of the price that it is measured from.
Failure: none; what is not known yet is None, never zero. Needs nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

BASIS_POINT = Decimal("1e-4")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One order and its prices in dollars; `arrival` is None when it was never sent, `fill` when nothing was filled."""

    symbol: str
    side: Literal["buy", "sell"]
    quantity: Decimal
    filled: Decimal
    decision: Decimal
    arrival: Decimal | None = None
    fill: Decimal | None = None
    close: Decimal | None = None

    @property
    def delay_bp(self) -> float | None:
        return self._basis_points(self.arrival, self.decision)

    @property
    def slippage_bp(self) -> float | None:
        return None if self.arrival is None else self._basis_points(self.fill, self.arrival)

    @property
    def delay(self) -> Decimal | None:
        return self._cost(self.filled, self.decision, self.arrival)

    @property
    def slippage(self) -> Decimal | None:
        return self._cost(self.filled, self.arrival, self.fill)

    @property
    def missed(self) -> Decimal | None:
        """What the shares that did not fill would have earned by the close; None while the close is not known."""
        return self._cost(self.quantity - self.filled, self.decision, self.close)

    @property
    def shortfall(self) -> Decimal | None:
        parts = (self.delay, self.slippage, self.missed)
        return None if None in parts else sum((part for part in parts if part is not None), Decimal(0))

    @property
    def _sign(self) -> int:
        return 1 if self.side == "buy" else -1

    def _basis_points(self, price: Decimal | None, reference: Decimal) -> float | None:
        return None if price is None or not reference > 0 else float(self._sign * (price / reference - 1) / BASIS_POINT)

    def _cost(self, shares: Decimal, reference: Decimal | None, price: Decimal | None) -> Decimal | None:
        if not shares:
            return Decimal(0)
        return None if reference is None or price is None else shares * self._sign * (price - reference)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Many orders: dollars filled at their arrival prices, what that cost, and what was missed. `open` counts the orders of which something
    is not known; what is known of them is in the sums."""

    orders: int
    traded: Decimal
    delay: Decimal
    slippage: Decimal
    missed: Decimal
    open: int

    @property
    def slippage_bp(self) -> float | None:
        return float(self.slippage / self.traded / BASIS_POINT) if self.traded else None


def tally(executions: Iterable[Execution]) -> Tally:
    listed = list(executions)
    return Tally(
        orders=len(listed),
        traded=_total(one.filled * one.arrival for one in listed if one.arrival is not None),
        delay=_total(one.delay for one in listed),
        slippage=_total(one.slippage for one in listed),
        missed=_total(one.missed for one in listed),
        open=sum(one.shortfall is None for one in listed),
    )


def _total(amounts: Iterable[Decimal | None]) -> Decimal:
    return sum((amount for amount in amounts if amount is not None), Decimal(0))
