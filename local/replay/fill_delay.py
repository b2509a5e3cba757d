"""Sessions whose orders fill in parts, the last of them a minute or two of the exchange's clock after the answer: how long each of those
fills is on its way from the exchange to the ledger.

Without the runner it waits for the next reconcile, which is minutes of the exchange's clock. With the runner it comes while that clock
stands, and takes seconds of this machine's. `AwaitedSession` steps through the minutes after the slot and measures either. A fill that
nobody tells the ledger of within `TIMEOUT`, and a book that is not the exchange's at the close, end it with `FillDelayError`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from local.replay.driver import compare, fire
from local.replay.local_deployment import LocalDeployment
from papertape.market_data.sessions import TradingSession
from schema.exchange_time import parse_utc
from trading_env.errors import PapertapeError

#: Faults of the exchange: every order is filled in parts, the last within two minutes.
IN_PARTS: Mapping[str, Any] = {"seed": 5, "faults": {"partial_fill": {"rate": 1, "seconds": 60, "expires": 0}}}
#: Minutes after the open: the slot, and the last that is looked at.
SLOT, LAST = 5, 25
#: Minutes between two runs of reconcile.
RECONCILED_EVERY = 5
TIMEOUT, PAUSE = 30.0, 0.02
#: Nobody waits for orders that end only when the exchange's clock is moved, and nobody for long for a lease.
SHORT_WAITS = {"LEASE_SECONDS": "5", "LEASE_TIMEOUT_SECONDS": "8", "BROKER_PAUSE": "0.01", "ORDER_TIMEOUT_SECONDS": "0.3"}


class FillDelayError(PapertapeError, RuntimeError):
    """A fill never reached the ledger, or reached it wrong; the message says which."""


@contextmanager
def short_waits(deployment: LocalDeployment) -> Iterator[None]:
    """The executor and reconcile wait as `SHORT_WAITS` says until the end of the block."""
    client, before = deployment.client("lambda"), {}
    for output in ("ExecuteOrdersFunction", "ReconcileFunction"):
        name = deployment.output(output)
        before[name] = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        client.update_function_configuration(FunctionName=name, Environment={"Variables": {**before[name], **SHORT_WAITS}})
    try:
        yield
    finally:
        for name, variables in before.items():
            client.update_function_configuration(FunctionName=name, Environment={"Variables": variables})


@dataclass
class AwaitedSession:
    """One session. `seconds` from before the exchange's clock was moved until a fill of that minute was in the ledger, where it was waited
    for; `minutes` of the exchange's clock from a fill to the reconcile that recorded it, where it was not."""

    deployment: LocalDeployment
    times: TradingSession
    seconds: list[float] = field(default_factory=list)
    minutes: list[float] = field(default_factory=list)

    def start_runner(self) -> None:
        self._fire("start_runner", self.times.opens - timedelta(minutes=10))

    def stop_runner(self) -> None:
        self._fire("stop_runner", self.times.closes + timedelta(minutes=10))

    def trade(self, *, told: bool) -> None:
        """From the slot on; with `told`, each minute waits until the ledger has what the exchange has filled in it."""
        self._fire("decide", self._after_open(SLOT))
        for minute in range(SLOT + 1, LAST + 1):
            moment, before = self._after_open(minute), self._filled()
            moved = time.monotonic()
            self.deployment.exchange.advance(moment)
            if told:
                now = self._filled()
                self._wait({name: quantity for name, quantity in now.items() if quantity != before.get(name)}, moved=moved)
            if not minute % RECONCILED_EVERY:
                late = self._unknown(self._filled())
                self._fire("reconcile", moment)
                self.minutes += [self._waited(order, moment) for order in late]

    def close(self) -> None:
        """After the close: raise `FillDelayError` unless the ledger is the exchange's books."""
        self._fire("reconcile", self.times.closes + timedelta(minutes=5))
        day = compare(self.deployment.ledger, self.deployment.exchange.books(), self.times.date, rounded=True)
        if day.differences:
            raise FillDelayError(f"{self.times.date}: {'; '.join(day.differences)}")

    def night(self) -> None:
        self._fire("backfill_bars", parse_utc(f"{self.times.date}T22:00:00Z"))

    def _wait(self, filled: Mapping[str, Decimal], *, moved: float) -> None:
        """Until the ledger has these orders' quantities, each with its own delay since `moved`."""
        while filled:
            missing = self._unknown(filled)
            self.seconds += [time.monotonic() - moved] * (len(filled) - len(missing))
            if missing and time.monotonic() > moved + TIMEOUT:
                raise FillDelayError(f"{self.times.date}: nobody told the ledger within {TIMEOUT:g} s of {missing}")
            if missing:
                time.sleep(PAUSE)
            filled = missing

    def _filled(self) -> dict[str, Decimal]:
        """Of this session's orders at the exchange, by client order id."""
        orders = self.deployment.exchange.books(since=self.times.opens)["orders"]
        return {order["client_order_id"]: Decimal(order["filled_qty"]) for order in orders}

    def _unknown(self, filled: Mapping[str, Decimal]) -> dict[str, Decimal]:
        """Those of which the ledger has another quantity."""
        known = self.deployment.ledger.orders_by_id(list(filled))
        return {name: quantity for name, quantity in filled.items() if name not in known or known[name].filled_quantity != quantity}

    def _waited(self, order: str, moment: datetime) -> float:
        fills = self.deployment.exchange.books(since=self.times.opens)["fills"]
        last = max(parse_utc(fill["at"]) for fill in fills if fill["client_order_id"] == order)
        return (moment - last).total_seconds() / 60

    def _after_open(self, minutes: int) -> datetime:
        return self.times.opens + timedelta(minutes=minutes)

    def _fire(self, schedule: str, moment: datetime) -> None:
        fire(self.deployment, self.deployment.exchange, schedule=schedule, prefix=self.deployment.settings.name, time=moment)
