"""The life of an order: the status that follows from each event, ours or the broker's.

Promise: pure and total: every status has a successor for every event of ours and for every status that a broker shows. The same event
twice changes nothing, and fills do not depend on the order in which they are heard of: they are cumulative and never fall. Once the broker
has shown an order its status counts and ours no longer does; an end is not taken back, and what fills after it is kept all the same.
Failure: none; whether what the broker shows can be true is for `broker_updates` to judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from enum import StrEnum
from typing import Literal

Side = Literal["buy", "sell"]


class OrderStatus(StrEnum):
    """The state of an order: ours until the broker has shown it, then the broker's. Those at the broker have FIX's names (OrdStatus)."""

    PENDING = "pending"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    NEW = "new"
    PARTIALLY_FILLED = "partially_filled"
    DONE_FOR_DAY = "done_for_day"
    REPLACED = "replaced"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELED = "canceled"
    FILLED = "filled"


#: What a broker's adapter may say of an order.
BrokerStatus = Literal[
    OrderStatus.NEW,
    OrderStatus.PARTIALLY_FILLED,
    OrderStatus.DONE_FOR_DAY,
    OrderStatus.REPLACED,
    OrderStatus.REJECTED,
    OrderStatus.EXPIRED,
    OrderStatus.CANCELED,
    OrderStatus.FILLED,
]

#: Statuses that no broker gives.
OURS = frozenset({OrderStatus.PENDING, OrderStatus.UNKNOWN, OrderStatus.REFUSED})
#: The order lives at the broker.
WORKING: tuple[BrokerStatus, ...] = (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)
#: The broker's ends. Of two the one that stands further right is kept, whichever came first: an order that is filled was not expired.
#: Every order here is for one day, so `done_for_day` is an end.
ENDS: tuple[BrokerStatus, ...] = (
    OrderStatus.DONE_FOR_DAY,
    OrderStatus.REPLACED,
    OrderStatus.REJECTED,
    OrderStatus.EXPIRED,
    OrderStatus.CANCELED,
    OrderStatus.FILLED,
)
#: Statuses that need not be asked for any more.
ENDED: frozenset[OrderStatus] = frozenset({*ENDS, OrderStatus.REFUSED})

_PRICES = Context(prec=38)


class Event(StrEnum):
    """What happens to an order at our side."""

    OPENED = "opened"  # put into the ledger, before the POST
    SENT = "sent"  # about to be POSTed
    DOUBT = "doubt"  # POSTed, without a definite answer
    MISSING = "missing"  # the broker was asked and does not have it
    REFUSED = "refused by risk"  # not POSTed
    TURNED_DOWN = "turned down"  # the POST was answered with a definite no
    WINDOW_ENDED = "window ended"  # missing twice, past the grace, and nothing may be sent any more


_OF_OURS: Mapping[tuple[OrderStatus, Event], OrderStatus] = {
    (OrderStatus.PENDING, Event.DOUBT): OrderStatus.UNKNOWN,
    (OrderStatus.PENDING, Event.MISSING): OrderStatus.UNKNOWN,
    (OrderStatus.PENDING, Event.REFUSED): OrderStatus.REFUSED,
    (OrderStatus.PENDING, Event.TURNED_DOWN): OrderStatus.REJECTED,
    # From here an earlier POST may have been accepted, so that only the broker, or the end of the window, ends it
    (OrderStatus.UNKNOWN, Event.WINDOW_ENDED): OrderStatus.EXPIRED,
}


@dataclass(frozen=True, kw_only=True)
class Life:
    """`shown`: the broker has shown the order. `filled` shares so far, at `average` dollars."""

    status: OrderStatus = OrderStatus.PENDING
    shown: bool = False
    filled: Decimal = Decimal(0)
    average: Decimal | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def after(self, event: Event) -> Life:
        """The life after an event of ours, which changes nothing any more once the broker has shown the order or it has ended."""
        if self.shown or self.ended:
            return self
        return replace(self, status=_OF_OURS.get((self.status, event), self.status))

    def observed(self, status: BrokerStatus, *, filled: Decimal = Decimal(0), average: Decimal | None = None) -> Life:
        """The life after the broker has shown the order with this status, and `filled` shares in all."""
        more = filled > self.filled
        return Life(
            status=self._following(status, older=filled < self.filled),
            shown=True,
            filled=filled if more else self.filled,
            average=average if more else self.average,
        )

    def _following(self, status: BrokerStatus, *, older: bool) -> OrderStatus:
        final = self.shown and self.ended
        if status in ENDS:
            return max(self.status, status, key=ENDS.index) if final else status
        return self.status if final or older else status


def rise(before: Life, after: Life) -> tuple[Decimal, Decimal] | None:
    """Shares and price of the one fill that leads from `before` to `after`; None where nothing has filled.

    Its price is such that all fills together cost what the broker's average says, to 38 digits.
    """
    quantity = after.filled - before.filled
    if not quantity or after.average is None:
        return None
    if not before.filled or before.average is None:
        return quantity, after.average
    return quantity, _PRICES.divide(after.filled * after.average - before.filled * before.average, quantity)


#: States by which the table shows the machine: one of each kind.
_KINDS: tuple[tuple[str, Life], ...] = (
    ("pending", Life()),
    ("unknown", Life(status=OrderStatus.UNKNOWN)),
    ("refused", Life(status=OrderStatus.REFUSED)),
    ("rejected, expired: never shown", Life(status=OrderStatus.EXPIRED)),
    (", ".join(WORKING), Life(status=OrderStatus.NEW, shown=True)),
    *((end.value, Life(status=end, shown=True)) for end in ENDS),
)


def markdown() -> str:
    """The table of docs/ledger.md: what follows from each state."""
    lines = [
        "| state | " + " | ".join(event.value for event in Event) + " | shown as working | shown as ended |",
        "|--" * (len(Event) + 3) + "|",
    ]
    for name, life in _KINDS:
        cells = [_cell(life, life.after(event).status) for event in Event]
        cells.append("as shown" if all(life.observed(status).status == status for status in WORKING) else "")
        taken = [end for end in ENDS if end != life.status and life.observed(end).status == end]
        cells.append("as shown" if len(taken) == len(ENDS) - (life.status in ENDS and not life.shown) else ", ".join(taken))
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _cell(life: Life, status: OrderStatus) -> str:
    return "" if status == life.status else status


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201
