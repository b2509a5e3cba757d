"""The account: cash, positions, orders and fills. Pure: prices and times come in, nothing is looked up.

Promise: money is exact. Cash and quantities move under a decimal context that raises on the first digit it would have to round away, so
cash + fills add up to the last digit; only a quantity bought for a notional is floored, to nine decimals. Cash never goes below zero and
nobody sells what is not held: such an order is `Refused` before anything changes, with the vendor's status and code.
Ratios that are only shown (average price, cost basis after a sale) are not money and are rounded at sixty digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Literal
from uuid import uuid5

from local.exchange.money import CEILING, CENT, EXACT, FLOOR, HALF_UP, PRICE_TICK, QUANTUM, RATIOS, SHOWN, plain
from local.exchange.orders import NAMESPACE, Booking, ExchangeFill, ExchangeOrder, ExchangePosition, Refused, Side, Status, Ticket


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
        return cls(fee=EXACT.divide(fee_bps, Decimal(10_000)), slippage=EXACT.divide(adverse, Decimal(10_000)))

    def price(self, side: Side, price: Decimal) -> Decimal:
        """What a trade at the market price `price` is done at."""
        worse = self.slippage if side is Side.BUY else -self.slippage
        return EXACT.multiply(price, EXACT.add(Decimal(1), worse))


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
            promised = (o.rest for o in self._open.values() if o.ticket.symbol == symbol and o.ticket.side is Side.SELL)
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
        status_override: str | None = None,
        replaces: ExchangeOrder | None = None,
    ) -> ExchangeOrder:
        """Take the order on, open; `price` is the market's, for the buying power it needs. Raises `Refused`.

        It takes the place of the open order `replaces`, whose cash and shares it may use.
        """
        if ticket.client_order_id is not None and ticket.client_order_id in self._by_client_id:
            self.duplicates += 1
            raise Refused(422, 40010001, "client_order_id must be unique")
        ticket = self._sized(ticket, price)
        reserved = self.need(ticket, price) if ticket.side is Side.BUY else Decimal(0)
        power = EXACT.add(self.buying_power, replaces.reserved if replaces is not None else Decimal(0))
        if reserved > power:
            raise Refused(403, 40310000, "insufficient buying power", buying_power=plain(power), cost_basis=plain(reserved))
        if ticket.side is Side.SELL:
            self._require_shares(ticket, freed=replaces.rest if replaces is not None else Decimal(0))
        sequence = len(self.orders) + 1
        order_id = self._id(f"order {sequence}")
        client_order_id = ticket.client_order_id or self.next_client_order_id
        order = ExchangeOrder(
            sequence=sequence,
            id=order_id,
            client_order_id=client_order_id,
            ticket=ticket,
            status=Status.ACCEPTED,
            submitted_at=at,
            updated_at=at,
            expires_at=expires_at,
            reserved=reserved,
            status_override=status_override,
            replaces=replaces.id if replaces is not None else None,
        )
        if replaces is not None:
            self.end(replaces.id, Status.REPLACED, at=at, replaced_by=order_id)
        self._by_client_id[client_order_id] = order_id
        self._keep(order)
        return order

    def meets(self, ticket: Ticket, price: Decimal) -> bool:
        """Whether an order would trade at the market price `price`; a limit holds after slippage."""
        if ticket.limit_price is None:
            return True
        done_at = self.done_at(ticket.side, price)
        return done_at <= ticket.limit_price if ticket.side is Side.BUY else done_at >= ticket.limit_price

    def execute(self, order_id: str, *, price: Decimal, at: datetime, quantity: Decimal | None = None) -> ExchangeOrder:
        """Try to fill an open order at the market price `price`: the whole rest, or `quantity` shares, which may be more than the rest.

        A limit that the price after slippage does not meet leaves the order open; a buy that cash no longer covers is rejected, and
        canceled where a part of it was filled before.
        """
        order = self.orders[order_id]
        ticket = order.ticket
        if not order.open or not self.meets(ticket, price):
            return order
        done_at = self.done_at(ticket.side, price)
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
        if cash < 0:
            return self.end(order_id, Status.CANCELED if order.filled_quantity else Status.REJECTED, at=at)
        self.cash = cash
        self._hold(ticket.symbol, ExchangePosition(left, cost))
        fill = ExchangeFill(
            id=self._id(f"fill {len(self.fills) + 1}"),
            order_id=order.id,
            client_order_id=order.client_order_id,
            symbol=ticket.symbol,
            side=ticket.side,
            quantity=traded,
            price=done_at,
            fee=fee,
            at=at,
            total=EXACT.add(order.filled_quantity, traded),
            left=Decimal(0),
        )
        order = self._keep(self._filled(order, fill, whole=quantity is None, price=price))
        self.fills.append(replace(fill, left=self.shares_left(order, price)) if order.open else fill)
        return order

    def _filled(self, order: ExchangeOrder, fill: ExchangeFill, *, whole: bool, price: Decimal) -> ExchangeOrder:
        """The order after `fill`, open while something is left of it."""
        with localcontext(EXACT):
            quantity, amount = order.filled_quantity + fill.quantity, order.filled_amount + fill.quantity * fill.price
        first = not order.filled_quantity
        average = fill.price if first else RATIOS.divide(amount, quantity).quantize(SHOWN, context=RATIOS)
        order = replace(
            order,
            updated_at=fill.at,
            filled_quantity=quantity,
            filled_amount=amount,
            filled_price=average,
            status_override=None,
            reserved=Decimal(0),
        )
        if whole or (order.ticket.quantity is not None and order.rest <= 0):
            return replace(order, status=Status.FILLED, ended_at=fill.at)
        reserved = self.need(order.ticket, price, filled=order) if order.ticket.side is Side.BUY else Decimal(0)
        return replace(order, status=Status.PARTIALLY_FILLED, reserved=reserved)

    def release(self, order_id: str, *, at: datetime) -> ExchangeOrder:
        """An open order shows its status again."""
        return self._keep(replace(self.orders[order_id], status_override=None, updated_at=at))

    def end(self, order_id: str, status: Status, *, at: datetime, replaced_by: str | None = None) -> ExchangeOrder:
        """End an open order with `status`, with what is filled of it; one that has already ended is `Refused`."""
        order = self.orders[order_id]
        if not order.open:
            raise Refused(422, 42210000, f'order is already in "{order.status}" state')
        ended = replace(
            order, status=status, updated_at=at, ended_at=at, reserved=Decimal(0), status_override=None, replaced_by=replaced_by
        )
        return self._keep(ended)

    def split(self, symbol: str, *, ratio: Decimal, price: Decimal, at: datetime) -> None:
        """`ratio` new shares for each old one; open orders of the symbol are canceled. `price` is that of a new share.

        Shares stay on the grid of nine decimals: what the ratio leaves beyond it is paid in cash at `price`, as brokers do.
        """
        for order in self.open_orders:
            if order.ticket.symbol == symbol:
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
            paid = held * amount
            paid = paid.quantize(CENT, context=HALF_UP) if self.rounded else paid
            self.cash += paid
        self._book("DIV", symbol, quantity=held, amount=paid, at=at)

    def _book(self, kind: Literal["SPLIT", "DIV"], symbol: str, *, quantity: Decimal, amount: Decimal, at: datetime) -> None:
        booking_id = self._id(f"booking {len(self.bookings) + 1}")
        self.bookings.append(Booking(id=booking_id, kind=kind, symbol=symbol, quantity=quantity, amount=amount, at=at))

    def _sized(self, ticket: Ticket, price: Decimal) -> Ticket:
        """A sale for a notional becomes a sale of shares, so that they can be promised; a buy stays as asked until it fills."""
        if ticket.side is Side.BUY or ticket.quantity is not None:
            return ticket
        return replace(ticket, quantity=self._shares_for(ticket, self.done_at(ticket.side, price)))

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
                worst = ticket.limit_price if ticket.limit_price is not None else self.done_at(ticket.side, price)
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
