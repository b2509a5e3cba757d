"""The end of a session: does the broker hold what our fills say, and what is the book worth? One snapshot per session.

Promises: positions, cash and prices are the broker's. A position that our fills and the splits since the last snapshot do not explain is
kept with it as drift, never traded back; so is a whole book when the ledger has no snapshot of this account. A held name is valued at its
last trade; without one, or with one from before its last split, at the last snapshot's price through the splits since, and the snapshot
says so. Without any price there is no snapshot (`NoSnapshot`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from lambdas.common.broker.port import Account, Broker, MarketData, Position, Session, Trade
from lambdas.common.ledger.item import plain
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Held, OrderRecord, Snapshot
from lambdas.common.orders.positions import drift_of, last_snapshot, traded_since
from lambdas.common.orders.splits import Splits, splits_between
from schema.exchange_time import iso, new_york_date, parse_utc
from trading_env.errors import PapertapeError
from trading_env.orders.order_state import OrderStatus


class NoSnapshot(PapertapeError):  # noqa: N818 -- an outcome, not an error
    """The session cannot be valued; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Closing:
    """A session that is being closed: the account after it, the last snapshot of the same account, the splits since, the day's orders."""

    session: Session
    account: Account
    before: Snapshot | None
    splits: Splits
    orders: Sequence[OrderRecord]
    traded: Mapping[str, Decimal]


def close_session(
    session: Session,
    *,
    account: Account,
    orders: Sequence[OrderRecord],
    ledger: Ledger,
    broker: Broker,
    market_data: MarketData,
    now: datetime,
) -> Snapshot:
    """Take and return the closing snapshot of `session`, during which `orders` were made; raise `NoSnapshot` if it cannot be valued."""
    positions = broker.positions()
    before = last_snapshot(ledger, account=account.id, before=session.date)
    first = date.fromisoformat(before.session) + timedelta(days=1) if before else session.date
    closing = Closing(
        session=session,
        account=account,
        before=before,
        # Asked even when the positions look right: a split that was announced and not applied leaves them as they were
        splits=splits_between(market_data, {*positions, *(before.positions if before else ())}, first=first, last=session.date),
        orders=orders,
        traded=traded_since(before.taken_at if before else iso(session.open), until=session.date, ledger=ledger),
    )
    names = sorted({*positions, *(order.symbol for order in orders if order.symbol not in positions)})
    snapshot = _snapshot(closing, positions, market_data.latest_trades(names) if names else {}, now=now)
    return snapshot if ledger.put_snapshot(snapshot) else (ledger.snapshot(snapshot.session) or snapshot)


def _snapshot(closing: Closing, positions: Mapping[str, Position], trades: Mapping[str, Trade], *, now: datetime) -> Snapshot:
    closes: dict[str, Decimal] = {}
    carried: dict[str, str] = {}
    for symbol in positions:
        closes[symbol], late = _close(closing, symbol, trades.get(symbol))
        carried |= {symbol: late} if late else {}
    held = {symbol: Held(quantity=position.quantity, close=closes[symbol]) for symbol, position in positions.items()}
    orders = closing.orders
    return Snapshot(
        session=closing.session.date.isoformat(),
        cash=closing.account.cash,
        equity=closing.account.cash + sum((one.quantity * one.close for one in held.values()), Decimal(0)),
        positions=held,
        orders=sum(order.status != OrderStatus.REFUSED for order in orders),
        fills=sum(order.fills for order in orders),
        open_orders=sum(not order.terminal for order in orders),
        account_id=closing.account.id,
        closes={symbol: Decimal(repr(trade.price)) for symbol, trade in trades.items() if symbol not in held},
        carried=carried,
        drift=drift_of(
            {symbol: position.quantity for symbol, position in positions.items()},
            before=closing.before,
            traded=closing.traded,
            splits=closing.splits,
        ),
        taken_at=iso(now),
    )


def _close(closing: Closing, symbol: str, trade: Trade | None) -> tuple[Decimal, str]:
    """The price of a held name, and why it is an earlier session's (empty if it is not)."""
    traded_on = new_york_date(parse_utc(trade.ts)) if trade is not None else date.min
    last = closing.before.positions.get(symbol) if closing.before else None
    if trade is not None and (last is None or closing.splits.ratio(symbol, after=traded_on) == 1):
        late = "" if traded_on >= closing.session.date else f"{symbol} has not traded since {traded_on}: it has the price of that day"
        return Decimal(repr(trade.price)), late
    if last is None or closing.before is None:
        raise NoSnapshot(f"{symbol} is held and has no last trade")
    price = last.close / closing.splits.ratio(symbol)
    return price, f"{symbol} has no trade since its close of {closing.before.session}: it is carried at {plain(price)}"
