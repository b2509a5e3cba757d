"""One account at one clock: what happens when time moves and when an order arrives. Pure and deterministic: times are the clock's.

Promise: however the way from one moment to the next is cut into steps, the books at its end are the same. Between two moments of the
clock every moment at which something can happen is visited in order: at the start of an ex-date shares split and dividends are paid, at
the open and as recorded minutes end waiting orders meet the price, at the close the day's orders expire and the equity is noted.
A clock that would go back is `Refused`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

from local.exchange.book import Book, Costs, Order, Refused, Status, Ticket
from local.exchange.sessions import Session, new_york_date, new_york_midnight
from local.exchange.tape import Action, Tape, Trade

Dividends = Literal["ignore", "credit"]


class Venue:
    """The exchange without its wire."""

    def __init__(self, *, tape: Tape, now: datetime, cash: Decimal, costs: Costs, dividends: Dividends = "ignore") -> None:
        self.tape = tape
        self.calendar = tape.calendar
        self.dividends = dividends
        self._costs = costs
        self._moments = tape.moments()
        self._actions: dict[datetime, list[Action]] = {}
        for action in tape.actions:
            self._actions.setdefault(new_york_midnight(action.ex_date), []).append(action)
        self.record: Callable[[Mapping[str, Any]], None] = _forget
        self._closes = {session.close: session for session in self.calendar.sessions}
        self.reset(cash=cash, now=now)

    def reset(self, *, cash: Decimal, now: datetime) -> None:
        """A new account at any moment, earlier ones included."""
        self.calendar.next_close(now)
        self.book = Book(cash=cash, costs=self._costs)
        self.initial_cash = cash
        self.created_at = now
        self._noted: list[tuple[date, Decimal]] = []
        self._turn_to(now)
        self.record({"reset": {"cash": cash, "now": now}})

    def advance(self, now: datetime) -> None:
        """Move the clock to `now`, living through everything on the way."""
        if now < self.now:
            raise Refused(409, 40910000, f"the clock only goes forward: it is {self.now.isoformat()}, was asked for {now.isoformat()}")
        self.calendar.next_close(now)
        first, last = bisect_right(self._moments, self.now), bisect_right(self._moments, now)
        for moment in self._moments[first:last]:
            self._turn_to(moment)
            self._happen()
        self._turn_to(now)
        self.record({"advance": now})

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def equity(self) -> Decimal:
        """Cash and positions at the last trade."""
        return self.book.equity({symbol: self.price(symbol) for symbol in self.book.positions})

    @property
    def last_equity(self) -> tuple[date | None, Decimal]:
        """Equity at the close of the last session before today, and that session; before the first, the initial cash."""
        for day, equity in reversed(self._noted):
            if day < self.today:
                return day, equity
        return None, self.initial_cash

    def last_trade(self, symbol: str) -> Trade | None:
        if symbol not in self._trades:
            self._trades[symbol] = self.tape.last_trade(symbol, self.now)
        return self._trades[symbol]

    def price(self, symbol: str) -> Decimal:
        """The last trade's price; a symbol that has not traded yet is a `LookupError`."""
        trade = self.last_trade(symbol)
        if trade is None:
            raise LookupError(f"{symbol} has not traded by {self.now.isoformat()}")
        return trade.price

    def tradable(self, symbol: str) -> bool:
        return symbol in self.tape.symbols and self.tape.trades_now(symbol, self.now)

    def submit(self, ticket: Ticket) -> Order:
        """Accept the order, and fill it at once while the market is open. Raises `Refused`."""
        if ticket.symbol not in self.tape.symbols:
            raise Refused(422, 42210000, f'asset "{ticket.symbol}" not found')
        if not self.tradable(ticket.symbol):
            raise Refused(422, 42210000, f'asset "{ticket.symbol}" is not active')
        price = self.price(ticket.symbol)
        order = self.book.accept(ticket, price=price, at=self.now, expires_at=self.calendar.next_close(self.now))
        if self._open:
            order = self.book.execute(order.id, price=price, at=self.now)
        self.record({"submit": ticket})
        return order

    def cancel(self, order_id: str) -> Order:
        order = self.book.settle(order_id, Status.CANCELED, at=self.now)
        self.record({"cancel": order_id})
        return order

    def _turn_to(self, now: datetime) -> None:
        self.now = now
        self.today = new_york_date(now)
        self._open = self.calendar.is_open(now)
        self._trades: dict[str, Trade | None] = {}

    def _happen(self) -> None:
        for action in self._actions.get(self.now, ()):
            self._apply(action)
        if self._open:
            self._meet_prices()
        closed = self._closes.get(self.now)
        if closed is not None:
            self._end_day(closed)

    def _apply(self, action: Action) -> None:
        if action.kind == "split":
            price = self.last_trade(action.symbol)
            if price is not None:
                self.book.split(action.symbol, ratio=action.value, price=price.price, at=self.now)
        elif self.dividends == "credit":
            self.book.credit_dividend(action.symbol, amount=action.value)

    def _meet_prices(self) -> None:
        for order in self.book.open_orders:
            if self.tradable(order.ticket.symbol):
                self.book.execute(order.id, price=self.price(order.ticket.symbol), at=self.now)

    def _end_day(self, session: Session) -> None:
        for order in self.book.open_orders:
            if order.expires_at <= self.now:
                self.book.settle(order.id, Status.EXPIRED, at=self.now)
        self._noted = [*self._noted[-1:], (session.date, self.equity)]


def _forget(_command: Mapping[str, Any]) -> None:
    """Without a journal nothing is recorded."""
