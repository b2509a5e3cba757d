"""What is held now: the last closing snapshot, the splits and fills since, at the last quotes.

Promise: quantities are the broker's of the close, moved by our own fills after it and by splits whose ex-date has come; a name whose last
quote is older than the close, or has none, has its close, or the price of its last fill. `priced` says which. Pure but for `book_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Fill, Snapshot
from lambdas.dashboard.account.months import months_between
from lambdas.dashboard.market.prices import PriceHistory
from lambdas.dashboard.market.quotes import LastQuote
from schema.exchange_time import new_york_date, parse_utc


@dataclass(frozen=True, kw_only=True)
class HeldName:
    """`price` in dollars; `priced`: "close", "quote" or "fill"."""

    symbol: str
    quantity: Decimal
    price: Decimal
    priced: str

    @property
    def value(self) -> Decimal:
        return self.quantity * self.price


@dataclass(frozen=True, kw_only=True)
class HeldBook:
    """`cash` None: no close has told it yet. `fills`: those since the close."""

    holdings: tuple[HeldName, ...]
    cash: Decimal | None
    fills: tuple[Fill, ...]

    @property
    def equity(self) -> Decimal | None:
        return None if self.cash is None else self.cash + sum((one.value for one in self.holdings), Decimal(0))


def book_of(ledger: Ledger, snapshot: Snapshot | None, *, now: str, prices: PriceHistory, quotes: Mapping[str, LastQuote]) -> HeldBook:
    """As of the market's time `now`."""
    start = "" if snapshot is None else snapshot.taken_at
    fills = [one for one in ledger.fills_since(start, months=months_between(start[:7] or now[:7], now[:7])) if one.time > start]
    return book(snapshot, fills, now=now, prices=prices, quotes=quotes)


def book(snapshot: Snapshot | None, fills: Sequence[Fill], *, now: str, prices: PriceHistory, quotes: Mapping[str, LastQuote]) -> HeldBook:
    quantities: dict[str, Decimal] = {}
    close: dict[str, tuple[Decimal, str]] = {}
    today = new_york_date(parse_utc(now)).isoformat()
    for symbol, held in () if snapshot is None else snapshot.positions.items():
        assert snapshot is not None
        ratio = Decimal(repr(prices.ratio(symbol, snapshot.session, today)))
        quantities[symbol] = held.quantity * ratio
        close[symbol] = (held.close / ratio, "close")
    for fill in fills:
        quantities[fill.symbol] = quantities.get(fill.symbol, Decimal(0)) + (fill.quantity if fill.side == "buy" else -fill.quantity)
        close.setdefault(fill.symbol, (fill.price, "fill"))
    since = "" if snapshot is None else snapshot.taken_at
    for symbol in close:
        quote = quotes.get(symbol)
        if quote is not None and quote.mid is not None and quote.time > since:
            close[symbol] = (Decimal(repr(quote.mid)), "quote")
    holdings = [
        HeldName(symbol=symbol, quantity=quantity, price=close[symbol][0], priced=close[symbol][1])
        for symbol, quantity in quantities.items()
        if quantity
    ]
    paid = sum((one.quantity * one.price * (1 if one.side == "buy" else -1) for one in fills), Decimal(0))
    return HeldBook(
        holdings=tuple(sorted(holdings, key=lambda one: (-one.value, one.symbol))),
        cash=None if snapshot is None else snapshot.cash - paid,
        fills=tuple(fills),
    )
