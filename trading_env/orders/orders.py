"""From planned share deltas to orders with deterministic identities; the one place where float64 becomes Decimal and back.

Promise: the same intent has the same `client_order_id` for ever, another intent another; a quantity goes to Decimal with 9 places and
back without change, and a full exit asks for exactly what is held. Sells come before buys, each in symbol order.
Failure: `OrderError` on a quantity that 9 decimals cannot hold, or that is not finite.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from trading_env.errors import PapertapeError
from trading_env.orders.order_state import Side

QUANTUM = Decimal("1e-9")
#: By which an order at the broker is known as one of this app's.
PREFIX = "pt1-"


class OrderError(PapertapeError, ValueError):
    """A quantity or price cannot be an order's."""


@dataclass(frozen=True)
class Intent:
    """What an order is for. A manual order has strategy `manual` and the caller's key as slot; `attempt` counts definite rejections."""

    strategy: str
    slot: str
    symbol: str
    attempt: int = 0


@dataclass(frozen=True)
class ProposedOrder:
    """A market order to be judged by risk and sent once. `price_reference` is the price it was sized at, in dollars."""

    symbol: str
    side: Side
    quantity: Decimal
    client_order_id: str
    price_reference: Decimal

    @property
    def notional(self) -> Decimal:
        return self.quantity * self.price_reference


def client_order_id(intent: Intent) -> str:
    """44 characters, a function of the intent alone."""
    # JSON keeps ("a", "b:c") and ("a:b", "c") apart, which joining by a separator would not
    text = json.dumps([intent.strategy, intent.slot, intent.symbol, intent.attempt], separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).digest()
    return PREFIX + base64.b32encode(digest).decode("ascii")[:40].lower()


def to_decimal(quantity: float) -> Decimal:
    """The 9-decimal number nearest to a quantity of shares; raises OrderError unless the two are the same double."""
    if not np.isfinite(quantity):
        raise OrderError(f"quantity must be finite, was {quantity}")
    exact = Decimal(quantity).quantize(QUANTUM)
    if float(exact) != quantity:
        raise OrderError(f"quantity must have at most 9 decimals, was {quantity!r}")
    return exact


def to_float(quantity: Decimal) -> float:
    """The double of a broker's quantity; raises OrderError when it is not finite or has more than 9 decimals."""
    if not quantity.is_finite() or quantity != quantity.quantize(QUANTUM):
        raise OrderError(f"quantity must be finite with at most 9 decimals, was {quantity}")
    return float(quantity)


def propose(
    *,
    strategy: str,
    slot: str,
    symbols: Sequence[str],
    deltas: NDArray[np.float64],
    prices: NDArray[np.float64],
    attempts: Mapping[str, int] | None = None,
) -> tuple[ProposedOrder, ...]:
    """Orders for the signed share quantities `deltas` (A,) sized at `prices` (A,); 0 is no order.

    `attempts` raises the attempt of symbols whose earlier order was definitely rejected. Raises OrderError.
    """
    orders = []
    for symbol, delta, price in zip(symbols, deltas.tolist(), prices.tolist(), strict=True):
        quantity = to_decimal(delta)
        if not quantity:
            continue
        if not (np.isfinite(price) and price > 0):
            raise OrderError(f"{symbol}: sizing price must be above 0, was {price}")
        intent = Intent(strategy=strategy, slot=slot, symbol=symbol, attempt=(attempts or {}).get(symbol, 0))
        side: Side = "buy" if quantity > 0 else "sell"
        orders.append(
            ProposedOrder(
                symbol=symbol,
                side=side,
                quantity=abs(quantity),
                client_order_id=client_order_id(intent),
                price_reference=Decimal(repr(price)),
            )
        )
    return tuple(sorted(orders, key=lambda order: (order.side == "buy", order.symbol)))
