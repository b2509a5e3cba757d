"""What each view of the account starts from in one request: the closes so far, how the broker was seen last, and what was made of both.

Promise: what depends on closes alone is computed once per close and hour, and kept in the warm process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar, cast

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import BrokerState, Snapshot
from lambdas.dashboard.account.closings import AccountClose, CloseHistory, closings_of
from lambdas.dashboard.account.performance import Span, first_of
from lambdas.dashboard.account.yardsticks import YardstickCache, Yardsticks
from lambdas.dashboard.market.prices import PriceHistory
from lambdas.dashboard.request import PageRequest
from schema.exchange_time import new_york_date, parse_utc

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class AccountNow:
    """`seen` None: the broker was never seen."""

    request: PageRequest
    history: CloseHistory
    seen: BrokerState | None

    @classmethod
    def of(cls, request: PageRequest) -> AccountNow:
        seen = request.ledger.broker_state()
        today = None if seen is None else new_york_date(parse_utc(seen.now)).isoformat()
        return cls(request=request, history=closings_of(request.ledger).so_far(today=today), seen=seen)

    @property
    def now(self) -> str:
        """The market's time, else the request's."""
        return self.request.now if self.seen is None else self.seen.now

    @property
    def today(self) -> str:
        """The market's day, as an ISO date."""
        return new_york_date(parse_utc(self.now)).isoformat()

    def is_closed_since(self, snapshot: Snapshot) -> bool:
        """Whether nothing can have been quoted or filled after it: the market has not opened since, as far as the broker was seen."""
        return self.seen is not None and not self.seen.is_open and self.today == snapshot.session

    @cached_property
    def yardsticks(self) -> Yardsticks | None:
        """None before the first close."""
        sessions = [one.session for one in self.history.closings]
        if not sessions:
            return None
        request = self.request
        return _cache_of(request.ledger).of(sessions, lake=request.lake, settings=request.settings, hour=request.now[:13])

    @property
    def prices(self) -> PriceHistory:
        return PriceHistory() if self.yardsticks is None else self.yardsticks.prices

    def since(self, span: Span) -> tuple[AccountClose, ...]:
        closings = self.history.closings
        return closings[first_of(span, [one.session for one in closings]) :]

    def once(self, what: str, make: Callable[[], T]) -> T:
        """What `make` makes, computed once per close and hour under the name `what`."""
        if self.yardsticks is None:
            return make()
        if what not in self.yardsticks.made:
            self.yardsticks.made[what] = make()
        return cast("T", self.yardsticks.made[what])


@lru_cache(maxsize=4)
def _cache_of(ledger: Ledger) -> YardstickCache:  # noqa: ARG001 -- whose closes it is
    return YardstickCache()
