"""The end of a session: does the broker hold what our fills say, and what is the book worth? One snapshot a session.

Promises: positions, cash and prices are the broker's; a position that our fills and the splits since the last snapshot do not explain is
an alert and is adopted, never traded back. A held name is valued at its last trade, however old; without any, the session gets no snapshot
and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal

from lambdas.common.broker import Broker, Position, Session
from lambdas.common.broker_time import iso
from lambdas.common.ledger import Ledger
from lambdas.common.records import Held, Snapshot, plain

QUANTUM = Decimal("1e-9")
#: Positions may differ by what flooring to nine decimals loses.
TOLERANCE = Decimal("2e-9")


class NoSnapshot(Exception):  # noqa: N818 -- an outcome, not an error
    """The session cannot be valued; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Closed:
    """A session's end: the snapshot, whether this call took it, and the drift by symbol (what it should be and is)."""

    snapshot: Snapshot
    first: bool
    drift: dict[str, str]


def close_session(session: Session, *, ledger: Ledger, broker: Broker, now: datetime) -> Closed:
    """Take the closing snapshot of `session`; raise `NoSnapshot` if a held name has no closing price."""
    account, positions = broker.account(), broker.positions()
    trades = broker.latest_trades(sorted(positions)) if positions else {}
    missing = sorted(positions.keys() - trades.keys())
    if missing:
        raise NoSnapshot(f"{', '.join(missing)} is held and has no last trade")
    held = {symbol: Held(quantity=p.quantity, close=Decimal(repr(trades[symbol].price))) for symbol, p in positions.items()}
    before = ledger.latest_snapshot(before=session.date.isoformat())
    orders = ledger.orders_of_day(session.date.isoformat())
    snapshot = Snapshot(
        session=session.date.isoformat(),
        cash=account.cash,
        equity=account.cash + sum((one.quantity * one.close for one in held.values()), Decimal(0)),
        positions=held,
        orders=sum(order.status != "refused" for order in orders),
        fills=sum(order.fills for order in orders),
        open_orders=sum(not order.terminal for order in orders),
        taken_at=iso(now),
    )
    drift = _drift(before, positions, session=session, ledger=ledger, broker=broker)
    return Closed(snapshot=snapshot, first=ledger.put_snapshot(snapshot), drift=drift)


def _drift(
    before: Snapshot | None, positions: Mapping[str, Position], *, session: Session, ledger: Ledger, broker: Broker
) -> dict[str, str]:
    held_before = {symbol: held.quantity for symbol, held in before.positions.items()} if before else {}
    traded = _traded(before, session=session, ledger=ledger)

    # Asked even when the positions look right: a split that was announced and not applied leaves them as they were
    splits: Mapping[str, Decimal] = {}
    if before is not None and held_before:
        since = date.fromisoformat(before.session) + timedelta(days=1)
        splits = _splits(sorted(held_before), since=since, until=session.date, broker=broker)
    drift = {}
    for symbol in sorted(held_before.keys() | traded.keys() | positions.keys()):
        kept = (held_before.get(symbol, Decimal(0)) * splits.get(symbol, Decimal(1))).quantize(QUANTUM, rounding=ROUND_FLOOR)
        expected = kept + traded.get(symbol, Decimal(0))
        actual = positions[symbol].quantity if symbol in positions else Decimal(0)
        if abs(expected - actual) > TOLERANCE:
            drift[symbol] = f"{symbol}: our fills say {plain(expected)}, the broker holds {plain(actual)}"
    return drift


def _traded(before: Snapshot | None, *, session: Session, ledger: Ledger) -> dict[str, Decimal]:
    start = before.taken_at if before else iso(session.open)
    months = sorted({start[:7], session.date.isoformat()[:7]})
    traded: dict[str, Decimal] = {}
    for fill in ledger.fills_since(start, months=months):
        signed = fill.quantity if fill.side == "buy" else -fill.quantity
        traded[fill.symbol] = traded.get(fill.symbol, Decimal(0)) + signed
    return traded


def _splits(symbols: list[str], *, since: date, until: date, broker: Broker) -> dict[str, Decimal]:
    ratios: dict[str, Decimal] = {}
    for action in broker.corporate_actions(symbols, since, until):
        if action["kind"] == "split":
            ratios[action["symbol"]] = ratios.get(action["symbol"], Decimal(1)) * Decimal(repr(action["value"]))
    return ratios
