"""One account at one clock: what happens when time moves and when an order arrives. Pure and deterministic: times are the clock's.

Promise: however the way from one moment to the next is cut into steps, the books at its end are the same. Between two moments of the
clock every moment at which something can happen is visited in order: at the start of an ex-date shares split and dividends are paid, at
the open and as recorded minutes end waiting orders meet the price, at the close the day's orders expire and the equity is noted. With
`fills` "answer" an order meets the price within `submit`; with "after" it waits, new, until `meet` or the next command, at the clock of its
submission: the books are the same, but for what is seen in between. A clock that would go back is `Refused`. With a fault plan
`fault_sampler` decides, `order_injector` injects and `stale_view` shows; without a plan they change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import uuid5

from local.exchange.account.preferences import Preferences
from local.exchange.costs import TradingCosts
from local.exchange.faults.order_injector import OrderFaultInjector
from local.exchange.faults.plan import AccountReset, FaultPlan
from local.exchange.faults.sampler import FaultSampler
from local.exchange.faults.stale_view import StaleView
from local.exchange.invented_news import InventedHeadline
from local.exchange.orders import NAMESPACE, Changes, ExchangeOrder, ExchangePosition, Refused, Status, Ticket, TimeInForce
from local.exchange.recorded_market import Action, RecordedMarket, RecordedTrade
from local.exchange.rules.refusals import require_exits_apart, require_least_cost, require_long
from local.exchange.rules.replacing import replacement
from local.exchange.rules.time_in_force import AT_ONCE, expiry, require_timely
from local.exchange.sessions import ExchangeSession, new_york_date, new_york_midnight
from local.exchange.streams.observing import ObservedBook, VenueObserver

Dividends = Literal["ignore", "credit"]
Fills = Literal["answer", "after"]
NEVER = datetime.max.replace(tzinfo=UTC)


class Venue:
    """The exchange without its wire."""

    def __init__(
        self,
        *,
        market: RecordedMarket,
        now: datetime,
        cash: Decimal,
        costs: TradingCosts,
        dividends: Dividends = "ignore",
        news: Sequence[InventedHeadline] = (),
        fills: Fills = "answer",
    ) -> None:
        """`news` by time."""
        self.market = market
        self.news = news
        self.calendar = market.calendar
        self.dividends = dividends
        self.fills = fills
        self._costs = costs
        self._actions: dict[datetime, list[Action]] = {}
        for action in market.actions:
            self._actions.setdefault(new_york_midnight(action.ex_date), []).append(action)
        self.record: Callable[[Mapping[str, Any]], None] = _forget
        self._waiting: list[str] = []
        self._closes = {session.close: session for session in self.calendar.sessions}
        self.plan = FaultPlan()
        self.observer: VenueObserver | None = None
        self.reset(cash=cash, now=now)

    def reset(self, *, cash: Decimal, now: datetime) -> None:
        """A new account at any moment, earlier ones included."""
        self.calendar.next_close(now)
        self.fault_sampler = FaultSampler(record=lambda injected: self.record({"injected_fault": asdict(injected)}))
        self.order_injector, self.stale_view = OrderFaultInjector(self.fault_sampler), StaleView(self.fault_sampler)
        self.initial_cash = cash
        self.accounts = 0
        self.accepted: dict[str, int] = {}
        self._open_account(now)
        self._turn_to(now)
        self._use_plan(self.plan)
        self.record({"reset": {"cash": cash, "now": now}})

    def use_faults(self, plan: FaultPlan) -> None:
        """Inject what `plan` says from now on, instead of the plan before. Raises `Refused`."""
        self.meet()
        reset = plan.faults.account_reset
        if reset is not None and reset.at <= self.now:
            raise Refused(400, 40010000, f"account_reset.at must lie after the clock, {self.now.isoformat()}, was {reset.at.isoformat()}")
        self._use_plan(plan)
        self.record({"faults": plan.document()})

    def observe(self, observer: VenueObserver) -> None:
        self.observer = self.book.observer = observer

    def due(self, now: datetime) -> bool:
        """Whether something can happen by `now`."""
        return self._next_moment() <= now

    def advance(self, now: datetime) -> None:
        """Move the clock to `now`, living through everything on the way; a move that cannot be recorded is not made."""
        if now < self.now:
            raise Refused(409, 40910000, f"the clock only goes forward: it is {self.now.isoformat()}, was asked for {now.isoformat()}")
        self.calendar.next_close(now)
        self.meet()
        self.record({"advance": now})
        while (moment := self._next_moment()) <= now:
            self._turn_to(moment)
            self._happen()
        self._turn_to(now)

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
        for day, equity in reversed(self.closes):
            if day < self.today:
                return day, equity
        return None, self.initial_cash

    def last_trade(self, symbol: str) -> RecordedTrade | None:
        if symbol not in self._trades:
            self._trades[symbol] = self.market.last_trade(symbol, self.now)
        return self._trades[symbol]

    def price(self, symbol: str) -> Decimal:
        """The last trade's price; a symbol that has not traded yet is a `LookupError`."""
        trade = self.last_trade(symbol)
        if trade is None:
            raise LookupError(f"{symbol} has not traded by {self.now.isoformat()}")
        return trade.price

    def tradable(self, symbol: str) -> bool:
        return self._trades_today(symbol) and not self.order_injector.halted(symbol, self.today)

    def fractionable(self, symbol: str) -> bool:
        return self.order_injector.fractionable(symbol)

    @property
    def faulted(self) -> bool:
        """Whether a plan is in force, or was."""
        return not self.fault_sampler.inactive or bool(self.fault_sampler.counts)

    @property
    def account_id(self) -> str:
        return str(uuid5(NAMESPACE, f"{self._account_name}account"))

    @property
    def positions(self) -> dict[str, ExchangePosition]:
        """Positions as they are shown."""
        return self.stale_view.positions(self.book, self.now)

    def available(self, symbol: str) -> Decimal:
        """Shares that are shown as free to be sold."""
        return self.stale_view.available(self.book, symbol, self.now)

    def orders(self, status: str) -> list[ExchangeOrder]:
        """Orders that are shown as "open" or "closed", or "all", oldest first."""
        clear = self.stale_view.clear(self.now)
        if status == "open" and clear:
            return self.book.open_orders
        shown: Iterable[ExchangeOrder] = self.book.orders.values()
        if status == "open":
            since = self.stale_view.unsure_since(self.now)
            shown = (order for order in shown if order.ended_at is None or order.ended_at > since)
        if not clear:
            shown = self.stale_view.orders(shown, self.book, self.now)
        return [order for order in shown if status == "all" or order.open == (status == "open")]

    def order(self, order_id: str) -> ExchangeOrder | None:
        """An order by its id, as it is shown."""
        order = self.book.orders.get(order_id)
        return self.stale_view.order(order, self.book, self.now) if order is not None else None

    def order_by_client_id(self, client_order_id: str) -> ExchangeOrder | None:
        """An order by its client's id, as it is shown; None also while it is not."""
        order = self.book.by_client_id(client_order_id)
        if order is None or not self.stale_view.visible(order, self.now):
            return None
        return self.stale_view.order(order, self.book, self.now)

    def legs(self, order: ExchangeOrder) -> list[ExchangeOrder]:
        """The legs of an order, as they are shown."""
        shown = (self.order(leg) for leg in self.book.links.legs(order.id))
        return [leg for leg in shown if leg is not None]

    @property
    def waits(self) -> bool:
        """Whether an order was answered that has not met the price yet."""
        return bool(self._waiting)

    def meet(self) -> None:
        """The orders that were answered and have not met the price do so, at the clock as it stands; what cannot be recorded does not."""
        if not self._waiting:
            return
        self.record({"meet": len(self._waiting)})
        waiting, self._waiting = self._waiting, []
        for order_id in waiting:
            self._meet(order_id)

    def submit(self, ticket: Ticket) -> ExchangeOrder:
        """Accept the order; while the market is open it meets the price, as `fills` says. Raises `Refused`."""
        self.meet()
        if ticket.symbol not in self.market.symbols:
            raise Refused(422, 42210000, f'asset "{ticket.symbol}" not found')
        if not self._trades_today(ticket.symbol):
            raise Refused(422, 42210000, f'asset "{ticket.symbol}" is not active')
        self.preferences.refuse(ticket)
        require_timely(ticket.time_in_force, now=self.now, calendar=self.calendar)
        require_long(ticket, self.book.positions.get(ticket.symbol))
        price = self.price(ticket.symbol)
        self.order_injector.refuse(ticket, book=self.book, price=price, day=self.today)
        require_least_cost(ticket, price, self.book.positions.get(ticket.symbol))
        require_exits_apart(ticket, price)
        return self.take(ticket)

    def replace(self, order_id: str, changes: Changes) -> ExchangeOrder:
        """Put another order in the place of an open one. Raises `Refused`."""
        self.meet()
        order = self.book.orders[order_id]
        ticket = replacement(order, changes, live=self.book.live(order))
        require_timely(ticket.time_in_force, now=self.now, calendar=self.calendar)
        self.order_injector.refuse_replacement(ticket, book=self.book)
        return self.take(ticket, replaces=order_id)

    def take(self, ticket: Ticket, *, replaces: str | None = None) -> ExchangeOrder:
        """`submit` for an order that no rule and no fault refuses, and `replace`; a journal's orders are past that."""
        self.meet()
        named = replace(ticket, client_order_id=ticket.client_order_id or self.book.next_client_order_id)
        at_once = ticket.time_in_force in AT_ONCE
        override = self.order_injector.status_override(named) if not at_once else None
        price, expires_at = self.price(ticket.symbol), expiry(ticket.time_in_force, now=self.now, calendar=self.calendar)
        replaced = self.book.orders[replaces] if replaces is not None else None
        order = self.book.accept(
            named,
            price=price,
            at=self.now,
            expires_at=expires_at,
            routed=self._open,
            status_override=override,
            replaces=replaced,
        )
        self.accepted[order.client_order_id] = self.accepted.get(order.client_order_id, 0) + 1
        self.stale_view.accepted(order)
        if override is not None:
            self.order_injector.hold(order, now=self.now)
        if self._open and ticket.time_in_force is not TimeInForce.CLS:
            if self.fills == "after":
                self._waiting.append(order.id)
            else:
                order = self._meet(order.id)
        self.record({"submit": ticket} if replaces is None else {"submit": ticket, "replaces": replaces})
        return order

    def cancel(self, order_id: str) -> ExchangeOrder:
        self.meet()
        order = self.book.end(order_id, Status.CANCELED, at=self.now)
        self.record({"cancel": order_id})
        return order

    def prefer(self, preferences: Preferences) -> None:
        """Configurations and watchlists from now on."""
        self.preferences = preferences
        self.record({"preferences": preferences.document()})

    def _use_plan(self, plan: FaultPlan) -> None:
        self.plan = plan
        self.keys_revoked = False
        self.fault_sampler.use(plan)
        self.book.rounded = plan.faults.vendor_rounding is not None
        reset = plan.faults.account_reset
        if reset is not None and reset.at > self.now:
            self.order_injector.expect(reset.at)

    def _open_account(self, now: datetime) -> None:
        self._account_name = f"{self.accounts} " if self.accounts else ""
        self.book = ObservedBook(cash=self.initial_cash, costs=self._costs, name=self._account_name)
        self.book.rounded = self.plan.faults.vendor_rounding is not None
        self._waiting = []
        self.book.observer = self.observer
        self.created_at = now
        self.preferences = Preferences()
        self.closes: list[tuple[date, Decimal]] = []

    def _replace_account(self, reset: AccountReset) -> None:
        """The vendor's reset: a new account with the cash of the first, and nothing in it."""
        self.keys_revoked = reset.revokes_keys
        self.fault_sampler.counts["account_reset"] += 1
        self.accounts += 1
        self.order_injector.forget()
        self.stale_view.forget()
        self._open_account(self.now)

    def _next_moment(self) -> datetime:
        """The next moment at which something can happen: a recorded one, or one that a fault has brought about."""
        recorded = self.market.next_moment(self.now) or NEVER
        return min(recorded, self.order_injector.due[0]) if self.order_injector.due else recorded

    def _turn_to(self, now: datetime) -> None:
        self.order_injector.clock_moved(now)
        self.now = now
        self.today = new_york_date(now)
        self._open = self.calendar.is_open(now)
        self._trades: dict[str, RecordedTrade | None] = {}
        if self.observer is not None:
            self.observer.clock_moved(now)

    def _trades_today(self, symbol: str) -> bool:
        return symbol in self.market.symbols and self.market.trades_now(symbol, self.now)

    def _happen(self) -> None:
        reset = self.plan.faults.account_reset
        if reset is not None and reset.at == self.now:
            self._replace_account(reset)
        for action in self._actions.get(self.now, ()):
            self._apply(action)
        for order_id in self.order_injector.released(self.now):
            if self.book.orders[order_id].open:
                self.book.release(order_id, at=self.now)
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
                self.stale_view.split(action.symbol)
        elif self.dividends == "credit":
            self.book.credit_dividend(action.symbol, amount=action.value, at=self.now)

    def _meet_prices(self) -> None:
        for order in self.book.open_orders:
            self.book.route(order.id, at=self.now)
            if order.ticket.time_in_force is not TimeInForce.CLS and self.tradable(order.ticket.symbol):
                self._fill(order.id)
        for order in self.book.open_orders:
            if order.ticket.time_in_force is TimeInForce.OPG:
                self.book.end(order.id, Status.CANCELED, at=self.now)

    def _meet(self, order_id: str) -> ExchangeOrder:
        """An order that has just come meets the price, and so do its legs if that fills it."""
        order = self._fill(order_id)
        for leg in self.book.links.legs(order_id):
            self._fill(leg)
        if order.open and order.ticket.time_in_force in AT_ONCE:
            self.book.end(order_id, Status.CANCELED, at=self.now)
        return self.book.orders[order_id]

    def _fill(self, order_id: str) -> ExchangeOrder:
        """Fill what can be filled now of an order."""
        order = self.book.orders[order_id]
        if not self.book.live(order) or self.order_injector.holds(order, self.now):
            return order
        order = self.book.observe(order_id, self.price(order.ticket.symbol), at=self.now)
        price = self.order_injector.price(order, self.price(order.ticket.symbol))
        if not self.book.meets(order, price):
            return order
        quantity = self.order_injector.quantity(order, book=self.book, price=price, now=self.now)
        if quantity == 0 or (quantity is not None and not self._may_part(order, quantity, price)):
            return order
        before, fills, roundings = self.book.positions.get(order.ticket.symbol), len(self.book.fills), self.book.roundings
        order = self.book.execute(order.id, price=price, at=self.now, quantity=quantity)
        if len(self.book.fills) > fills:
            self.stale_view.traded(order, before=before, now=self.now)
        if self.book.roundings > roundings:
            self.fault_sampler.counts["vendor_rounding"] += 1
        return order

    def _may_part(self, order: ExchangeOrder, quantity: Decimal, price: Decimal) -> bool:
        return order.ticket.time_in_force is not TimeInForce.FOK or quantity >= self.book.shares_left(order, price)

    def _end_day(self, session: ExchangeSession) -> None:
        for order in self.book.open_orders:
            if order.ticket.time_in_force is TimeInForce.CLS and order.expires_at <= self.now and self.tradable(order.ticket.symbol):
                self._fill(order.id)
        for order in self.book.open_orders:
            if order.expires_at <= self.now and self.book.orders[order.id].open:
                missed = order.ticket.time_in_force is TimeInForce.CLS
                self.book.end(order.id, Status.CANCELED if missed else self.order_injector.ending(order), at=self.now)
        self.closes.append((session.date, self.equity))


def _forget(_command: Mapping[str, Any]) -> None:
    """Without a journal nothing is recorded."""
