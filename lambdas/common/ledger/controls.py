"""What decides whether anything may be sent, in the ledger's table: trading state, breakers, and the executor's lease.

Promises: each change follows the version that it was made from, whoever else writes; the trading state and its audit trail change together
or not at all; a lease has a fencing number that only rises. Reads are strongly consistent. Failure: `Stale` where other writers were first
every time; a state that cannot be read raises botocore's `ClientError`, which callers treat as halted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from lambdas.common.ledger.notices import Notice
from lambdas.common.ledger.records import Breakers, StateChange, TradingState
from lambdas.common.ledger.table import ABSENT, RACES, ConditionError, Stale, Table, code_of
from schema.api_requests import State

LEASE = {"pk": "lease", "sk": "executor"}
#: What an automatic change may only raise.
SEVERITY: dict[State, int] = {"active": 0, "reduce_only": 1, "halted": 2}


class Controls(Table):
    """Named access to the items that hold trading back."""

    def trading_state(self) -> TradingState:
        """Return the state, strongly consistent. Where nobody ever set one, it is active; a failed read raises and means halted."""
        return self._get(TradingState, TradingState().keys()) or TradingState()

    def switches(self) -> tuple[TradingState, Breakers]:
        """Return the trading state and the breakers as one read, strongly consistent: what is asked before each order."""
        items = {item["sk"]: item for item in self._items([TradingState().keys(), Breakers().keys()])}
        state, breakers = items.get("trading"), items.get("breakers")
        return (
            TradingState() if state is None else TradingState.of(state),
            Breakers() if breakers is None else Breakers.of(breakers),
        )

    def set_trading_state(
        self,
        state: State,
        *,
        reason: str,
        time: str,
        by: str,
        automatic: bool = False,
        expected: int | None = None,
        account: str | None = None,
    ) -> TradingState:
        """Set the state and append to its audit trail, both or neither, after whatever another writer has set meanwhile; return what holds.

        `active` re-arms the breakers in the same transaction, and the trail says which; they count from the equity of the next look. With
        `account`, this app's account is that one from now on. An `automatic` change only tightens: what is as tight already, a person's
        halt above all, stays with its reason. With `expected`, the version that the caller has read, a state that has changed since raises
        `Stale` and stays.
        """
        for _ in range(RACES):
            was = self.trading_state()
            if expected is not None and was.version != expected:
                raise Stale(f"the trading state is {was.state} by {was.by}, version {was.version}, not {expected} any more")
            if automatic and SEVERITY[state] <= SEVERITY[was.state]:
                return was
            breakers = self.breakers()
            rearmed = _rearmed(breakers, account=account) if state == "active" else breakers
            new = TradingState(state=state, reason=reason, since=time, by=by, automatic=automatic, version=was.version + 1)
            fields = new.model_dump(include={"state", "reason", "by", "automatic", "version"})
            cleared = breakers.tripped if rearmed != breakers else {}
            change = StateChange(**fields, was=was.state, time=time, rearmed=cleared, account=account)
            writes = [self._next(new, was.version), self._put(change, ABSENT)]
            if not automatic:  # what the app does itself is an alert
                writes.append(self._put(_notice(change)))
            if rearmed != breakers:
                writes.append(self._next(rearmed.model_copy(update={"version": breakers.version + 1}), breakers.version))
            try:
                self._transact(writes, refused=[ConditionError() for _ in writes])
            except ConditionError:
                continue
            return new
        raise Stale(f"the trading state changed {RACES} times while it was set to {state}")

    def state_changes(self, month: str) -> list[StateChange]:
        return list(self._query(StateChange, f"state_change#{month}", "", "~"))

    def breakers(self) -> Breakers:
        return self._get(Breakers, Breakers().keys()) or Breakers()

    def change_breakers(self, change: Callable[[Breakers], Breakers]) -> Breakers:
        """Replace the breakers by what `change` makes of them; if another writer was first, of what that one wrote."""
        for _ in range(RACES):
            was = self.breakers()
            now = change(was)
            if now == was:
                return was
            following = now.model_copy(update={"version": was.version + 1})
            try:
                self._transact([self._next(following, was.version)], refused=[ConditionError()])
            except ConditionError:
                continue
            return following
        raise Stale(f"the breakers changed {RACES} times while they were written")

    def acquire_lease(self, owner: str, *, now: float, seconds: float) -> int | None:
        """Take the executor's lease until `now + seconds` (wall clock) and return its fencing number; None while another holds it."""
        try:
            answer = self._table.update_item(
                Key=LEASE,
                UpdateExpression="SET #owner = :owner, expires = :expires, kind = :kind ADD fence :one",
                ConditionExpression="attribute_not_exists(pk) OR expires <= :now",
                ExpressionAttributeNames={"#owner": "owner"},
                ExpressionAttributeValues={
                    ":owner": owner,
                    ":expires": int((now + seconds) * 1000),
                    ":now": int(now * 1000),
                    ":one": 1,
                    ":kind": "lease",
                },
                ReturnValues="UPDATED_NEW",
            )
        except ClientError as error:
            if code_of(error) == "ConditionalCheckFailedException":
                return None
            raise
        return int(answer["Attributes"]["fence"])

    def release_lease(self, fence: int) -> None:
        """Give the lease back; a lease that has passed on is left alone."""
        try:
            self._table.update_item(
                Key=LEASE,
                UpdateExpression="SET expires = :never",
                ConditionExpression="fence = :fence",
                ExpressionAttributeValues={":never": 0, ":fence": fence},
            )
        except ClientError as error:
            if code_of(error) != "ConditionalCheckFailedException":
                raise

    def _lease_is(self, fence: int) -> dict[str, Any]:
        held = {"ConditionExpression": "fence = :fence", "ExpressionAttributeValues": {":fence": fence}}
        return {"ConditionCheck": {"TableName": self._table.name, "Key": LEASE, **held}}

    def _next(self, record: TradingState | Breakers, version: int) -> dict[str, Any]:
        """Put the successor of what had `version`, or the first one."""
        return self._put(record, "attribute_not_exists(version) OR version = :version", {":version": version})


def _notice(change: StateChange) -> Notice:
    rearmed = f" This re-armed {', '.join(change.rearmed)}." if change.rearmed else ""
    account = f" It goes on with account {change.account}." if change.account else ""
    return Notice(
        key=f"state:{change.version:06d}",
        time=change.time,
        subject=f"trading is {change.state}",
        detail=f"{change.by} set trading from {change.was} to {change.state}: {change.reason}.{rearmed}{account}",
    )


def _rearmed(breakers: Breakers, *, account: str | None) -> Breakers:
    """Nothing tripped and nothing to fall from, if anything had; and nothing at all of another account than `account`."""
    if account is not None and account != breakers.account_id:
        return Breakers(account_id=account, version=breakers.version)
    if not breakers.tripped:
        return breakers
    return Breakers(**breakers.model_dump(include={"account_id", "last_close_session", "version"}))
