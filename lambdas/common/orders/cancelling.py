"""Cancel orders at the broker, and wait until they are gone.

Whether a cancellation was in time only the order's status tells, so nothing is concluded from its answer. What a cancelled order filled is
recorded by whoever asks for it next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lambdas.common.broker.port import Broker, Order, Rejected, Unresolved
from lambdas.common.telemetry import logger


def cancel(broker: Broker, order_id: str) -> None:
    """Ask once; a refusal (it has ended) and a lost answer are logged."""
    try:
        broker.cancel(order_id)
    except (Rejected, Unresolved) as outcome:
        logger.warning("cancel was not confirmed", extra={"broker_id": order_id, "reason": str(outcome)})


def cancel_and_wait(
    broker: Broker,
    orders: Iterable[Order],
    *,
    until: float,
    poll: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> list[Order]:
    """Cancel `orders` and return those that are still open at `until`, of the clock `monotonic`.

    One question asks for all of them, at once and then again after `poll` seconds, each time twice as many.
    """
    wanted = {order.id for order in orders}
    for order_id in sorted(wanted):
        cancel(broker, order_id)
    left: list[Order] = []
    while wanted and (left := [order for order in broker.open_orders() if order.id in wanted]) and monotonic() + poll < until:
        sleep(poll)
        poll *= 2
    return left
