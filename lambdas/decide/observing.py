"""What a decision observes: the market at a close, and the account's book after it.

Promise: the book is that of the closing snapshot, or of an account in which nothing was ever held; anything else is `NoTrade`, as is
data that is late or cannot be observed. `observe_now` is for looking ahead only: it takes the newest data and the book as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

from lambdas.common.ledger.records import Snapshot
from lambdas.common.orders.splits import splits_between
from lambdas.decide.data import MarketSnapshot, ScoredSources, StaleDataError, market_snapshot, years_needed
from lambdas.decide.decision import AccountAtClose, ObservedState, observe_state
from lambdas.decide.edges import Edges, NoTrade
from schema.settings import Settings
from trading_env.data.observation import ObservationError


class PastSessions(NamedTuple):
    """The sessions before a session, oldest first, and when each session closes."""

    earlier: tuple[date, ...]
    closes: Mapping[date, datetime]


def observe_close(*, session: date, settings: Settings, edges: Edges) -> tuple[MarketSnapshot, ObservedState]:
    """The close before `session`, with the book after it."""
    calendar = _sessions_before(session, edges=edges)
    snapshot = _market(calendar.earlier, closes=calendar.closes, settings=settings, edges=edges)
    return snapshot, _observed(snapshot, _account(edges=edges, session=session, as_of=snapshot.as_of))


def observe_now(*, session: date, closed: Sequence[date], settings: Settings, edges: Edges) -> tuple[MarketSnapshot, ObservedState]:
    """The newest of the last two `closed` sessions that the lake has bars of, with the positions and the cash of this moment."""
    calendar = _sessions_before(session, edges=edges)
    known = tuple(day for day in calendar.earlier if not closed or day <= closed[-1])
    if len(known) < 2:
        raise NoTrade("stale-data", f"the lake's calendar holds {len(known)} sessions that have closed; run backfill_bars")
    try:
        snapshot = _market(known, closes=calendar.closes, settings=settings, edges=edges)
    except NoTrade:
        snapshot = _market(known[:-1], closes=calendar.closes, settings=settings, edges=edges)
    return snapshot, _observed(snapshot, _account_now(edges))


def _sessions_before(session: date, *, edges: Edges) -> PastSessions:
    # The close before may be of the year before, and then its history begins a year earlier than the session's
    calendar = edges.lake.calendar(years={*years_needed(session), *years_needed(session.replace(year=session.year - 1, day=1))})
    earlier = calendar.before(session)
    if not calendar.is_session(session) or not earlier:
        raise NoTrade("stale-data", f"the lake's calendar does not reach {session}; run backfill_bars")
    return PastSessions(earlier, dict(zip(calendar.sessions, calendar.closes, strict=True)))


def _market(earlier: Sequence[date], *, closes: Mapping[date, datetime], settings: Settings, edges: Edges) -> MarketSnapshot:
    """The market at the close of the last of the sessions `earlier`."""
    sentiment = ScoredSources(settings.news.sources, closes) if settings.features.sentiment == "daily" else None
    try:
        return market_snapshot(lake=edges.lake, symbols=settings.universe.symbols, sessions=earlier, as_of=earlier[-1], sentiment=sentiment)
    except StaleDataError as error:
        raise NoTrade("stale-data", str(error)) from error


def _observed(snapshot: MarketSnapshot, account: AccountAtClose) -> ObservedState:
    try:
        return observe_state(market=snapshot.market, account=account)
    except (ObservationError, ValueError) as error:
        raise NoTrade("no-observation", str(error)) from error


def _account_now(edges: Edges) -> AccountAtClose:
    """What the broker shows now; a name of which the market has no bar is worth its last trade."""
    positions = edges.broker.positions()
    trades = edges.market_data.latest_trades(sorted(positions)) if positions else {}
    return AccountAtClose(
        cash=float(edges.broker.account().cash),
        quantities={symbol: float(held.quantity) for symbol, held in positions.items()},
        closes={symbol: trade.price for symbol, trade in trades.items()},
    )


def _account(*, edges: Edges, session: date, as_of: date) -> AccountAtClose:
    """The closing snapshot of `as_of`; before the first decision ever, an account in which nothing is held."""
    ledger, broker = edges.ledger, edges.broker
    snapshot, pinned = ledger.snapshot(as_of.isoformat()), ledger.breakers().account_id
    if snapshot is not None and (pinned is None or snapshot.account_id in {None, pinned}):
        _refuse_pending_splits(snapshot, edges=edges, session=session, as_of=as_of)
        return _from_snapshot(snapshot)
    months = {as_of.isoformat()[:7], session.isoformat()[:7]}
    if ledger.latest_snapshot() is not None or any(ledger.decisions(month) for month in sorted(months)):
        raise NoTrade("book-unknown", f"the ledger has no closing snapshot of {as_of} of this account; see reconcile")
    if held := sorted(broker.positions()):
        what = f"an account without positions, was {', '.join(held)}"
        raise NoTrade("book-unknown", f"before its first closing snapshot a decision needs {what}; reconcile takes it at the close")
    return AccountAtClose(cash=float(broker.account().cash), quantities={}, closes={})


def _refuse_pending_splits(snapshot: Snapshot, *, edges: Edges, session: date, as_of: date) -> None:
    """A position that waits for its split would be sized, and judged, at a price that is not its own."""
    splits = splits_between(edges.market_data, snapshot.positions, first=as_of + timedelta(days=1), last=session)
    if not splits.events:
        return
    held = {symbol: one.quantity for symbol, one in snapshot.positions.items()}
    pending = splits.pending(held, {}, {symbol: position.quantity for symbol, position in edges.broker.positions().items()})
    if pending:
        raise NoTrade("split-pending", "; ".join(pending.values()))


def _from_snapshot(snapshot: Snapshot) -> AccountAtClose:
    return AccountAtClose(
        cash=float(snapshot.cash),
        quantities={symbol: float(held.quantity) for symbol, held in snapshot.positions.items()},
        closes={symbol: float(held.close) for symbol, held in snapshot.positions.items()},
    )
