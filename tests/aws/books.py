"""What is held, by the exchange's own books and by the ledger's fills of January 2020: shares by symbol."""

from __future__ import annotations

from decimal import Decimal

from lambdas.common.ledger.ledger import Ledger
from local.exchange.server import RunningExchange


def positions(exchange: RunningExchange) -> dict[str, Decimal]:
    return {symbol: Decimal(quantity) for symbol, quantity in exchange.books()["positions"].items()}


def recorded(ledger: Ledger) -> dict[str, Decimal]:
    held: dict[str, Decimal] = {}
    for fill in ledger.fills("2020-01"):
        held[fill.symbol] = held.get(fill.symbol, Decimal(0)) + (fill.quantity if fill.side == "buy" else -fill.quantity)
    return {symbol: quantity for symbol, quantity in held.items() if quantity}
