"""What the broker's clock and calendar said last: whether the market is open, and which minutes are of a session."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from lambdas.common.broker.following import MarketTime
from lambdas.common.broker.port import Clock, Session
from schema.exchange_time import new_york_date


class MarketHours:
    """`clock` is None until the first `read`."""

    def __init__(self, reads: MarketTime) -> None:
        self._reads = reads
        self._sessions: dict[date, Session] = {}
        self._known_until = date.min
        self.clock: Clock | None = None

    def read(self) -> Clock:
        """Ask the broker, and for the sessions of days that are new; raise `BrokerUnavailable` where it does not answer."""
        clock = self._reads.clock()
        day = clock.session_date
        if day > self._known_until:
            start = day if self._known_until == date.min else self._known_until + timedelta(days=1)
            found = self._reads.sessions(start, day)
            self._sessions |= {session.date: session for session in found}
            self._known_until = day
        self.clock = clock
        return clock

    @property
    def is_open(self) -> bool:
        return self.clock is not None and self.clock.is_open

    def trading(self, minute: datetime) -> bool:
        """Whether the minute that begins then is of a session that is known."""
        session = self._sessions.get(new_york_date(minute))
        return session is not None and session.open <= minute < session.close
