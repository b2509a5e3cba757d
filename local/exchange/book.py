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
from decimal import ROUND_FLOOR, Context, Decimal, Inexact, localcontext
from enum import StrEnum
from uuid import UUID, uuid5

EXACT = Context(prec=100, traps=[Inexact])
RATIOS = Context(prec=60)
FLOOR = Context(prec=60, rounding=ROUND_FLOOR)
QUANTUM = Decimal("1e-9")
NAMESPACE = UUID("6f8a4f5e-3a52-5b1e-9c1c-7b1d4d1d6a52")


def plain(number: Decimal) -> str:
    """Every digit, without an exponent or trailing zeros."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class Refused(Exception):  # noqa: N818 the vendor's word for it
    """The request is turned down for good: HTTP `status`, the vendor's `code` and `message`, and the numbers behind it."""

    def __init__(self, status: int, code: int, message: str, **details: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.details = status, code, message, details


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


class Kind(StrEnum):
    MARKET = "market"
    LIMIT = "limit"


class Status(StrEnum):
    ACCEPTED = "accepted"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
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
    ) -> Costs:
        """The costs of the settings, key by key."""
        if impact or max_volume_share:
            raise ValueError(f"impact and max_volume_share must be 0, an order fills whole here; was {impact} and {max_volume_share}")
        adverse = EXACT.add(slippage_bps, half_spread_bps)
        return cls(fee=EXACT.divide(fee_bps, Decimal(10_000)), slippage=EXACT.divide(adverse, Decimal(10_000)))

    def price(self, side: Side, price: Decimal) -> Decimal:
        """What a trade at the market price `price` is done at."""
        worse = self.slippage if side is Side.BUY else -self.slippage
        return EXACT.multiply(price, EXACT.add(Decimal(1), worse))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """An order as asked for; exactly one of `quantity` (shares) and `notional` (US dollars) is given."""

    symbol: str
    side: Side
    kind: Kind = Kind.MARKET
    quantity: Decimal | None = None
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    client_order_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One state of an order. `reserved` is the cash that an open buy keeps; `settled_at` is when it filled or ended."""

    sequence: int
    id: str
    client_order_id: str
    ticket: Ticket
    status: Status
    submitted_at: datetime
    expires_at: datetime
    updated_at: datetime
    reserved: Decimal = Decimal(0)
    filled_quantity: Decimal = Decimal(0)
    filled_price: Decimal | None = None
    settled_at: datetime | None = None

    def __hash__(self) -> int:
        """Cheap, and enough: an order is in one status once."""
        return hash((self.id, self.status))

    @property
    def open(self) -> bool:
        return self.status is Status.ACCEPTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    id: str
    order_id: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    at: datetime

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True, slots=True)
class Position:
    """Shares held and what they cost, in US dollars, without fees."""

    quantity: Decimal
    cost: Decimal

    @property
    def average_price(self) -> Decimal:
        return RATIOS.divide(self.cost, self.quantity)


class Book:
    """One cash account without margin or short sales."""

    def __init__(self, *, cash: Decimal, costs: Costs) -> None:
        if not cash.is_finite() or cash < 0:
            raise ValueError(f"cash must be a finite number of at least 0, was {cash}")
        self.cash = cash
        self.costs = costs
        self.positions: dict[str, Position] = {}
        self.orders: dict[str, Order] = {}
        self.fills: list[Fill] = []
        self.duplicates = 0
        self.refused = 0
        self._by_client_id: dict[str, str] = {}
        self._open: dict[str, Order] = {}

    @property
    def open_orders(self) -> list[Order]:
        """Accepted orders that wait, oldest first."""
        return list(self._open.values())

    @property
    def buying_power(self) -> Decimal:
        """Cash less what open buys keep."""
        with localcontext(EXACT):
            return self.cash - sum((order.reserved for order in self._open.values()), Decimal(0))

    def by_client_id(self, client_order_id: str) -> Order | None:
        order_id = self._by_client_id.get(client_order_id)
        return self.orders[order_id] if order_id is not None else None

    def available(self, symbol: str) -> Decimal:
        """Shares of `symbol` held and not promised to an open sale."""
        with localcontext(EXACT):
            promised = (
                o.ticket.quantity or Decimal(0) for o in self._open.values() if o.ticket.symbol == symbol and o.ticket.side is Side.SELL
            )
            return self._held(symbol) - sum(promised, Decimal(0))

    def equity(self, prices: Mapping[str, Decimal]) -> Decimal:
        """Cash and positions at `prices`; a position without a price is a `KeyError`, never worth nothing."""
        with localcontext(RATIOS):
            return self.cash + sum((held.quantity * prices[symbol] for symbol, held in self.positions.items()), Decimal(0))

    def accept(self, ticket: Ticket, *, price: Decimal, at: datetime, expires_at: datetime) -> Order:
        """Take the order on, open; `price` is the market's, for the buying power it needs. Raises `Refused`."""
        if ticket.client_order_id is not None and ticket.client_order_id in self._by_client_id:
            self.duplicates += 1
            raise Refused(422, 40010001, "client_order_id must be unique")
        ticket = self._sized(ticket, price)
        reserved = self._need(ticket, price) if ticket.side is Side.BUY else Decimal(0)
        if reserved > self.buying_power:
            raise Refused(403, 40310000, "insufficient buying power", buying_power=plain(self.buying_power), cost_basis=plain(reserved))
        if ticket.side is Side.SELL:
            self._require_shares(ticket)
        sequence = len(self.orders) + 1
        order_id = str(uuid5(NAMESPACE, f"order {sequence}"))
        client_order_id = ticket.client_order_id or str(uuid5(NAMESPACE, f"client order {sequence}"))
        order = Order(
            sequence=sequence,
            id=order_id,
            client_order_id=client_order_id,
            ticket=ticket,
            status=Status.ACCEPTED,
            submitted_at=at,
            updated_at=at,
            expires_at=expires_at,
            reserved=reserved,
        )
        self._by_client_id[client_order_id] = order_id
        self._keep(order)
        return order

    def execute(self, order_id: str, *, price: Decimal, at: datetime) -> Order:
        """Try to fill an open order whole at the market price `price`.

        A limit that the price after slippage does not meet leaves the order open; a buy that cash no longer covers is rejected.
        """
        order = self.orders[order_id]
        ticket = order.ticket
        done_at = self.costs.price(ticket.side, price)
        if not order.open or not _meets(ticket, done_at):
            return order
        with localcontext(EXACT):
            quantity = ticket.quantity if ticket.quantity is not None else self._shares_for(ticket, done_at)
            amount = quantity * done_at
            fee = amount * self.costs.fee
            held = self.positions.get(ticket.symbol, Position(Decimal(0), Decimal(0)))
            if ticket.side is Side.BUY:
                cash, left, cost = self.cash - amount - fee, held.quantity + quantity, held.cost + amount
            else:
                cash, left = self.cash + amount - fee, held.quantity - quantity
                cost = RATIOS.multiply(held.cost, RATIOS.divide(left, held.quantity))
        if cash < 0:
            return self.settle(order_id, Status.REJECTED, at=at)
        self.cash = cash
        self._hold(ticket.symbol, Position(left, cost))
        fill_id = str(uuid5(NAMESPACE, f"fill {len(self.fills) + 1}"))
        fill = Fill(
            id=fill_id,
            order_id=order.id,
            client_order_id=order.client_order_id,
            symbol=ticket.symbol,
            side=ticket.side,
            quantity=quantity,
            price=done_at,
            fee=fee,
            at=at,
        )
        self.fills.append(fill)
        return self.settle(order_id, Status.FILLED, at=at, filled_quantity=quantity, filled_price=done_at)

    def settle(
        self, order_id: str, status: Status, *, at: datetime, filled_quantity: Decimal = Decimal(0), filled_price: Decimal | None = None
    ) -> Order:
        """End an open order with `status`; one that has already ended is `Refused`."""
        order = self.orders[order_id]
        if not order.open:
            raise Refused(422, 42210000, f'order is already in "{order.status}" state')
        order = replace(
            order,
            status=status,
            updated_at=at,
            settled_at=at,
            reserved=Decimal(0),
            filled_quantity=filled_quantity,
            filled_price=filled_price,
        )
        self._keep(order)
        return order

    def split(self, symbol: str, *, ratio: Decimal, price: Decimal, at: datetime) -> None:
        """`ratio` new shares for each old one; open orders of the symbol are canceled. `price` is that of a new share.

        Shares stay on the grid of nine decimals: what the ratio leaves beyond it is paid in cash at `price`, as brokers do.
        """
        for order in self.open_orders:
            if order.ticket.symbol == symbol:
                self.settle(order.id, Status.CANCELED, at=at)
        held = self.positions.get(symbol)
        if held is None:
            return
        with localcontext(EXACT):
            due = held.quantity * ratio
            quantity = due.quantize(QUANTUM, context=FLOOR)
            left_over = RATIOS.multiply(due - quantity, price)
            self.cash += left_over.quantize(Decimal("1e-18"), context=FLOOR)
        self._hold(symbol, Position(quantity, held.cost))

    def credit_dividend(self, symbol: str, *, amount: Decimal) -> None:
        """Pay `amount` US dollars for each share held."""
        with localcontext(EXACT):
            self.cash += self._held(symbol) * amount

    def _sized(self, ticket: Ticket, price: Decimal) -> Ticket:
        """A sale for a notional becomes a sale of shares, so that they can be promised; a buy stays as asked until it fills."""
        if ticket.side is Side.BUY or ticket.quantity is not None:
            return ticket
        return replace(ticket, quantity=self._shares_for(ticket, self.costs.price(ticket.side, price)))

    def _need(self, ticket: Ticket, price: Decimal) -> Decimal:
        with localcontext(EXACT):
            if ticket.quantity is None:
                assert ticket.notional is not None
                return ticket.notional * (1 + self.costs.fee)
            worst = ticket.limit_price if ticket.limit_price is not None else self.costs.price(ticket.side, price)
            return ticket.quantity * worst * (1 + self.costs.fee)

    def _shares_for(self, ticket: Ticket, price: Decimal) -> Decimal:
        assert ticket.notional is not None
        quantity = FLOOR.divide(ticket.notional, price).quantize(QUANTUM, context=FLOOR)
        if quantity <= 0:
            raise Refused(422, 40010001, f"notional must buy at least {QUANTUM} of a share, was {ticket.notional}")
        return quantity

    def _require_shares(self, ticket: Ticket) -> None:
        available, held = self.available(ticket.symbol), self._held(ticket.symbol)
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

    def _hold(self, symbol: str, position: Position) -> None:
        if position.quantity == 0:
            self.positions.pop(symbol, None)
        else:
            self.positions[symbol] = position

    def _keep(self, order: Order) -> None:
        self.orders[order.id] = order
        if order.open:
            self._open[order.id] = order
        else:
            self._open.pop(order.id, None)


def _meets(ticket: Ticket, done_at: Decimal) -> bool:
    if ticket.limit_price is None:
        return True
    return done_at <= ticket.limit_price if ticket.side is Side.BUY else done_at >= ticket.limit_price
