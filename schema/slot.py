"""A decision slot: a moment of a session at which the agent decides. It, not a timestamp, is the idempotency key of a decision.

Pure. A text that is no slot is a ValueError that says what one looks like.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal, NamedTuple, Self

MinutesFeed = Literal["iex", "sip"]

#: The strategy whose slots the schedule decides.
AGENT = "agent"
#: Strategies of a person's orders: no slot, no data and no model to be late or stale, and the whole session to trade in.
MANUAL, FLATTEN = "manual", "flatten"
PERSONAL = frozenset({MANUAL, FLATTEN})

NAME = r"open\+\d{1,3}"  # minutes after the session's open


@dataclass(frozen=True)
class Slot:
    """Slot `name` of a session; as text `2019-03-04/open+5`."""

    session: date
    name: str

    def __post_init__(self) -> None:
        minutes_of(self.name)

    @classmethod
    def parse(cls, text: str) -> Self:
        session, _, name = text.partition("/")
        return cls(date.fromisoformat(session), name)

    def __str__(self) -> str:
        return f"{self.session.isoformat()}/{self.name}"

    @property
    def minutes(self) -> int:
        """From the session's open to the slot's beginning."""
        return minutes_of(self.name)

    def window(self, opens: datetime, *, minutes: int) -> tuple[datetime, datetime]:
        """When the slot of a session that `opens` then begins, and when, so many `minutes` long, it ends."""
        begins = opens + timedelta(minutes=self.minutes)
        return begins, begins + timedelta(minutes=minutes)


class SlotRows(NamedTuple):
    """Where sessions are cut into rows: `slots` in minutes after the open, in order, each `window` minutes long; and whose minutes are."""

    slots: tuple[int, ...]
    window: int
    feed: MinutesFeed = "iex"


def minutes_of(name: str) -> int:
    if not re.fullmatch(NAME, name):
        raise ValueError(f"a slot is called open+<minutes>, was {name!r}")
    return int(name.removeprefix("open+"))


def decision_id_of(strategy: str, slot: Slot | str) -> str:
    """The id of the one decision that `strategy` makes in `slot`; a person's strategies have keys of their own for slots."""
    return f"{strategy}:{slot}"
