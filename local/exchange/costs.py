"""What a trade costs beyond the market's price."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from local.exchange.money import EXACT
from local.exchange.orders import Side

WHOLE_IN_BPS = Decimal(10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class TradingCosts:
    """Shares of the price (`slippage`) and of the traded amount (`fee`), of one side.

    An order fills whole at one price: impact and a cap on the volume, which the simulator knows, are refused by `ValueError`.
    """

    fee: Decimal = Decimal(0)
    slippage: Decimal = Decimal(0)

    @classmethod
    def from_basis_points(
        cls,
        *,
        fee_bps: Decimal,
        slippage_bps: Decimal,
        half_spread_bps: Decimal = Decimal(0),
        impact: Decimal = Decimal(0),
        max_volume_share: Decimal = Decimal(0),
    ) -> TradingCosts:
        """The costs of the settings, key by key."""
        if impact or max_volume_share:
            raise ValueError(f"impact and max_volume_share must be 0, an order fills whole here; was {impact} and {max_volume_share}")
        adverse = EXACT.add(slippage_bps, half_spread_bps)
        if adverse >= WHOLE_IN_BPS:
            raise ValueError(
                f"slippage_bps and half_spread_bps together must be below {WHOLE_IN_BPS}, or a sale costs money; was {adverse}"
            )
        if fee_bps >= WHOLE_IN_BPS:
            raise ValueError(f"fee_bps must be below {WHOLE_IN_BPS}, or a sale costs money; was {fee_bps}")
        return cls(fee=EXACT.divide(fee_bps, WHOLE_IN_BPS), slippage=EXACT.divide(adverse, WHOLE_IN_BPS))

    def price(self, side: Side, price: Decimal) -> Decimal:
        """What a trade at the market price `price` is done at."""
        worse = self.slippage if side is Side.BUY else -self.slippage
        return EXACT.multiply(price, EXACT.add(Decimal(1), worse))
