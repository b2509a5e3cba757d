"""The life of an order: the state that follows from each piece of news, ours or the broker's.

Promise: pure and total: every state has a successor for every event of ours and for every word of the broker's, known or not. The same
news twice changes nothing, and fills do not depend on the order in which news arrive: they are cumulative and never fall. Once the broker
has shown an order its word counts and ours no longer does; a last word is not taken back, and what fills after it is kept all the same.
Failure: none; whether what the broker says can be true is for `recording` to judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from enum import StrEnum

PENDING, UNKNOWN, REFUSED = "pending", "unknown", "refused"
#: The words that are ours: a broker that used one would not mean what we mean.
OURS = frozenset({PENDING, UNKNOWN, REFUSED})

#: The broker's last words. Of two the one that stands further right is kept, whichever came first: an order that is filled was not
#: expired. Every order here is for one day, so `done_for_day` is an end.
LAST_WORDS = ("done_for_day", "replaced", "rejected", "expired", "canceled", "filled")
#: States that need not be asked for any more.
ENDED = frozenset({*LAST_WORDS, REFUSED})

#: The vendor's other words, and what they mean. The machine treats them, and words that nobody has heard of, alike: the order lives.
WORKING_WORDS: Mapping[str, str] = {
    "new": "at the exchanges",
    "accepted": "taken, not yet routed",
    "pending_new": "routed, not yet accepted",
    "accepted_for_bidding": "being priced",
    "partially_filled": "some has filled",
    "pending_cancel": "to be canceled",
    "pending_replace": "to be replaced",
    "stopped": "a trade is guaranteed, and has not happened",
    "suspended": "may not trade now",
    "calculated": "done for the day, its settlement is not",
    "held": "waits for another order",
}

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


_OF_OURS: Mapping[tuple[str, Event], str] = {
    (PENDING, Event.DOUBT): UNKNOWN,
    (PENDING, Event.MISSING): UNKNOWN,
    (PENDING, Event.REFUSED): REFUSED,
    (PENDING, Event.TURNED_DOWN): "rejected",
    # From here an earlier POST may have been accepted, so that only the broker, or the end of the window, settles it
    (UNKNOWN, Event.WINDOW_ENDED): "expired",
}


@dataclass(frozen=True, kw_only=True)
class Life:
    """`shown`: the broker has shown the order. `filled` shares so far, at `average` dollars."""

    status: str = PENDING
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

    def told(self, word: str, *, filled: Decimal = Decimal(0), average: Decimal | None = None) -> Life:
        """The life after the broker has said that the order is `word`, with `filled` shares in all."""
        more = filled > self.filled
        return Life(
            status=self._status(word if word not in OURS else f"{word} (the broker's)", older=filled < self.filled),
            shown=True,
            filled=filled if more else self.filled,
            average=average if more else self.average,
        )

    def _status(self, word: str, *, older: bool) -> str:
        settled = self.shown and self.ended
        if word in LAST_WORDS:
            return max(self.status, word, key=LAST_WORDS.index) if settled else word
        return self.status if settled or older else word


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


#: States by which the table tells the machine: one of each kind.
_KINDS: tuple[tuple[str, Life], ...] = (
    ("pending", Life()),
    ("unknown", Life(status=UNKNOWN)),
    ("refused", Life(status=REFUSED)),
    ("rejected, expired: never shown", Life(status="expired")),
    ("any other word", Life(status="new", shown=True)),
    *((word, Life(status=word, shown=True)) for word in LAST_WORDS),
)


def markdown() -> str:
    """The table of docs/ledger.md: what follows from each state."""
    lines = [
        "| state | " + " | ".join(event.value for event in Event) + " | a word that can change | a last word |",
        "|--" * (len(Event) + 3) + "|",
    ]
    for name, life in _KINDS:
        cells = [_cell(life, life.after(event).status) for event in Event]
        cells.append("the word" if life.told("accepted").status == "accepted" else "")
        lasts = {word: life.told(word).status for word in LAST_WORDS}
        taken = [word for word, status in lasts.items() if status == word and word != life.status]
        cells.append("the word" if len(taken) == len(lasts) - (life.status in LAST_WORDS and not life.shown) else ", ".join(taken))
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _cell(life: Life, status: str) -> str:
    return "" if status == life.status else status


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201
