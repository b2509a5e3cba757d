"""The breakers between decisions: what the account's equity trips is latched, and what only looks like a loss is not.

Promises: a breaker that trips is in the ledger, with an alert, and stays until a person re-arms it; from then on losses count from the
first equity that is observed. On the morning of a split that the broker has not applied to the position its price may already be the new
one: that fall of the equity is an alert, and trips nothing. Failure: `BrokerUnavailable` for what decides between the two.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

from lambdas.common.broker.port import Account, Broker, Clock, MarketData, Session
from lambdas.common.ledger.alerts import raise_alert
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Breakers, Snapshot
from lambdas.common.orders.positions import last_snapshot, traded_since
from lambdas.common.orders.splits import splits_between
from schema.exchange_time import iso
from schema.settings import Settings
from schema.trading_rules import limits_of
from trading_env.orders import risk


def watch(
    session: Session, *, account: Account, clock: Clock, ledger: Ledger, broker: Broker, market_data: MarketData, settings: Settings
) -> None:
    """Judge the account during `session`; of an account that nothing was traded in yet, nothing is remembered."""
    now = ledger.breakers()
    if now.account_id is None:
        return
    if set(_tripped(_based(now, account.equity), account.equity, settings)) - now.tripped.keys():
        pending = _pending(session, account=account, ledger=ledger, broker=broker, market_data=market_data)
        for symbol, detail in pending.items():
            _alert(
                ledger,
                clock,
                session,
                f"split-pending:{symbol}",
                f"{detail}; equity looks lower than it is, and no breaker is tripped by it",
            )
        if pending:
            return
    _change(ledger, clock, session, settings, equity=account.equity, closed=None)


def remember(session: Session, snapshot: Snapshot, *, clock: Clock, ledger: Ledger, settings: Settings) -> None:
    """Judge the close, then make it what the next session is judged by; a close that is remembered is not judged again."""
    _change(ledger, clock, session, settings, equity=snapshot.equity, closed=snapshot.session)


def _change(ledger: Ledger, clock: Clock, session: Session, settings: Settings, *, equity: Decimal, closed: str | None) -> None:
    def judged(now: Breakers) -> Breakers:
        if closed is not None and now.last_close_session is not None and now.last_close_session >= closed:
            return now
        based = _based(now, equity)
        fresh = {name: detail for name, detail in _tripped(based, equity, settings).items() if name not in now.tripped}
        for name, detail in fresh.items():
            _alert(ledger, clock, session, name, f"{detail}; only sells pass until a person sets the trading state to active")
        changed = based.model_copy(update={"tripped": {**now.tripped, **fresh}})
        if closed is None:
            return changed
        reached = {"peak_equity": max(based.peak_equity, equity), "last_close_equity": equity, "last_close_session": closed}
        return changed.model_copy(update=reached)

    ledger.change_breakers(judged)


def _based(breakers: Breakers, equity: Decimal) -> Breakers:
    """With something to fall from: the first equity that is observed, after a start or a re-arming."""
    return breakers.model_copy(
        update={"peak_equity": breakers.peak_equity or equity, "last_close_equity": breakers.last_close_equity or equity}
    )


def _tripped(breakers: Breakers, equity: Decimal, settings: Settings) -> dict[str, str]:
    situation = risk.Situation(
        equity=float(equity),
        positions={},
        prices={},
        peak_equity=float(breakers.peak_equity),
        last_close_equity=float(breakers.last_close_equity),
        state="active",
        bar_age_sessions=0,
    )
    return risk.breakers(situation, limits_of(settings))


def _pending(session: Session, *, account: Account, ledger: Ledger, broker: Broker, market_data: MarketData) -> dict[str, str]:
    before = last_snapshot(ledger, account=account.id, before=session.date)
    if before is None:
        return {}
    splits = splits_between(market_data, before.positions, first=date.fromisoformat(before.session) + timedelta(days=1), last=session.date)
    held = {symbol: one.quantity for symbol, one in before.positions.items()}
    now = {symbol: position.quantity for symbol, position in broker.positions().items()} if splits.events else {}
    return splits.pending(held, traded_since(before.taken_at, until=session.date, ledger=ledger), now)


def _alert(ledger: Ledger, clock: Clock, session: Session, rule: str, detail: str) -> None:
    raise_alert(ledger=ledger, rule=rule, session=session.date.isoformat(), detail=detail, time=iso(clock.now))
