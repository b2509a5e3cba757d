"""What the vendor prints of numbers that are exact here: prices with four decimals, money in cents, where a plan has vendor_rounding."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from local.exchange.money import CENT, HALF_UP, PRICE_TICK, plain

PRICES = frozenset({"filled_avg_price", "avg_entry_price", "current_price", "lastday_price", "price"})
MONEY = frozenset(
    {"cash", "buying_power", "regt_buying_power", "non_marginable_buying_power", "portfolio_value", "equity", "last_equity"}
    | {"long_market_value", "initial_margin", "maintenance_margin", "market_value", "cost_basis"}
    | {"unrealized_pl", "unrealized_intraday_pl", "net_amount"}
)


def as_vendor_prints(content: Any) -> Any:
    """The same answer with its prices and money rounded; quantities, ratios and market data stay."""
    if isinstance(content, list):
        return [as_vendor_prints(item) for item in content]
    if not isinstance(content, dict):
        return content
    return {name: _rounded(name, value) if isinstance(value, str) else as_vendor_prints(value) for name, value in content.items()}


def _rounded(name: str, text: str) -> str:
    step = PRICE_TICK if name in PRICES else CENT if name in MONEY else None
    return text if step is None else plain(Decimal(text).quantize(step, context=HALF_UP))
