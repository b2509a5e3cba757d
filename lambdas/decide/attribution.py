"""The last session against its ideal execution: what the book lost or won by prices, missed fills and sizes.

Promise: pure but for `attribute_session`, which reads two snapshots, the session's decision and its fills, and writes one `Attribution`,
once. The parts sum to the difference to far below a cent. A session whose bars or snapshots are not there has no attribution, nor has
one of several decisions, which followed several plans, or of several slot bars, which no one decision is held against; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import date

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Attribution, Decision, Fill, PlannedOrder, Snapshot
from lambdas.common.orders.resubmission import superseded
from schema.settings import Settings
from schema.slot import AGENT, decision_id_of
from schema.trading_rules import rules_of
from trading_env.data.market import Market
from trading_env.evaluation.attribution import LiveBook, LiveDay, LiveFill, execution
from trading_env.simulation.portfolio import ExecutionPrices


def attribute_session(*, market: Market, settings: Settings, ledger: Ledger) -> Attribution | None:
    """Explain the last session of `market`, unless that was done or cannot be; return what was written."""
    if len(market) < 2 or len(settings.row_slots) > 1:
        return None
    earlier, session = (str(day) for day in market.days[-2:])
    before, after = ledger.snapshot(earlier), ledger.snapshot(session)
    if before is None or after is None or before.account_id != after.account_id or ledger.attributions(session, session):
        return None
    slots = settings.schedule.slots_of(date.fromisoformat(session))
    decisions = [made for slot in slots if (made := ledger.decision(decision_id_of(AGENT, slot))) is not None]
    if len(decisions) > 1:
        return None
    decision = decisions[0] if decisions else None
    months = sorted({before.taken_at[:7], after.taken_at[:7]})
    fills = [fill for fill in ledger.fills_since(before.taken_at, months=months) if fill.time <= after.taken_at]
    day, book = live_day(after, decision=decision, fills=fills), live_book(before)
    # The paper account pays no dividends, so an ideal one that was paid them would be another
    rules = replace(rules_of(settings), credit_dividends=False)
    parts = execution(day, before=book, prices=ExecutionPrices.of(market), row=len(market) - 2, symbols=market.symbols, rules=rules)
    live = day.close.equity - book.equity
    found = Attribution(
        session=session,
        decision_id=None if decision is None else decision.decision_id,
        live=live,
        ideal=live - parts.total,
        parts={name: value for name, value in asdict(parts).items() if name not in {"carried", "model"}},
    )
    return found if ledger.put_attribution(found) else None


def live_book(snapshot: Snapshot) -> LiveBook:
    return LiveBook(
        cash=float(snapshot.cash),
        quantities={symbol: float(held.quantity) for symbol, held in snapshot.positions.items()},
        marks={symbol: float(held.close) for symbol, held in snapshot.positions.items()},
    )


def live_day(snapshot: Snapshot, *, decision: Decision | None, fills: Iterable[Fill], fees: float = 0.0) -> LiveDay:
    """The session of `snapshot` as it was lived: `decision` is the agent's (None: it made none), `fills` are all of that session's."""
    plan = (decision.plan or ()) if decision is not None else ()
    past, planned = superseded(plan), {order.client_order_id for order in plan}
    return LiveDay(
        session=date.fromisoformat(snapshot.session),
        weights=None if decision is None else decision.weights,
        plan={order.symbol: _signed(order) for order in plan if order.client_order_id not in past},
        fills=[
            LiveFill(symbol=fill.symbol, quantity=_signed(fill), price=float(fill.price), planned=fill.client_order_id in planned)
            for fill in fills
        ],
        close=live_book(snapshot),
        fees=fees,
    )


def _signed(moved: PlannedOrder | Fill) -> float:
    return float(moved.quantity) * (1 if moved.side == "buy" else -1)
