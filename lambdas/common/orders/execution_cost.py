"""An order of the ledger as `trading_env.orders.execution_cost` measures it. Pure; what is not known is None."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from lambdas.common.ledger.records import EXTERNAL, RECOVERED, Decision, OrderRecord, Snapshot
from schema.exchange_time import new_york_date, parse_utc
from trading_env.orders.execution_cost import Execution
from trading_env.orders.order_state import OrderStatus


def execution_of(order: OrderRecord, *, close: Decimal | None = None) -> Execution:
    """The order with its decision, arrival and fill prices; `close` is its symbol's of the session, once it is known."""
    return Execution(
        symbol=order.symbol,
        side=order.side,
        quantity=order.quantity,
        filled=order.filled_quantity,
        decision=Decimal(repr(order.price)),
        arrival=None if order.arrival_price is None else Decimal(repr(order.arrival_price)),
        fill=order.filled_average_price,
        close=close,
    )


def session_of(decision: Decision) -> str:
    """The session (ISO date) in which a decision was received, and traded if at all."""
    return new_york_date(parse_utc(decision.received_at)).isoformat()


def closes_of(snapshot: Snapshot | None) -> dict[str, Decimal]:
    """The closing prices of all that was held or ordered in the snapshot's session."""
    return {} if snapshot is None else {**snapshot.closes, **{symbol: held.close for symbol, held in snapshot.positions.items()}}


def last_attempts(orders: Iterable[OrderRecord]) -> list[OrderRecord]:
    """Our own orders, each need once: without attempts that a later one followed, orders that a person replaced, and external ones."""
    kept = [order for order in orders if order.status != OrderStatus.REPLACED]
    ours = [order for order in kept if order.decision_id.partition(":")[0] not in {EXTERNAL, RECOVERED}]
    last: dict[tuple[str, str], int] = {}
    for order in ours:
        need = order.decision_id, order.symbol
        last[need] = max(order.attempt, last.get(need, 0))
    return [order for order in ours if order.attempt == last[order.decision_id, order.symbol]]


def executions(orders: Iterable[OrderRecord], closes: Mapping[str, Decimal]) -> list[Execution]:
    """What `last_attempts` of `orders` cost, at the `closes` of their session."""
    return [execution_of(order, close=closes.get(order.symbol)) for order in last_attempts(orders)]
