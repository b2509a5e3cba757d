"""Exact arithmetic for money and quantities, and the steps that numbers are rounded to where they are."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, Inexact

EXACT = Context(prec=100, traps=[Inexact])
RATIOS = Context(prec=60)
FLOOR = Context(prec=60, rounding=ROUND_FLOOR)
CEILING = Context(prec=60, rounding=ROUND_CEILING)
HALF_UP = Context(prec=60, rounding=ROUND_HALF_UP)
QUANTUM = Decimal("1e-9")
SHOWN = Decimal("1e-10")
CENT, PRICE_TICK = Decimal("0.01"), Decimal("0.0001")
HUNDRED = Decimal(100)


def plain(number: Decimal) -> str:
    """Every digit, without an exponent or trailing zeros."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
