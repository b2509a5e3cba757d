"""The view of an account that clients get: the book, or the book as it was a little earlier.

Promise: with an empty plan it is the book itself. How stale a view is, is a function of the clock, and every view was true once: a
position before a fill, an order before its last change, or, for a while, no order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from local.exchange.book import AccountBook
from local.exchange.faults.sampler import FaultSampler
from local.exchange.money import EXACT
from local.exchange.orders import ExchangeOrder, ExchangePosition


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """Until `until`, `symbol` is shown as it was before."""

    until: datetime
    symbol: str
    before: ExchangePosition | None


class StaleView:
    """The view of one account's book."""

    def __init__(self, sampler: FaultSampler) -> None:
        self._sampler = sampler
        self.forget()

    def forget(self) -> None:
        """Forget every lag: the account is new."""
        self._hidden: dict[str, datetime] = {}
        self._lags: list[Lag] = []

    def accepted(self, order: ExchangeOrder) -> None:
        fault = self._sampler.plan.faults.hidden_order
        if fault is None or not fault.covers(order.ticket.symbol):
            return
        if self._sampler.selects(fault, "hidden_order", order.client_order_id):
            self._sampler.counts["hidden_order"] += 1
            self._hidden[order.id] = order.submitted_at + timedelta(seconds=fault.seconds)

    def traded(self, order: ExchangeOrder, *, before: ExchangePosition | None, now: datetime) -> None:
        """A fill has just changed the position of the order's symbol from `before`."""
        fault, symbol = self._sampler.plan.faults.view_skew, order.ticket.symbol
        if fault is None or not fault.covers(symbol):
            return
        if self._sampler.selects(fault, "view_skew", order.client_order_id):
            self._sampler.counts["view_skew"] += 1
            self._lags = [lag for lag in self._lags if lag.until > now]
            self._lags.append(Lag(until=now + timedelta(seconds=fault.seconds), symbol=symbol, before=before))

    def split(self, symbol: str) -> None:
        """Shares of before a split and of after it are never mixed."""
        self._lags = [lag for lag in self._lags if lag.symbol != symbol]

    def positions(self, book: AccountBook, now: datetime) -> dict[str, ExchangePosition]:
        shown = dict(book.positions)
        for lag in reversed(self._lags):
            if lag.until <= now:
                continue
            if lag.before is None:
                shown.pop(lag.symbol, None)
            else:
                shown[lag.symbol] = lag.before
        return shown

    def available(self, book: AccountBook, symbol: str, now: datetime) -> Decimal:
        """Shares shown and not promised to an open sale."""
        truth, shown = book.positions.get(symbol), self.positions(book, now).get(symbol)
        available = book.available(symbol)
        if shown == truth:
            return available
        held = truth.quantity if truth is not None else Decimal(0)
        return max(Decimal(0), EXACT.subtract(EXACT.add(available, shown.quantity if shown is not None else Decimal(0)), held))

    def orders(self, orders: Iterable[ExchangeOrder], book: AccountBook, now: datetime) -> list[ExchangeOrder]:
        """Orders as a list of them is shown."""
        return [self.order(order, book, now) for order in orders if self.visible(order, now)]

    def clear(self, now: datetime) -> bool:
        """Whether every order is shown as it is."""
        self._hidden = {order_id: until for order_id, until in self._hidden.items() if until > now}
        return not self._hidden and self._sampler.plan.faults.stale_order_view is None

    def unsure_since(self, now: datetime) -> datetime:
        """Orders that changed after this may be shown as they were before."""
        fault = self._sampler.plan.faults.stale_order_view
        return now - timedelta(seconds=fault.seconds if fault is not None else 0)

    def visible(self, order: ExchangeOrder, now: datetime) -> bool:
        return order.id not in self._hidden or self._hidden[order.id] <= now

    def order(self, order: ExchangeOrder, book: AccountBook, now: datetime) -> ExchangeOrder:
        """One order, as it is or as it was before."""
        fault, earlier = self._sampler.plan.faults.stale_order_view, book.history[order.id][:-1]
        if fault is None or not earlier or order.updated_at <= self.unsure_since(now) or not fault.covers(order.ticket.symbol):
            return order
        if not self._sampler.injects(fault, "stale_order_view", order.client_order_id, momentary=True):
            return order
        return earlier[int(self._sampler.draw("stale_order_view which", f"{order.client_order_id} {now}") * len(earlier))]
