"""One pass of reconciliation: finish batches, settle orders, adopt what others did, close the session, and notice what is missing.

Promises: starting and recovering are this one path, from what the ledger and the broker hold. Reconciling twice changes nothing the second
time. A lost ledger is rebuilt from the broker and sends no order, because only decisions that the ledger holds as working are run. Another
executor's lease is respected, and another account than this app's halts it. "Now" is the broker's clock. What cannot be read or settled
leaves the rest to be done; then the first failure leaves the function, and the schedule tries again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.common.broker.alpaca import Account, BrokerError, Clock, Session
from lambdas.common.ledger.alerts import raise_alert
from lambdas.common.ledger.ledger import Fenced, LedgerCorrupt, Stale
from lambdas.common.ledger.records import AGENT, Decision, OrderRecord, Snapshot, plain
from lambdas.common.orders.execution_context import Desk
from lambdas.common.orders.order_sync import Settler
from lambdas.common.orders.splits import splits_between
from lambdas.common.telemetry import logger
from lambdas.reconcile import breakers
from lambdas.reconcile.daily_snapshot import NoSnapshot, close_session, last_snapshot
from lambdas.reconcile.external_orders import adopt
from schema.exchange_time import iso
from schema.slot import decision_id_of

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


def reconcile(desk: Desk, *, archive: Archive | None = None) -> dict[str, Any]:
    """Run one pass and return what it did. `archive` is given a session that has closed, and the time."""
    run = _Pass(desk, clock=desk.broker.clock(), account=desk.broker.account())
    summary = run.all()
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
    desk: Desk
    clock: Clock
    account: Account
    failures: list[Exception] = field(default_factory=list)

    def all(self) -> dict[str, Any]:
        summary: dict[str, Any] = {"now": iso(self.clock.now)}
        if (stranger := self._refuse_another_account()) is not None:
            return {**summary, "session": None, "account": stranger}
        summary |= self._finish()
        last = self.desk.ledger.latest_snapshot()
        adopted = self._try(partial(adopt, ledger=self.desk.ledger, broker=self.desk.broker, clock=self.clock, last=last))
        summary |= {"adopted": adopted.foreign + adopted.recovered} if adopted else {}
        today, now = self.clock.session_date, self.clock.now
        recent = self.desk.broker.sessions(today - RECENT, today)
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
        pinned = self.desk.ledger.breakers().account_id
        if pinned is None or pinned == self.account.id:
            return None
        detail = f"the broker's account is {self.account.id}, this app's is {pinned}"
        now = iso(self.clock.now)
        self.desk.ledger.set_trading_state("halted", reason=f"account-changed: {detail}", time=now, by="reconcile", automatic=True)
        told = f"{detail}: it was reset, or the keys are another's; trading is halted, and nothing is reconciled"
        self._alert(self.clock.session_date, "account-changed", told)
        return detail

    # --- batches and orders

    def _finish(self) -> dict[str, Any]:
        """Bring every working decision as far as it goes, and settle orders that no working decision owns."""
        ledger = self.desk.ledger
        decisions = [one for one in self._readable(ledger.working_decisions, ledger.working_ids, ledger.decision) if one.state == "working"]
        orders = [one for one in self._readable(ledger.unsettled_orders, ledger.unsettled_ids, ledger.order) if not one.terminal]
        told = {"finished": 0, "working": len(decisions), "settled": 0}
        if not decisions and not orders:
            return told
        fence = self.desk.lease()
        if fence is None:
            logger.warning("another executor holds the lease")
            return told
        executor = self.desk.executor(fence)
        try:
            orders = [self._try(partial(self._settle_old, order)) or order for order in orders]
            after = [run for decision in decisions if (run := self._try(partial(executor.run, decision, clock=self.clock))) is not None]
            owned = {decision.decision_id for decision in after}
            others = [order for order in orders if order.decision_id not in owned]
            settled = self._try(partial(executor.settle_all, others, now=self.clock.now)) or {}
        except Fenced:
            logger.warning("the lease has passed on")
            return told
        finally:
            ledger.release_lease(fence)
        done = sum(decision.state == "done" for decision in after)
        return {"finished": done, "working": len(decisions) - done, "settled": sum(order.terminal for order in settled.values())}

    def _settle_old(self, order: OrderRecord) -> OrderRecord:
        """End an order of an earlier session that the broker has shown and does not have any more, as after a reset of the account.

        No order outlives its session, and one that was shown is otherwise never called missing: its batch would wait for it for ever.
        """
        if order.broker_id is None or order.created_at[:10] >= self.clock.session_date.isoformat():
            return order
        seen = self.desk.broker.order_by_client_id(order.client_order_id)
        if seen is not None:
            return Settler(ledger=self.desk.ledger, broker=self.desk.broker).take(order, seen, now=self.clock.now)
        reason = "the broker does not have it any more, and its session is over"
        detail = f"{order.side} {plain(order.quantity)} {order.symbol} {order.client_order_id} was {order.status}: {reason}"
        self._alert(self.clock.session_date, f"vanished:{order.client_order_id}", detail)
        return self.desk.ledger.save_order(
            order.model_copy(update={"status": "expired", "reason": reason, "updated_at": iso(self.clock.now)})
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
        schedule = self.desk.settings.schedule
        for slot in schedule.slots_of(session.date):
            _, ends = slot.window(session.open, minutes=schedule.slot_window_minutes)
            if self.clock.now >= ends and self.desk.ledger.decision(decision_id_of(AGENT, slot)) is None:
                told = f"no decision was received for {slot} by {iso(ends)}; see the log of decide"
                self._alert(session.date, f"missed-slot:{slot.name}", told)

    def _watch(self, session: Session) -> None:
        desk = self.desk
        breakers.watch(session, account=self.account, clock=self.clock, ledger=desk.ledger, broker=desk.broker, settings=desk.settings)

    def _close(self, session: Session) -> dict[str, Any]:
        """Take the session's snapshot unless it is there, and tell and remember what it holds, whoever took it."""
        ledger, day = self.desk.ledger, session.date.isoformat()
        snapshot = ledger.snapshot(day)
        outcome = "taken before" if snapshot is not None else "taken"
        if snapshot is None:
            orders = self._readable(partial(ledger.orders_of_day, day), partial(ledger.ids_of_day, day), ledger.order)
            try:
                snapshot = close_session(
                    session, account=self.account, orders=orders, ledger=ledger, broker=self.desk.broker, now=self.clock.now
                )
            except NoSnapshot as reason:
                self._alert(self.clock.session_date, "no-snapshot", f"{day}: {reason}")
                return {"snapshot": f"not taken: {reason}"}
        self._tell(snapshot)
        breakers.remember(session, snapshot, clock=self.clock, ledger=ledger, settings=self.desk.settings)
        return {"snapshot": outcome, "equity": str(snapshot.equity), "drift": sorted(snapshot.drift)}

    def _close_late(self, session: Session) -> dict[str, Any]:
        """Close a session that nobody closed, before the next one opens; a split since then would be in the positions already."""
        ledger, broker = self.desk.ledger, self.desk.broker
        if ledger.snapshot(session.date.isoformat()) is not None:
            return {}
        positions = broker.positions()
        if not positions and ledger.latest_snapshot() is None:
            return {}  # nothing was ever here
        tomorrow, today = session.date + timedelta(days=1), self.clock.session_date
        if splits := splits_between(broker, positions, first=tomorrow, last=today).events:
            names = ", ".join(sorted({symbol for symbol, _, _ in splits}))
            self._alert(today, "no-snapshot", f"{session.date} was not closed, and {names} has split since")
            return {}
        return {"late": session.date.isoformat(), **{f"late_{name}": value for name, value in self._close(session).items()}}

    def _tell(self, snapshot: Snapshot) -> None:
        day = self.clock.session_date
        closed = date.fromisoformat(snapshot.session)
        if snapshot.drift and last_snapshot(self.desk.ledger, account=self.account.id, before=closed) is None:
            told = "; ".join(snapshot.drift.values())
            self._alert(day, "book-adopted", f"the ledger has no earlier snapshot of this account, its book is taken as it is: {told}")
        else:
            for symbol, detail in sorted(snapshot.drift.items()):
                self._alert(day, f"drift:{symbol}", f"{detail}; it is adopted as it is, see docs/ledger.md")
        for symbol, detail in sorted(snapshot.carried.items()):
            self._alert(day, f"stale-price:{symbol}", f"{detail}; its position is kept and not traded")

    def _alert(self, day: date, rule: str, detail: str) -> None:
        raise_alert(ledger=self.desk.ledger, rule=rule, session=day.isoformat(), detail=detail, time=iso(self.clock.now))
