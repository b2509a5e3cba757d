"""Ask the broker about orders that can still change, and record what it shows; never sends.

Promises: an order that the broker has once shown is never called missing, for its views may disagree for seconds; one that it has not
shown is missing only if a question about that order alone says so. Several orders are asked for with one question. An order that a person
replaced at the broker is followed: its replacement is put into the ledger as an order of its own, with an alert, before ours is recorded
as replaced. An order that contradicts the ledger is in doubt, and named in `contradicted`.
Failure: `BrokerUnavailable`, with what was heard before it recorded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lambdas.common.broker.port import Broker, BrokerUnavailable, Order
from lambdas.common.ledger.alerts import raise_alert
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import OrderRecord
from lambdas.common.orders.broker_updates import RecordingError, note, record
from lambdas.common.telemetry import logger
from schema.exchange_time import iso, new_york_date, parse_utc
from trading_env.orders.order_state import Event, OrderStatus

#: An order is submitted after it was put into the ledger, on the same clock; the minute is for the broker's own parts.
MARGIN = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class OrderSync:
    ledger: Ledger
    broker: Broker
    contradicted: set[str] = field(default_factory=set)

    def ask(self, order: OrderRecord, *, now: datetime) -> OrderRecord:
        """Ask about one order, and return it as stored then."""
        observed = self.broker.order_by_client_id(order.client_order_id)
        if observed is not None:
            return self.apply(order, observed, now=now)
        if order.missing_since is not None:
            return order
        since = order.unknown_since or iso(now)
        return note(self.ledger, order, Event.MISSING, now=now, unknown_since=since, missing_since=iso(now))

    def ask_all(self, orders: Iterable[OrderRecord], *, now: datetime) -> dict[str, OrderRecord]:
        """Ask about all of `orders` that have not ended, and return all by client order id.

        One list answers for those that it holds. It cannot tell that an order is missing, so one in doubt is then asked for alone, and so
        is each that a full list leaves out, or that cannot be read. One order that the broker cannot be asked about stops no other: it
        raises after them. At a second one the broker itself is silent.
        """
        found = {order.client_order_id: order for order in orders}
        waiting = [order for order in found.values() if not order.terminal]
        listed: dict[str, Order] = {}
        full = True
        if len(waiting) > 1:
            oldest = min(parse_utc(order.created_at) for order in waiting)
            listed, full = self._listed(oldest - MARGIN)
        silent: BrokerUnavailable | None = None
        for order in waiting:
            observed = listed.get(order.client_order_id)
            try:
                if observed is not None:
                    found[order.client_order_id] = self.apply(order, observed, now=now)
                elif full or order.in_doubt:
                    found[order.client_order_id] = self.ask(order, now=now)
            except BrokerUnavailable as silence:
                if silent is not None:
                    raise
                silent = silence
        if silent is not None:
            raise silent
        return found

    def _listed(self, since: datetime) -> tuple[dict[str, Order], bool]:
        """The broker's orders since then by client order id, and whether there may be more of them than it lists."""
        try:
            listed = self.broker.orders_since(since)
        except BrokerUnavailable as silence:
            logger.warning("no list of orders, each is asked for alone", extra={"reason": str(silence)})
            return {}, True
        return {order.client_order_id: order for order in listed}, len(listed) >= self.broker.list_limit

    def apply(self, order: OrderRecord, observed: Order, *, now: datetime) -> OrderRecord:
        """Record `order` as the broker shows it, and return it as stored then."""
        if observed.status == OrderStatus.REPLACED and observed.replaced_by is not None and not order.terminal:
            replacement = self._replacement(order, observed.replaced_by, now=now)
            order = order.model_copy(update={"replaced_by": replacement})
        try:
            return record(self.ledger, order, observed, now=now)
        except RecordingError as contradiction:
            logger.error("contradiction", extra={"client_order_id": order.client_order_id, "detail": str(contradiction)})
            self.contradicted.add(order.client_order_id)
            since = order.unknown_since or iso(now)
            return note(self.ledger, order, Event.DOUBT, now=now, reason=str(contradiction), unknown_since=since)

    def _replacement(self, order: OrderRecord, broker_id: str, *, now: datetime) -> str:
        """Put the order that replaced ours, and whatever replaced that one, into the ledger; return its client order id.

        It may be sized as the person pleased, so it is no overfill of ours; its fills are its own, and belong to the same decision.
        """
        observed = self.broker.order(broker_id)
        if observed is None:
            raise BrokerUnavailable(f"{order.client_order_id} was replaced by {broker_id}, which the broker does not show yet")
        replacement = OrderRecord(
            client_order_id=observed.client_order_id,
            decision_id=order.decision_id,
            slot=order.slot,
            symbol=observed.symbol,
            side=observed.side,
            quantity=observed.quantity,
            price=order.price,
            attempt=order.attempt,
            created_at=iso(parse_utc(observed.submitted_at)),
            broker_id=observed.id,
            replaces=order.client_order_id,
        )
        if self.ledger.put_external_order(replacement):
            rule, session = f"replaced:{order.client_order_id}", new_york_date(now).isoformat()
            theirs = f"{observed.side} {observed.quantity} {observed.symbol}"
            detail = f"{order.side} {order.quantity} {order.symbol} was replaced at the broker by {theirs}, which the ledger follows"
            raise_alert(ledger=self.ledger, rule=rule, session=session, detail=detail, time=iso(now))
            self.apply(replacement, observed, now=now)
        return observed.client_order_id
