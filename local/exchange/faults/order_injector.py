"""Injects faults into the orders of one account: some are refused, some are held back, some are filled in parts or too far.

Promise: an empty plan changes nothing. An order is refused before the book has changed and after its client order id was found to be
new, so an order that was accepted once is never refused later. Every moment at which an order continues is in `due`, so the venue stops
there however its clock is moved; the part that may be filled at each of them is a function of the time alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from heapq import heappop, heappush

from local.exchange.book import AccountBook
from local.exchange.faults.plan import OrderFault, PartialFill
from local.exchange.faults.sampler import FaultSampler
from local.exchange.money import CEILING, CENT, EXACT, FLOOR, QUANTUM, plain
from local.exchange.orders import ExchangeOrder, Refused, Side, Status, Ticket
from local.exchange.rules.refusals import opposite, wash_trade

INFLATED = Decimal("1.02")
WHOLE = Decimal(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FillSchedule:
    """When an order is filled: from each moment on, the cumulative part of it; `extra` shares come on top of the last."""

    parts: tuple[tuple[datetime, Decimal], ...]
    extra: Decimal = Decimal(0)
    drift: Decimal = Decimal(0)
    ends_as: Status = Status.EXPIRED

    def part(self, now: datetime) -> Decimal:
        return max(part for moment, part in self.parts if moment <= now)


class OrderFaultInjector:
    """Injects the plan's faults into the orders of one account."""

    def __init__(self, sampler: FaultSampler) -> None:
        self.sampler = sampler
        self.forget()

    def forget(self) -> None:
        """Forget every order: the account is new."""
        self.due: list[datetime] = []
        self._schedules: dict[str, FillSchedule] = {}
        self._held: dict[str, datetime] = {}

    def expect(self, moment: datetime) -> None:
        heappush(self.due, moment)

    def clock_moved(self, now: datetime) -> None:
        while self.due and self.due[0] <= now:
            heappop(self.due)
        self.sampler.clock_moved()

    # Refusals

    def halted(self, symbol: str, day: date) -> bool:
        halt = self.sampler.plan.faults.halted_asset
        if halt is not None and halt.symbols is not None:
            return halt.covers(symbol)
        return self.sampler.selects(halt, "halted_asset", f"{symbol} {day}")

    def fractionable(self, symbol: str) -> bool:
        whole = self.sampler.plan.faults.not_fractionable
        return whole is None or symbol not in whole.symbols

    def refuse(self, ticket: Ticket, *, book: AccountBook, price: Decimal, day: date) -> None:
        """Raise `Refused` if the plan refuses this order, or if it would trade with another one of the account."""
        if _repeated(ticket, book):
            return
        if self.halted(ticket.symbol, day):
            self.sampler.count("halted_asset")
            raise Refused(422, 42210000, f'asset "{ticket.symbol}" is not tradable')
        if not self.fractionable(ticket.symbol) and _fractional(ticket, book):
            self.sampler.count("not_fractionable")
            raise Refused(403, 40310000, "requested asset is not fractionable")
        self._refuse_wash_trade(ticket, book)
        self._refuse_buying_power(ticket, book, price)

    def refuse_replacement(self, ticket: Ticket, *, book: AccountBook) -> None:
        """Raise `Refused` if what takes the place of an order would trade with another one of the account, as `refuse` does."""
        if not _repeated(ticket, book):
            self._refuse_wash_trade(ticket, book)

    def _refuse_wash_trade(self, ticket: Ticket, book: AccountBook) -> None:
        """Refuse it as the vendor does, or as often as the plan says, false positives included."""
        wash, against = self.sampler.plan.faults.wash_trade, opposite(ticket, book.open_orders)
        if wash is None or not wash.covers(ticket.symbol):
            injected = against is not None
        else:
            fault = wash if against is not None else wash.model_copy(update={"rate": wash.false_positive_rate})
            injected = self.sampler.injects(fault, "wash_trade", _name(ticket))
        if injected:
            raise wash_trade(against)

    def _refuse_buying_power(self, ticket: Ticket, book: AccountBook, price: Decimal) -> None:
        fault = self.sampler.plan.faults.insufficient_buying_power
        if ticket.side is Side.SELL or not _covers(fault, ticket.symbol):
            return
        if self.sampler.injects(fault, "insufficient_buying_power", _name(ticket)):
            power = book.buying_power
            cost = EXACT.multiply(max(book.need(ticket, price), power), INFLATED).quantize(CENT, context=CEILING)
            raise Refused(403, 40310000, "insufficient buying power", buying_power=plain(power), cost_basis=plain(cost))

    # After an order was accepted

    def status_override(self, ticket: Ticket) -> str | None:
        """The status that the order shows at first in place of its own."""
        fault = self.sampler.plan.faults.unknown_status
        if fault is None or not fault.covers(ticket.symbol) or not self.sampler.selects(fault, "unknown_status", _name(ticket)):
            return None
        return fault.status

    def hold(self, order: ExchangeOrder, *, now: datetime) -> None:
        """Do not fill an order while it shows another status."""
        fault = self.sampler.plan.faults.unknown_status
        assert fault is not None
        self.sampler.counts["unknown_status"] += 1
        self._held[order.id] = now + timedelta(seconds=fault.seconds)
        self.expect(self._held[order.id])

    def holds(self, order: ExchangeOrder, now: datetime) -> bool:
        return order.id in self._held and now < self._held[order.id]

    def released(self, now: datetime) -> list[str]:
        """The ids of orders that were held until now."""
        ids = [order_id for order_id, until in self._held.items() if until <= now]
        for order_id in ids:
            del self._held[order_id]
        return ids

    def price(self, order: ExchangeOrder, price: Decimal) -> Decimal:
        """The market price for the order; later parts of it get a worse one."""
        schedule = self._schedules.get(order.id)
        if schedule is None or not schedule.drift or not order.filled_quantity:
            return price
        drift = schedule.drift if order.ticket.side is Side.BUY else -schedule.drift
        return EXACT.multiply(price, WHOLE + drift)

    def quantity(self, order: ExchangeOrder, *, book: AccountBook, price: Decimal, now: datetime) -> Decimal | None:
        """Shares to fill now; None for all that is left."""
        schedule = self._schedules.get(order.id)
        if schedule is None:
            if self.sampler.inactive:
                return None
            schedule = self._schedules[order.id] = self._fill_schedule(order, book=book, price=price, now=now)
            for moment, _part in schedule.parts[1:]:
                self.expect(moment)
        part = schedule.part(now)
        left = book.shares_left(order, price)
        if part >= WHOLE:
            return left + schedule.extra if schedule.extra else None
        total = order.filled_quantity + left
        unit = _unit(total)
        so_far = max(unit, min(_floored(total * part, unit), total - unit))
        return max(Decimal(0), so_far - order.filled_quantity)

    def ending(self, order: ExchangeOrder) -> Status:
        """The final status of an order that is still open at its last close."""
        schedule = self._schedules.get(order.id)
        return schedule.ends_as if schedule is not None and order.filled_quantity else Status.EXPIRED

    def _fill_schedule(self, order: ExchangeOrder, *, book: AccountBook, price: Decimal, now: datetime) -> FillSchedule:
        faults, ticket, name = self.sampler.plan.faults, order.ticket, order.client_order_id
        left = book.shares_left(order, price)
        for_shares = ticket.quantity is not None
        if for_shares and _covers(faults.overfill, ticket.symbol) and self.sampler.selects(faults.overfill, "overfill", name):
            assert faults.overfill is not None
            unit = _unit(left)
            extra = max(unit, _floored(left * Decimal(repr(faults.overfill.share)), unit))
            if _affords(book, ticket, extra, price):
                self.sampler.counts["overfill"] += 1
                return FillSchedule(parts=((now, WHOLE),), extra=extra)
        partial = faults.partial_fill
        divisible = left >= 2 * _unit(left)
        if (
            partial is None
            or not divisible
            or not _covers(partial, ticket.symbol)
            or not self.sampler.selects(partial, "partial_fill", name)
        ):
            return FillSchedule(parts=((now, WHOLE),))
        self.sampler.counts["partial_fill"] += 1
        return self._in_parts(partial, name, now)

    def _in_parts(self, partial: PartialFill, name: str, now: datetime) -> FillSchedule:
        parts = [(now, self.sampler.share("partial_fill share", name))]
        if self.sampler.draw("partial_fill expires", name) >= partial.expires:
            step = timedelta(seconds=partial.seconds)
            if self.sampler.draw("partial_fill steps", name) < 0.5:
                rest = WHOLE - parts[0][1]
                parts.append((now + step, parts[0][1] + rest * self.sampler.share("partial_fill second share", name)))
            parts.append((parts[-1][0] + step, WHOLE))
        return FillSchedule(parts=tuple(parts), drift=Decimal(repr(partial.drift_bps)) / 10_000, ends_as=Status(partial.ends_as))


def _repeated(ticket: Ticket, book: AccountBook) -> bool:
    """Whether its id is taken, which is refused as that, whatever else is wrong."""
    return ticket.client_order_id is not None and book.by_client_id(ticket.client_order_id) is not None


def _name(ticket: Ticket) -> str:
    """The subject of an order that the book has not named yet; without an id, what it asks for."""
    return ticket.client_order_id or f"{ticket.side} {ticket.symbol} {ticket.quantity or ticket.notional}"


def _covers(fault: OrderFault | None, symbol: str) -> bool:
    return fault is not None and fault.covers(symbol)


def _fractional(ticket: Ticket, book: AccountBook) -> bool:
    """Whether the order is for a fraction of a share; selling the whole position is always allowed."""
    if ticket.quantity is None:
        return True
    held = book.positions.get(ticket.symbol)
    closing = ticket.side is Side.SELL and held is not None and ticket.quantity == held.quantity
    return ticket.quantity != ticket.quantity.to_integral_value() and not closing


def _affords(book: AccountBook, ticket: Ticket, extra: Decimal, price: Decimal) -> bool:
    if ticket.side is Side.SELL:
        return book.available(ticket.symbol) >= extra
    more = Ticket(symbol=ticket.symbol, side=Side.BUY, quantity=extra)
    return book.need(more, price) + CENT <= book.buying_power


def _unit(quantity: Decimal) -> Decimal:
    """Whole shares stay whole."""
    return WHOLE if quantity == quantity.to_integral_value() else QUANTUM


def _floored(quantity: Decimal, unit: Decimal) -> Decimal:
    return quantity.quantize(unit, context=FLOOR)
