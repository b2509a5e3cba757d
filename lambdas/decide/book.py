"""The book that a decision starts from: the last closing snapshot, or what the broker has now.

Promises: before a session's first slot nothing has traded, so the book is that of the close before it, or of an account in which nothing
was ever held. In a later slot it is the broker's, and only if nothing is open or in doubt and every position is explained by the last
snapshot, the fills and the splits since: anything else is `NoTrade`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

import numpy as np

from lambdas.common.broker.port import Account, Position, Session
from lambdas.common.ledger.records import Snapshot
from lambdas.common.orders.positions import drift_of, last_snapshot, traded_since
from lambdas.common.orders.splits import splits_between
from lambdas.decide.decision import AccountAtClose
from lambdas.decide.edges import Edges, NoTrade
from schema.exchange_time import iso
from trading_env.data.market import Market


def book_at_close(*, edges: Edges, session: date, as_of: date) -> AccountAtClose:
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


def book_between(*, edges: Edges, session: Session, market: Market) -> AccountAtClose:
    """What the broker holds within `session`, once the ledger explains all of it."""
    positions, account = edges.broker.positions(), edges.broker.account()
    if (pinned := edges.ledger.breakers().account_id) not in {None, account.id}:
        raise NoTrade("book-unknown", f"the broker's account is {account.id}, this app's is {pinned}; see reconcile")
    _refuse_what_moves(edges, session=session)
    _refuse_what_is_not_explained(positions, account=account, edges=edges, session=session)
    return _valued(positions, account=account, edges=edges, market=market)


def book_now(edges: Edges, *, market: Market) -> AccountAtClose:
    """What the broker shows now, whatever explains it: for looking ahead alone."""
    return _valued(edges.broker.positions(), account=edges.broker.account(), edges=edges, market=market)


def _refuse_what_moves(edges: Edges, *, session: Session) -> None:
    """While an order is open, in flight or in doubt, or a batch unfinished, positions and cash are about to be others."""
    ledger = edges.ledger
    working = {f"{one.side} {one.symbol} ({one.client_order_id})" for one in edges.broker.open_orders()}
    ours = [*ledger.unsettled_orders(), *(one for one in ledger.orders_of_day(session.date.isoformat()) if not one.terminal)]
    working |= {f"{one.side} {one.symbol} ({one.client_order_id})" for one in ours}
    if working:
        raise NoTrade("orders-open", f"the book must be at rest, and has open orders: {', '.join(sorted(working))}")
    if batches := [one.decision_id for one in ledger.working_decisions()]:
        raise NoTrade("orders-open", f"the book must be at rest, and {', '.join(batches)} is not finished")


def _refuse_what_is_not_explained(positions: Mapping[str, Position], *, account: Account, edges: Edges, session: Session) -> None:
    before = last_snapshot(edges.ledger, account=account.id, before=session.date)
    held = {} if before is None else {symbol: one.quantity for symbol, one in before.positions.items()}
    now = {symbol: one.quantity for symbol, one in positions.items()}
    first = session.date if before is None else date.fromisoformat(before.session) + timedelta(days=1)
    splits = splits_between(edges.market_data, {*held, *now}, first=first, last=session.date)
    since = iso(session.open) if before is None else before.taken_at
    traded = traded_since(since, until=session.date, ledger=edges.ledger)
    if pending := splits.pending(held, traded, now):
        raise NoTrade("split-pending", "; ".join(pending.values()))
    if drift := drift_of(now, before=before, traded=traded, splits=splits):
        raise NoTrade("book-unknown", f"positions are not what the ledger says: {'; '.join(drift.values())}")


def _valued(positions: Mapping[str, Position], *, account: Account, edges: Edges, market: Market) -> AccountAtClose:
    """A name of which the market has no bar is worth its last trade."""
    barred = {symbol for symbol, closes in zip(market.symbols, market.close.T, strict=True) if np.isfinite(closes).any()}
    others = sorted(positions.keys() - barred)
    trades = edges.market_data.latest_trades(others) if others else {}
    if unpriced := [symbol for symbol in others if symbol not in trades]:
        raise NoTrade("no-observation", f"{', '.join(unpriced)} is held and has no last trade")
    return AccountAtClose(
        cash=float(account.cash),
        quantities={symbol: float(held.quantity) for symbol, held in positions.items()},
        closes={symbol: trade.price for symbol, trade in trades.items()},
    )


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
