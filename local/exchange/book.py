"""The account: cash, positions, orders and fills. Pure: prices and times come in, nothing is looked up.

Promise: money is exact. Cash and quantities move under a decimal context that raises on the first digit it would have to round away, so
cash + fills add up to the last digit; only a quantity bought for a notional is floored, to nine decimals. Cash never goes below zero and
nobody sells what is not held: such an order is `Refused` before anything changes, with the vendor's status and code; so is one whose
amount has too many digits, and one that comes to have too many while it waits is rejected.
Ratios that are only shown (average price, cost basis after a sale) are not money and are rounded at sixty digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal, Inexact, localcontext
from typing import Literal
from uuid import uuid5

from local.exchange.costs import TradingCosts
from local.exchange.money import CEILING, CENT, EXACT, FLOOR, HALF_UP, PRICE_TICK, QUANTUM, RATIOS, plain
from local.exchange.orders import NAMESPACE, Booking, ExchangeFill, ExchangeOrder, ExchangePosition, Refused, Side, Status, Ticket
from local.exchange.rules.linked import LinkedOrders
from local.exchange.rules.splits import after_split
from local.exchange.rules.stops import STOPS, dearest, observed, seen_first


class AccountBook:
    """One cash account without margin or short sales.

    `name` tells the ids of one account's orders and fills from another's. A `rounded` book does as the vendor does: it trades at prices
    of four decimals and moves cash in cents, and what the cents take is part of the fill's fee.
    """

    def __init__(self, *, cash: Decimal, costs: TradingCosts, name: str = "") -> None:
        if not cash.is_finite() or cash < 0:
            raise ValueError(f"cash must be a finite number of at least 0, was {cash}")
        self.cash = cash
        self.costs = costs
        self.positions: dict[str, ExchangePosition] = {}
        self.orders: dict[str, ExchangeOrder] = {}
        self.fills: list[ExchangeFill] = []
        self.bookings: list[Booking] = []
        self.duplicates = 0
        self.refused = 0
        self.rounded = False
        self.roundings = 0
        self.history: dict[str, list[ExchangeOrder]] = {}
        self.links = LinkedOrders()
        self._name = name
        self._by_client_id: dict[str, str] = {}
        self._open: dict[str, ExchangeOrder] = {}

    @property
    def open_orders(self) -> list[ExchangeOrder]:
        """Accepted orders that wait, oldest first."""
        return list(self._open.values())

    @property
    def buying_power(self) -> Decimal:
        """Cash less what open buys keep."""
        with localcontext(EXACT):
            return self.cash - sum((order.reserved for order in self._open.values()), Decimal(0))

    @property
    def next_client_order_id(self) -> str:
        """The id that an order gets which brings none."""
        return self._id(f"client order {len(self.orders) + 1}")

    def by_client_id(self, client_order_id: str) -> ExchangeOrder | None:
        order_id = self._by_client_id.get(client_order_id)
        return self.orders[order_id] if order_id is not None else None

    def available(self, symbol: str) -> Decimal:
        """Shares of `symbol` held and not promised to an open sale."""
        with localcontext(EXACT):
            sales = (o for o in self._open.values() if o.ticket.symbol == symbol and o.ticket.side is Side.SELL)
            promised = (order.rest for order in sales if order.status is not Status.HELD)
            return self._held(symbol) - sum(promised, Decimal(0))

    def equity(self, prices: Mapping[str, Decimal]) -> Decimal:
        """Cash and positions at `prices`; a position without a price is a `KeyError`, never worth nothing."""
        with localcontext(RATIOS):
            return self.cash + sum((held.quantity * prices[symbol] for symbol, held in self.positions.items()), Decimal(0))

    def accept(
        self,
        ticket: Ticket,
        *,
        price: Decimal,
        at: datetime,
        expires_at: datetime,
        routed: bool = False,
        status_override: str | None = None,
        replaces: ExchangeOrder | None = None,
    ) -> ExchangeOrder:
        """Take the order on, open, with its legs; `price` is the market's, for the buying power it needs. Raises `Refused`.

        It takes the place of the open order `replaces`, whose cash and shares it may use. `routed`: it is at the market at once.
        """
        if ticket.client_order_id is not None and ticket.client_order_id in self._by_client_id:
            self.duplicates += 1
            raise Refused(422, 40010001, "client_order_id must be unique")
        held = replaces is not None and replaces.status is Status.HELD
        try:
            ticket = self._sized(ticket, price)
            reserved = self._require_power(ticket, price, freed=replaces.reserved if replaces is not None else Decimal(0))
        except Inexact as error:
            raise Refused(422, 40010001, "qty or price has too many digits: the amount cannot be exact") from error
        if ticket.side is Side.SELL and not held:
            self._require_shares(ticket, freed=replaces.rest if replaces is not None else Decimal(0))
        sequence = len(self.orders) + 1
        order_id = self._id(f"order {sequence}")
        client_order_id = ticket.client_order_id or self.next_client_order_id
        order = ExchangeOrder(
            sequence=sequence,
            id=order_id,
            client_order_id=client_order_id,
            ticket=ticket,
            status=Status.HELD if held else Status.NEW if routed else Status.ACCEPTED,
            submitted_at=at,
            updated_at=at,
            expires_at=expires_at,
            reserved=reserved,
            status_override=status_override,
            replaces=replaces.id if replaces is not None else None,
            high_water=seen_first(ticket, price) if routed else None,
        )
        if replaces is not None:
            self.links.replace(replaces.id, order_id)
            self.end(replaces.id, Status.REPLACED, at=at, replaced_by=order_id)
        self._by_client_id[client_order_id] = order_id
        self._keep(order)
        self._hold_legs(order)
        return order

    def _hold_legs(self, parent: ExchangeOrder) -> None:
        """Keep the legs that came with an order, held until it is their turn."""
        legs: list[str] = []
        for ticket in parent.ticket.legs:
            sequence, name = len(self.orders) + 1, self.next_client_order_id
            leg = replace(parent, sequence=sequence, id=self._id(f"order {sequence}"), client_order_id=name, ticket=ticket)
            legs.append(self._keep(replace(leg, status=Status.HELD, reserved=Decimal(0), status_override=None)).id)
            self._by_client_id[name] = legs[-1]
        if legs:
            self.links.link(parent.id, tuple(legs))

    def route(self, order_id: str, *, at: datetime) -> ExchangeOrder:
        """An accepted order comes to the market: it is new."""
        order = self.orders[order_id]
        return self._keep(replace(order, status=Status.NEW, updated_at=at)) if order.status is Status.ACCEPTED else order

    def live(self, order: ExchangeOrder) -> bool:
        """Whether an open order can meet a price: a leg cannot while its entry is not filled."""
        if order.status is not Status.HELD:
            return order.open
        parent = self.orders[self.links.parent(order.id) or order.id]
        return parent.status is Status.FILLED if parent.ticket.side is Side.BUY else parent.open

    def observe(self, order_id: str, price: Decimal, *, at: datetime) -> ExchangeOrder:
        """A live order after the market traded at `price`; a held stop that this triggers takes the shares of the other leg."""
        before = self.orders[order_id]
        order = observed(before, price)
        if order is before:
            return order
        if order.status is Status.HELD and order.triggered:
            for other in self.links.others(order_id):
                if self.orders[other].open:
                    self._ended(self.orders[other], Status.CANCELED, at=at)
            return self._keep(replace(order, status=Status.NEW, updated_at=at))
        # What a stop has seen is no news of the order.
        self.orders[order_id] = self._open[order_id] = order
        return order

    def meets(self, order: ExchangeOrder, price: Decimal) -> bool:
        """Whether an order would trade at the market price `price`; a limit holds after slippage."""
        ticket = order.ticket
        if not self.live(order) or (ticket.kind in STOPS and not order.triggered):
            return False
        if ticket.limit_price is None:
            return True
        done_at = self.done_at(ticket.side, price)
        return done_at <= ticket.limit_price if ticket.side is Side.BUY else done_at >= ticket.limit_price

    def execute(self, order_id: str, *, price: Decimal, at: datetime, quantity: Decimal | None = None) -> ExchangeOrder:
        """Try to fill an open order at the market price `price`: the whole rest, or `quantity` shares, which may be more than the rest.

        A limit that the price after slippage does not meet leaves the order open; a buy that cash no longer covers is rejected, as is an
        amount that cannot be exact or buys nothing, and canceled where a part of it was filled before.
        """
        before = order = self.orders[order_id]
        ticket = order.ticket
        if not self.meets(order, price):
            return order
        done_at = self.done_at(ticket.side, price)
        try:
            with localcontext(EXACT):
                traded = quantity if quantity is not None else self.shares_left(order, price)
                amount = traded * done_at
                cash, fee = self._cash_after(ticket.side, amount)
                held = self.positions.get(ticket.symbol, ExchangePosition(Decimal(0), Decimal(0)))
                if ticket.side is Side.BUY:
                    left, cost = held.quantity + traded, held.cost + amount
                else:
                    left = held.quantity - traded
                    cost = RATIOS.multiply(held.cost, RATIOS.divide(left, held.quantity))
                order = order.filled(traded, price=done_at, at=at)
                whole = quantity is None or (ticket.quantity is not None and order.rest <= 0)
                order = replace(order, status=Status.FILLED, ended_at=at) if whole else self._left_open(order, price)
        except (Inexact, Refused):
            cash = Decimal(-1)
        if cash < 0:
            return self.end(order_id, Status.CANCELED if before.filled_quantity else Status.REJECTED, at=at)
        self.cash = cash
        self._hold(ticket.symbol, ExchangePosition(left, cost))
        rest = self.shares_left(order, price) if order.open else Decimal(0)
        self.fills.append(
            ExchangeFill.of(order, name=self._id(f"fill {len(self.fills) + 1}"), quantity=traded, price=done_at, fee=fee, left=rest)
        )
        self._keep(order)
        self._move_links(order, at=at)
        return order

    def _move_links(self, order: ExchangeOrder, *, at: datetime) -> None:
        """What a fill means to the group: after an entry, a buy, the legs have their turn; an exit, a sale, cuts or cancels the other."""
        entry = order.ticket.side is Side.BUY
        others = [self.orders[one] for one in self.links.others(order.id) if self.orders[one].open]
        if order.status is not Status.FILLED:
            for other in others if not entry else ():
                self._keep(replace(other, ticket=replace(other.ticket, quantity=order.rest), updated_at=at))
        elif not entry:
            for other in others:
                self._ended(other, Status.CANCELED, at=at)
        elif others and self.available(order.ticket.symbol) < others[0].rest:
            self.end(others[0].id, Status.CANCELED, at=at)
        elif others:
            self._keep(replace(others[0], status=Status.NEW, updated_at=at))

    def _left_open(self, order: ExchangeOrder, price: Decimal) -> ExchangeOrder:
        reserved = self.need(order.ticket, price, filled=order) if order.ticket.side is Side.BUY else Decimal(0)
        return replace(order, status=Status.PARTIALLY_FILLED, reserved=reserved)

    def release(self, order_id: str, *, at: datetime) -> ExchangeOrder:
        """An open order shows its status again."""
        return self._keep(replace(self.orders[order_id], status_override=None, updated_at=at))

    def end(self, order_id: str, status: Status, *, at: datetime, replaced_by: str | None = None) -> ExchangeOrder:
        """End an open order with `status`, with what is filled of it, and its group with it; one that has already ended is `Refused`."""
        order = self.orders[order_id]
        if not order.open:
            raise Refused(422, 42210000, f'order is already in "{order.status}" state')
        ended = self._ended(order, status, at=at, replaced_by=replaced_by)
        for other in self.links.others(order_id) if status is not Status.REPLACED else ():
            left = self.orders[other]
            expires = status not in (Status.CANCELED, Status.REJECTED) and left.expires_at <= at
            if left.open:
                self._ended(left, Status.EXPIRED if expires else Status.CANCELED, at=at)
        return ended

    def _ended(self, order: ExchangeOrder, status: Status, *, at: datetime, replaced_by: str | None = None) -> ExchangeOrder:
        ended = replace(order, status=status, updated_at=at, ended_at=at, reserved=Decimal(0), status_override=None)
        return self._keep(replace(ended, replaced_by=replaced_by))

    def split(self, symbol: str, *, ratio: Decimal, price: Decimal, at: datetime) -> None:
        """`ratio` new shares for each old one; open orders of the symbol are canceled or adjusted. `price` is that of a new share.

        Shares stay on the grid of nine decimals: what the ratio leaves beyond it is paid in cash at `price`, as brokers do.
        """
        for order in [one for one in self.open_orders if one.ticket.symbol == symbol]:
            ticket = after_split(order, ratio=ratio, price=price)
            if ticket is not None:
                reserved = self.need(ticket, price) if ticket.side is Side.BUY else Decimal(0)
                self._keep(replace(order, ticket=ticket, reserved=reserved, updated_at=at))
            elif self.orders[order.id].open:
                self.end(order.id, Status.CANCELED, at=at)
        held = self.positions.get(symbol)
        if held is None:
            return
        with localcontext(EXACT):
            due = held.quantity * ratio
            quantity = due.quantize(QUANTUM, context=FLOOR)
            left_over = RATIOS.multiply(due - quantity, price).quantize(CENT if self.rounded else Decimal("1e-18"), context=FLOOR)
            self.cash += left_over
            self._book("SPLIT", symbol, quantity=quantity - held.quantity, amount=left_over, at=at)
        self._hold(symbol, ExchangePosition(quantity, held.cost))

    def credit_dividend(self, symbol: str, *, amount: Decimal, at: datetime) -> None:
        """Pay `amount` US dollars for each share held."""
        held = self._held(symbol)
        if not held:
            return
        with localcontext(EXACT):
            paid = (held * amount).quantize(CENT, context=HALF_UP) if self.rounded else held * amount
            self.cash += paid
        self._book("DIV", symbol, quantity=held, amount=paid, at=at)

    def _book(self, kind: Literal["SPLIT", "DIV"], symbol: str, *, quantity: Decimal, amount: Decimal, at: datetime) -> None:
        booking_id = self._id(f"booking {len(self.bookings) + 1}")
        self.bookings.append(Booking(id=booking_id, kind=kind, symbol=symbol, quantity=quantity, amount=amount, at=at))

    def _sized(self, ticket: Ticket, price: Decimal) -> Ticket:
        """A sale for a notional becomes a sale of shares, so that they can be promised; a buy stays as asked until it fills."""
        if ticket.side is Side.BUY or ticket.quantity is not None:
            return ticket
        return replace(ticket, quantity=self._shares_for(ticket, ticket.limit_price or self.done_at(ticket.side, price)))

    def done_at(self, side: Side, price: Decimal) -> Decimal:
        """What a trade at the market price `price` is done at."""
        done_at = self.costs.price(side, price)
        return done_at.quantize(PRICE_TICK, context=HALF_UP) if self.rounded else done_at

    def need(self, ticket: Ticket, price: Decimal, *, filled: ExchangeOrder | None = None) -> Decimal:
        """The cash that a buy asks for at the market price `price`, less what is `filled` of it."""
        with localcontext(EXACT):
            if ticket.quantity is None:
                assert ticket.notional is not None
                amount = ticket.notional - (filled.filled_amount if filled is not None else 0)
            else:
                worst = ticket.limit_price if ticket.limit_price is not None else self.done_at(ticket.side, dearest(ticket, price))
                amount = (ticket.quantity if filled is None else filled.rest) * worst
            need = amount * (1 + self.costs.fee)
            return need.quantize(CENT, context=CEILING) if self.rounded else need

    def _cash_after(self, side: Side, amount: Decimal) -> tuple[Decimal, Decimal]:
        """Cash after a trade of `amount`, and the fee in it."""
        fee = amount * self.costs.fee
        due = amount + fee if side is Side.BUY else amount - fee
        if self.rounded:
            cents = due.quantize(CENT, context=CEILING if side is Side.BUY else FLOOR)
            fee += abs(cents - due)
            self.roundings += cents != due
            due = cents
        return (self.cash - due if side is Side.BUY else self.cash + due), fee

    def shares_left(self, order: ExchangeOrder, price: Decimal) -> Decimal:
        """Shares that are not filled yet; of an order for a notional, at the market price `price`."""
        if order.ticket.quantity is not None:
            return order.rest
        return self._shares_for(order.ticket, self.done_at(order.ticket.side, price), less=order.filled_amount)

    def _shares_for(self, ticket: Ticket, price: Decimal, *, less: Decimal = Decimal(0)) -> Decimal:
        assert ticket.notional is not None
        quantity = FLOOR.divide(EXACT.subtract(ticket.notional, less), price).quantize(QUANTUM, context=FLOOR)
        if quantity <= 0:
            raise Refused(422, 40010001, f"notional must buy at least {QUANTUM} of a share, was {ticket.notional}")
        return quantity

    def _require_power(self, ticket: Ticket, price: Decimal, *, freed: Decimal) -> Decimal:
        """The cash that the order keeps while it is open. Raises `Refused`."""
        power = EXACT.add(self.buying_power, freed)
        reserved = self.need(ticket, price) if ticket.side is Side.BUY else Decimal(0)
        if reserved > power:
            raise Refused(403, 40310000, "insufficient buying power", buying_power=plain(power), cost_basis=plain(reserved))
        EXACT.subtract(power, reserved)
        return reserved

    def _require_shares(self, ticket: Ticket, *, freed: Decimal) -> None:
        available, held = EXACT.add(self.available(ticket.symbol), freed), self._held(ticket.symbol)
        assert ticket.quantity is not None
        if ticket.quantity > available:
            raise Refused(
                403,
                40310000,
                f"insufficient qty available for order (requested: {plain(ticket.quantity)}, available: {plain(available)})",
                symbol=ticket.symbol,
                available=plain(available),
                existing_qty=plain(held),
                held_for_orders=plain(EXACT.subtract(held, available)),
            )

    def _held(self, symbol: str) -> Decimal:
        position = self.positions.get(symbol)
        return position.quantity if position is not None else Decimal(0)

    def _hold(self, symbol: str, position: ExchangePosition) -> None:
        if position.quantity == 0:
            self.positions.pop(symbol, None)
        else:
            self.positions[symbol] = position

    def _keep(self, order: ExchangeOrder) -> ExchangeOrder:
        self.orders[order.id] = order
        self.history.setdefault(order.id, []).append(order)
        if order.open:
            self._open[order.id] = order
        else:
            self._open.pop(order.id, None)
        return order

    def _id(self, what: str) -> str:
        return str(uuid5(NAMESPACE, f"{self._name}{what}"))
