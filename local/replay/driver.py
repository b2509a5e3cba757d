"""The replay driver: recorded sessions through the deployed schedules, one firing at a time, on the exchange's clock.

For each session it advances the exchange to every moment that its schedule names, fires the deployed schedule's real target there, and
after the last firing compares the ledger with the exchange's own books: each position, each fill and the cash, exactly. A firing
that fails ends the replay with `ReplayError`, which names the schedule, the time and the function's own words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Fill, Snapshot
from local.replay import schedule as replay_schedule
from local.replay.schedule import ScheduleEntry
from papertape.market_data.sessions import TradingSession
from trading_env.errors import PapertapeError

#: By so much an average price in four decimals may differ from the exact one.
LAST_DECIMAL = Decimal("0.0001")


class ReplayError(PapertapeError, RuntimeError):
    """The replay cannot go on; the message says where it stopped and why."""


class Cloud(Protocol):
    """What the driver needs of the local cloud: the deployed schedules, and a way to fire one."""

    def schedules(self) -> Sequence[str]: ...

    def fire(self, schedule: str, time: str) -> Mapping[str, Any]: ...


class Exchange(Protocol):
    """What the driver needs of the exchange: its clock and its books."""

    def advance(self, now: str) -> Mapping[str, Any]: ...

    def books(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Day:
    """One session's end: the ledger's closing snapshot and how it differs from the exchange's books (nothing, when all is well)."""

    session: str
    snapshot: Snapshot
    fills: int
    differences: tuple[str, ...]


@dataclass(kw_only=True)
class Replayed:
    """What happened: a `Day` per session, firings by schedule, and from the exchange's own books what went wrong with orders.

    `duplicates`: orders beyond one per symbol and decision of a session (the exchange takes a client order id only
    once, so ids tell nothing). `rejected`: requests for orders that it refused, and orders that it took and then rejected.
    """

    days: list[Day] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    rejected: int = 0

    @property
    def matches(self) -> bool:
        return bool(self.days) and not any(day.differences for day in self.days)

    @property
    def equity(self) -> list[float]:
        return [float(day.snapshot.equity) for day in self.days]


def replay(
    *,
    cloud: Cloud,
    exchange: Exchange,
    ledger: Ledger,
    sessions: Iterable[TradingSession],
    entries: Sequence[ScheduleEntry],
    prefix: str,
    on_session: Callable[[Day], None],
) -> Replayed:
    """Replay `sessions` by `entries` of the replay schedule; deployed schedules are named `<prefix>-<schedule>`. `on_session` is called
    at each session's end.

    Raises PlanError when entries and deployment disagree, ReplayError when a firing fails or a session ends without its snapshot.
    """
    replay_schedule.check(entries, [name.removeprefix(f"{prefix}-") for name in cloud.schedules()])
    result = Replayed()
    for session in sessions:
        moments = sorted((time + entry.later, entry.schedule, time) for entry in entries for time in entry.times(session))
        for clock, schedule, time in moments:
            fire(cloud, exchange, schedule=schedule, prefix=prefix, time=time, clock=clock)
            result.fired[schedule] += 1
        books = exchange.books()
        day = compare(ledger, books, session.date)
        result.days.append(day)
        on_session(day)
    result.duplicates = duplicates(books, decisions=replay_schedule.decisions(entries))
    result.rejected = int(books["counts"]["refused"]) + sum(order["status"] == "rejected" for order in books["orders"])
    return result


def duplicates(books: Mapping[str, Any], *, decisions: int = 1) -> int:
    placed = Counter((order["symbol"], order["submitted_at"][:10]) for order in books["orders"])
    return sum(max(count - decisions, 0) for count in placed.values())


def fire(cloud: Cloud, exchange: Exchange, *, schedule: str, prefix: str, time: datetime, clock: datetime | None = None) -> None:
    """Fire what is due at `time`, with the exchange's clock there, or at `clock`, when a function runs later than it is due."""
    instant = _instant(time)
    exchange.advance(_instant(clock or time))
    outcome = cloud.fire(f"{prefix}-{schedule}", instant)
    if outcome["status"] != "succeeded":
        raise ReplayError(f"schedule {schedule} at {instant} failed: {outcome.get('error', outcome)}")


def _instant(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def compare(ledger: Ledger, books: Mapping[str, Any], session: str, *, rounded: bool = False) -> Day:
    """The ledger against the exchange's books at the end of `session`; `rounded`: the exchange shows average prices in four decimals."""
    snapshot = ledger.snapshot(session)
    if snapshot is None:
        raise ReplayError(f"the ledger has no closing snapshot of {session}; reconcile writes it after the close")
    positions = {symbol: Decimal(quantity) for symbol, quantity in books["positions"].items() if Decimal(quantity)}
    held = {symbol: position.quantity for symbol, position in snapshot.positions.items() if position.quantity}
    ours = [fill for fill in ledger.fills(session[:7]) if fill.time.startswith(session)]
    theirs = [fill for fill in books["fills"] if fill["at"].startswith(session)]
    differences = [
        f"position {symbol}: ledger {held.get(symbol, 0)}, exchange {positions.get(symbol, 0)}"
        for symbol in sorted(held.keys() | positions.keys())
        if held.get(symbol) != positions.get(symbol)
    ]
    if snapshot.cash != Decimal(books["cash"]):
        differences.append(f"cash: ledger {snapshot.cash}, exchange {books['cash']}")
    differences += fill_differences(ours, theirs, apart=LAST_DECIMAL if rounded else Decimal(0))
    return Day(session=session, snapshot=snapshot, fills=len(ours), differences=tuple(differences))


def fill_differences(ours: Sequence[Fill], theirs: Sequence[Mapping[str, Any]], *, apart: Decimal) -> list[str]:
    """Orders whose fills are not the same quantity at the same notional, but for `apart` dollars per share."""
    ledger, exchange = (
        _by_order((f.client_order_id, f.quantity, f.price) for f in ours),
        _by_order((f["client_order_id"], Decimal(f["quantity"]), Decimal(f["price"])) for f in theirs),
    )
    return [
        f"fills of {order}: ledger {ledger.get(order)}, exchange {exchange.get(order)}"
        for order in sorted(ledger.keys() | exchange.keys())
        if not _alike(ledger.get(order), exchange.get(order), apart=apart)
    ]


def _alike(ours: tuple[Decimal, Decimal] | None, theirs: tuple[Decimal, Decimal] | None, *, apart: Decimal) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return ours[0] == theirs[0] and abs(ours[1] - theirs[1]) <= apart * ours[0]


def _by_order(fills: Iterable[tuple[str, Decimal, Decimal]]) -> dict[str, tuple[Decimal, Decimal]]:
    """Filled quantity and notional per order."""
    totals: dict[str, tuple[Decimal, Decimal]] = {}
    for order, quantity, price in fills:
        filled, notional = totals.get(order, (Decimal(0), Decimal(0)))
        totals[order] = (filled + quantity, notional + quantity * price)
    return totals
