"""One pass of reconciliation: finish batches, ask about open orders, record others' orders, close the session, notice what is missing.

Promises: starting and recovering are this one path, from what the ledger and the broker hold. Reconciling twice changes nothing the second
time. A lost ledger is rebuilt from the broker and sends no order, because only decisions that the ledger holds as working are run. Another
executor's lease is respected, and another account than this app's halts it. "Now" is the broker's clock. What cannot be read
leaves the rest to be done; then the first failure leaves the function, and the schedule tries again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.common.broker.port import Account, BrokerError, Clock, Session
from lambdas.common.ledger.alerts import raise_alert
from lambdas.common.ledger.item import plain
from lambdas.common.ledger.ledger import Fenced, LedgerCorrupt, Stale
from lambdas.common.ledger.records import BrokerState, Decision, OrderRecord, Snapshot
from lambdas.common.ledger.roles import rests, trader_now
from lambdas.common.orders.execution import run_batch
from lambdas.common.orders.execution_context import ExecutionContext
from lambdas.common.orders.order_sync import OrderSync
from lambdas.common.orders.positions import last_snapshot
from lambdas.common.orders.splits import splits_between
from lambdas.common.telemetry import logger
from lambdas.reconcile import breakers
from lambdas.reconcile.daily_snapshot import NoSnapshot, close_session
from lambdas.reconcile.external_orders import record_external_orders
from schema.exchange_time import iso
from schema.slot import AGENT, Slot, decision_id_of
from trading_env.orders.order_state import OrderStatus

#: The closing auction's print comes a moment after the bell.
CLOSING_PRINT = timedelta(minutes=1)
#: Longer than the exchange is ever closed.
RECENT = timedelta(days=10)
#: What one order, decision or step may fail of without stopping the others.
FAILURES = (BrokerError, LedgerCorrupt, Stale, ClientError, BotoCoreError)

T = TypeVar("T")
R = TypeVar("R", Decision, OrderRecord)


#: Keeps what a closed session has made final; answers what it did.
Archive = Callable[[str, str], str]


def reconcile(context: ExecutionContext, *, archive: Archive | None = None) -> dict[str, Any]:
    """Run one pass and return what it did. `archive` is given a session that has closed, and the time."""
    run = _Pass(context, clock=context.broker.clock(), account=context.broker.account())
    summary = run.all()
    run.keep_what_was_seen()
    if archive is not None and "snapshot" in summary:
        summary["archived"] = archive(summary["session"], summary["now"])
    if run.failures:
        first, *others = run.failures
        for other in others:
            first.add_note(f"also {type(other).__name__}: {other}")
        logger.error("reconciled in part", extra={"summary": summary, "failures": len(run.failures)})
        raise first
    return summary


@dataclass
class _Pass:
    context: ExecutionContext
    clock: Clock
    account: Account
    failures: list[Exception] = field(default_factory=list)

    @property
    def _sync(self) -> OrderSync:
        return OrderSync(ledger=self.context.ledger, broker=self.context.broker)

    def all(self) -> dict[str, Any]:
        summary: dict[str, Any] = {"now": iso(self.clock.now)}
        if (stranger := self._refuse_another_account()) is not None:
            return {**summary, "session": None, "account": stranger}
        summary |= self._finish()
        last = self.context.ledger.latest_snapshot()
        context = self.context
        found = self._try(partial(record_external_orders, context, clock=self.clock, last=last))
        summary |= {"external": found.external, "recovered": found.recovered} if found else {}
        today, now = self.clock.session_date, self.clock.now
        recent = context.broker.sessions(today - RECENT, today)
        session = next((one for one in recent if one.date == today), None)
        summary["session"] = None if session is None else session.date.isoformat()
        if session is not None and now >= session.open:
            self._notice_missed_slots(session)
            if now >= session.close + CLOSING_PRINT:
                return {**summary, **(self._try(partial(self._close, session)) or {"snapshot": "failed"})}
            if self.clock.is_open:
                self._try(partial(self._watch, session))
            return summary
        ended = max((one for one in recent if one.date < today), key=lambda one: one.date, default=None)
        return {**summary, **(self._try(partial(self._close_late, ended)) or {})} if ended is not None else summary

    def keep_what_was_seen(self) -> None:
        clock, account = self.clock, self.account
        seen = BrokerState(
            now=iso(clock.now),
            is_open=clock.is_open,
            next_open=iso(clock.next_open),
            next_close=iso(clock.next_close),
            account_id=account.id,
            equity=account.equity,
        )
        self._try(partial(self.context.ledger.put_broker_state, seen))

    def _try(self, step: Callable[[], T]) -> T | None:
        """Take a step; what it fails of is kept for the end."""
        try:
            return step()
        except FAILURES as failure:
            logger.warning("failed, the rest goes on", extra={"kind": type(failure).__name__, "error": str(failure)})
            self.failures.append(failure)
            return None

    def _refuse_another_account(self) -> str | None:
        """Halt on another account than the one this app is pinned to: its positions are none of ours, and our orders none of its."""
        pinned = self.context.ledger.breakers().account_id
        if pinned is None or pinned == self.account.id:
            return None
        detail = f"the broker's account is {self.account.id}, this app's is {pinned}"
        now = iso(self.clock.now)
        self.context.ledger.set_trading_state("halted", reason=f"account-changed: {detail}", time=now, by="reconcile", automatic=True)
        message = f"{detail}: it was reset, or the keys are another's; trading is halted, and nothing is reconciled"
        self._alert(self.clock.session_date, "account-changed", message)
        return detail

    # --- batches and orders

    def _finish(self) -> dict[str, Any]:
        """Bring every working decision as far as it goes, and ask about the orders that no working decision owns."""
        ledger = self.context.ledger
        decisions = [one for one in self._readable(ledger.working_decisions, ledger.working_ids, ledger.decision) if one.state == "working"]
        orders = [one for one in self._readable(ledger.unsettled_orders, ledger.unsettled_ids, ledger.order) if not one.terminal]
        untouched = {"finished": 0, "working": len(decisions), "ended": 0}
        if not decisions and not orders:
            return untouched
        fence = self.context.lease()
        if fence is None:
            logger.warning("another executor holds the lease")
            return untouched
        try:
            orders = [self._try(partial(self._end_old, order)) or order for order in orders]
            advance = partial(run_batch, clock=self.clock, context=self.context, fence=fence)
            after = [run for decision in decisions if (run := self._try(partial(advance, decision))) is not None]
            owned = {decision.decision_id for decision in after}
            others = [order for order in orders if order.decision_id not in owned]
            synced = self._try(partial(self._sync.ask_all, others, now=self.clock.now)) or {}
        except Fenced:
            logger.warning("the lease has passed on")
            return untouched
        finally:
            ledger.release_lease(fence)
        done = sum(decision.state == "done" for decision in after)
        return {"finished": done, "working": len(decisions) - done, "ended": sum(order.terminal for order in synced.values())}

    def _end_old(self, order: OrderRecord) -> OrderRecord:
        """End an order of an earlier session that the broker has shown and does not have any more, as after a reset of the account.

        No order outlives its session, and one that was shown is otherwise never called missing: its batch would wait for it for ever.
        """
        if order.broker_id is None or order.created_at[:10] >= self.clock.session_date.isoformat():
            return order
        observed = self.context.broker.order_by_client_id(order.client_order_id)
        if observed is not None:
            return self._sync.apply(order, observed, now=self.clock.now)
        reason = "the broker does not have it any more, and its session is over"
        detail = f"{order.side} {plain(order.quantity)} {order.symbol} {order.client_order_id} was {order.status}: {reason}"
        self._alert(self.clock.session_date, f"vanished:{order.client_order_id}", detail)
        return self.context.ledger.save_order(
            order.model_copy(update={"status": OrderStatus.EXPIRED, "reason": reason, "updated_at": iso(self.clock.now)})
        )

    def _readable(self, all_of_them: Callable[[], list[R]], ids: Callable[[], list[str]], one: Callable[[str], R | None]) -> list[R]:
        """All that can be read: one item that cannot be is a failure of this pass, and of no other item."""
        try:
            return all_of_them()
        except LedgerCorrupt:
            found = (self._try(partial(one, key)) for key in ids())
            return [item for item in found if item is not None]

    # --- the session

    def _notice_missed_slots(self, session: Session) -> None:
        settings, ledger = self.context.settings, self.context.ledger
        for slot in settings.schedule.slots_of(session.date):
            begins, ends = slot.window(session.open, minutes=settings.schedule.slot_window_minutes)
            if self.clock.now < ends or (settings.row_slots and begins >= session.close):
                continue
            if ledger.decision(decision_id_of(AGENT, slot)) is None and not self._rests(slot):
                missed = f"no decision was received for {slot} by {iso(ends)}; see the log of decide"
                self._alert(session.date, f"slot-missed:{slot.name}", missed)

    def _rests(self, slot: Slot) -> bool:
        """Whether no decision is due, for what trades decides once a session."""
        settings = self.context.settings
        return slot.name in settings.row_slots[1:] and rests(trader_now(self.context.ledger, settings), slot, settings)

    def _watch(self, session: Session) -> None:
        context = self.context
        breakers.watch(
            session,
            account=self.account,
            clock=self.clock,
            ledger=context.ledger,
            broker=context.broker,
            market_data=context.market_data,
            settings=context.settings,
        )

    def _close(self, session: Session) -> dict[str, Any]:
        """Take the session's snapshot unless it is there, and tell and remember what it holds, whoever took it."""
        ledger, day = self.context.ledger, session.date.isoformat()
        snapshot = ledger.snapshot(day)
        outcome = "taken before" if snapshot is not None else "taken"
        if snapshot is None:
            orders = self._readable(partial(ledger.orders_of_day, day), partial(ledger.ids_of_day, day), ledger.order)
            try:
                snapshot = close_session(
                    session,
                    account=self.account,
                    orders=orders,
                    ledger=ledger,
                    broker=self.context.broker,
                    market_data=self.context.market_data,
                    now=self.clock.now,
                )
            except NoSnapshot as reason:
                self._alert(self.clock.session_date, "snapshot-missing", f"{day}: {reason}")
                return {"snapshot": f"not taken: {reason}"}
        self._report(snapshot)
        breakers.remember(session, snapshot, clock=self.clock, ledger=ledger, settings=self.context.settings)
        return {"snapshot": outcome, "equity": str(snapshot.equity), "drift": sorted(snapshot.drift)}

    def _close_late(self, session: Session) -> dict[str, Any]:
        """Close a session that nobody closed, before the next one opens; a split since then would be in the positions already."""
        ledger, broker = self.context.ledger, self.context.broker
        if ledger.snapshot(session.date.isoformat()) is not None:
            return {}
        positions = broker.positions()
        if not positions and ledger.latest_snapshot() is None:
            return {}  # nothing was ever here
        tomorrow, today = session.date + timedelta(days=1), self.clock.session_date
        if splits := splits_between(self.context.market_data, positions, first=tomorrow, last=today).events:
            names = ", ".join(sorted({symbol for symbol, _, _ in splits}))
            self._alert(today, "snapshot-missing", f"{session.date} was not closed, and {names} has split since")
            return {}
        return {"late": session.date.isoformat(), **{f"late_{name}": value for name, value in self._close(session).items()}}

    def _report(self, snapshot: Snapshot) -> None:
        day = self.clock.session_date
        closed = date.fromisoformat(snapshot.session)
        if snapshot.drift and last_snapshot(self.context.ledger, account=self.account.id, before=closed) is None:
            book = "; ".join(snapshot.drift.values())
            self._alert(day, "book-adopted", f"the ledger has no earlier snapshot of this account, its book is taken as it is: {book}")
        else:
            for symbol, detail in sorted(snapshot.drift.items()):
                self._alert(day, f"drift:{symbol}", f"{detail}; it is taken as it is, see docs/ledger.md")
        for symbol, detail in sorted(snapshot.carried.items()):
            self._alert(day, f"stale-price:{symbol}", f"{detail}; its position is kept and not traded")

    def _alert(self, day: date, rule: str, detail: str) -> None:
        raise_alert(ledger=self.context.ledger, rule=rule, session=day.isoformat(), detail=detail, time=iso(self.clock.now))
