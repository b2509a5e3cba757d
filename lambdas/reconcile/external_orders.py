"""Orders at the broker that the ledger does not hold: put into it, with their fills, and alerted; nothing is sent or traded back.

An order with our prefix was put into the ledger before it was sent, so one that is not there shows that the ledger was lost: it is
recovered, and trading is halted, because a lost ledger has lost its halts and its breakers too. Any other is external; it is recorded when
it has ended with something filled, because until then its quantity may be unknown. Promise: recording twice changes nothing the second
time, and an order that cannot be recorded leaves the others alone. Failure: `BrokerUnavailable`, with what was recorded before it kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from lambdas.common.broker.port import Broker, Clock, MarketData, Order
from lambdas.common.ledger.alerts import raise_alert
from lambdas.common.ledger.item import plain
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import EXTERNAL, RECOVERED, TERMINAL, OrderRecord, Snapshot
from lambdas.common.orders.broker_updates import record
from lambdas.common.orders.execution_context import ExecutionContext
from schema.exchange_time import NEW_YORK, iso, new_york_date, parse_utc
from trading_env.orders.orders import PREFIX

#: How far a ledger without a snapshot looks back for its own orders.
LOST = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    recovered: int = 0
    external: int = 0


def record_external_orders(context: ExecutionContext, *, clock: Clock, last: Snapshot | None) -> Recorded:
    """Record what was submitted since `last`, the newest snapshot; without one, our own orders of a week and anybody's of today."""
    ledger = context.ledger
    today = datetime.combine(clock.session_date, time(), tzinfo=NEW_YORK).astimezone(UTC)
    since = parse_utc(last.taken_at) if last is not None else clock.now - LOST
    submitted = [
        order
        for order in _submitted(context.broker, since)
        if _moved(order) and (last is not None or _ours(order) or _submitted_at(order) >= today)
    ]
    stored = ledger.orders_by_id([order.client_order_id for order in submitted])
    unrecorded = [order for order in submitted if order.client_order_id not in stored]
    recovered = [order for order in unrecorded if _ours(order)]
    if recovered:  # first of all, so that a crash from here on leaves trading halted
        _halt(ledger, recovered, now=clock.now)
    prices = _prices(context.market_data, recovered)
    external = [order for order in unrecorded if not _ours(order)]
    for order in external:  # before they are stored, for the same reason
        _alert(ledger, order, now=clock.now)
    return Recorded(
        recovered=sum(_put(ledger, order, price=prices.get(order.symbol), now=clock.now) for order in recovered),
        external=sum(_put(ledger, order, price=None, now=clock.now) for order in external),
    )


def _submitted(broker: Broker, since: datetime) -> Iterator[Order]:
    """Every order submitted after `since`, oldest first, list after list."""
    ids: set[str] = set()
    while True:
        listed = broker.orders_since(since)
        fresh = [order for order in listed if order.id not in ids]
        yield from fresh
        if len(listed) < broker.list_limit or not fresh:
            return
        ids |= {order.id for order in fresh}
        # The instant of the last one again: others may have been submitted in it
        since = _submitted_at(fresh[-1]) - timedelta(microseconds=1)


def _ours(order: Order) -> bool:
    return order.client_order_id.startswith(PREFIX)


def _moved(order: Order) -> bool:
    return _ours(order) or (order.status in TERMINAL and order.filled_quantity > 0)


def _submitted_at(order: Order) -> datetime:
    return parse_utc(order.submitted_at)


def _put(ledger: Ledger, observed: Order, *, price: float | None, now: datetime) -> bool:
    """Put the order and what is filled of it; False if it was there, or has no price to be counted by yet."""
    paid = observed.filled_average_price
    if paid is None and price is None:
        return False
    session = new_york_date(_submitted_at(observed)).isoformat()
    order = OrderRecord(
        client_order_id=observed.client_order_id,
        decision_id=f"{RECOVERED if _ours(observed) else EXTERNAL}:{session}",
        slot=session,
        symbol=observed.symbol,
        side=observed.side,
        quantity=observed.quantity,
        price=float(paid) if paid is not None else price,
        reason="found at the broker, not in the ledger",
        created_at=iso(_submitted_at(observed)),
        broker_id=observed.id,
        replaces=None,
    )
    if not ledger.put_external_order(order):
        return False
    record(ledger, order, observed, now=now)
    return True


def _prices(market_data: MarketData, orders: Iterable[Order]) -> dict[str, float]:
    """Last trades of what has not filled anything yet."""
    symbols = sorted({order.symbol for order in orders if order.filled_average_price is None})
    return {symbol: trade.price for symbol, trade in market_data.latest_trades(symbols).items()} if symbols else {}


def _halt(ledger: Ledger, orders: list[Order], *, now: datetime) -> None:
    detail = f"{len(orders)} orders of ours at the broker are not in the ledger, the first is {orders[0].client_order_id}"
    ledger.set_trading_state("halted", reason=f"ledger-lost: {detail}", time=iso(now), by="reconcile", automatic=True)
    message = f"{detail}; they are recovered, trading is halted until a person has looked"
    raise_alert(ledger=ledger, rule="ledger-lost", session=new_york_date(now).isoformat(), detail=message, time=iso(now))


def _alert(ledger: Ledger, order: Order, *, now: datetime) -> None:
    filled = f"{order.side} {plain(order.filled_quantity)} {order.symbol} ({order.client_order_id})"
    detail = f"an external order was filled, {filled}: the ledger counts it, and nothing is traded back"
    rule, session = f"external-order:{order.symbol}", new_york_date(now).isoformat()
    raise_alert(ledger=ledger, rule=rule, session=session, detail=detail, time=iso(now))
