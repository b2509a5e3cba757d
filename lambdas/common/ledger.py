"""The ledger: one DynamoDB table, one named method an access pattern (`docs/ledger.md`).

Correctness of orders rests here: a decision and an order are put only where none was (`AlreadyThere` carries what is stored), an order
is put only by the holder of the lease (`Fenced` otherwise), an order is changed only from the version that was read (`Stale`
otherwise), and a fill enters in the same transaction as the order's new total. Reads that guard an order are strongly consistent; a
read that fails raises botocore's `ClientError`, which callers treat as halted. Nothing is deleted.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from lambdas.common.environment import LedgerVariables, read
from lambdas.common.records import (
    AlertRecord,
    Breakers,
    Decision,
    Fill,
    OrderRecord,
    Record,
    ServedModel,
    ShadowDecision,
    Snapshot,
    State,
    StateChange,
    TradingState,
    decision_key,
    order_key,
)

LEASE = {"pk": "lease", "sk": "executor"}
BY_MONTH = "by_month"
UNSETTLED = "unsettled"
#: How often a change that another writer overtakes is made again.
RACES = 5

R = TypeVar("R", bound=Record)


class LedgerConflictError(RuntimeError):
    """Base of the three ways in which a conditional write does not apply."""


class AlreadyThere(LedgerConflictError):  # noqa: N818 -- these name what happened
    """The item exists; `stored` is what is there."""

    def __init__(self, stored: Record) -> None:
        super().__init__(f"the ledger already has this {stored.kind}")
        self.stored = stored


class Fenced(LedgerConflictError):  # noqa: N818 -- these name what happened
    """The lease has passed to another executor since this one took it: this one must stop."""


class Stale(LedgerConflictError):  # noqa: N818 -- these name what happened
    """The item has changed since it was read: read it again and apply the change to that."""


class CursorError(ValueError):
    """A page cursor that this ledger did not give."""


@dataclass(frozen=True)
class Page:
    orders: tuple[OrderRecord, ...]
    cursor: str | None


class Ledger:
    """Named access to `table` (a boto3 DynamoDB Table resource)."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._client = table.meta.client

    # --- decisions

    def open_decision(self, decision: Decision) -> None:
        """Put a new decision; raise `AlreadyThere` with the stored one."""
        try:
            self._put_new(decision)
        except _ConditionError:
            stored = self.decision(decision.decision_id)
            if stored is None:
                raise Stale(f"decision {decision.decision_id} was refused as present and then not found") from None
            raise AlreadyThere(stored) from None

    def save_decision(self, decision: Decision, *, fence: int) -> None:
        """Replace a decision while holding the lease; raise `Fenced` if it has passed on."""
        self._transact([self._lease_is(fence), self._put(decision)], refused=[Fenced("the lease has passed on"), None])

    def decision(self, decision_id: str) -> Decision | None:
        return self._get(Decision, decision_key(decision_id))

    def decisions(self, month: str) -> list[Decision]:
        """Return the decisions of `month` ("2020-01"), manual ones and flattens included, oldest first."""
        return list(self._month(Decision, "decisions", month))

    def working_decisions(self) -> list[Decision]:
        """Return what a batch has not finished. The index may lag, so each is read again from the table."""
        found = (self.decision(item["decision_id"]) for item in self._unsettled("decisions"))
        return [decision for decision in found if decision is not None and decision.state == "working"]

    # --- orders and fills

    def open_order(self, order: OrderRecord, *, fence: int) -> None:
        """Put a PENDING order while holding the lease; raise `Fenced`, or `AlreadyThere` with the stored order."""
        put = {"Put": {**self._put(order)["Put"], "ConditionExpression": "attribute_not_exists(pk)"}}
        try:
            self._transact([self._lease_is(fence), put], refused=[Fenced("the lease has passed on"), _ConditionError()])
        except _ConditionError:
            stored = self.order(order.client_order_id)
            if stored is None:
                raise Stale(f"order {order.client_order_id} was refused as present and then not found") from None
            raise AlreadyThere(stored) from None

    def save_order(self, order: OrderRecord, *, fill: Fill | None = None) -> OrderRecord:
        """Replace the version that `order` was made from, with the fill that explains its new total; return it with its new version.

        Raises `Stale` if another writer was first; the fill is then not written either.
        """
        following = order.model_copy(update={"version": order.version + 1})
        unchanged = {"ConditionExpression": "version = :version", "ExpressionAttributeValues": {":version": order.version}}
        put = {"Put": {**self._put(following)["Put"], **unchanged}}
        stale = Stale(f"order {order.client_order_id} has changed since it was read")
        if fill is None:
            self._transact([put], refused=[stale])
        else:
            new = {"Put": {**self._put(fill)["Put"], "ConditionExpression": "attribute_not_exists(pk)"}}
            self._transact([put, new], refused=[stale, stale])
        return following

    def order(self, client_order_id: str) -> OrderRecord | None:
        return self._get(OrderRecord, order_key(client_order_id))

    def orders_by_id(self, client_order_ids: Sequence[str]) -> dict[str, OrderRecord]:
        """Return those that exist, by client order id; 100 a call."""
        found: dict[str, OrderRecord] = {}
        pending = [order_key(one) for one in client_order_ids]
        while pending:
            request = {self._table.name: {"Keys": pending[:100], "ConsistentRead": True}}
            answer = self._client.batch_get_item(RequestItems=request)
            left = answer.get("UnprocessedKeys", {}).get(self._table.name, {}).get("Keys", [])
            pending = pending[100:] + left
            for item in answer["Responses"].get(self._table.name, []):
                order = OrderRecord.of(item)
                found[order.client_order_id] = order
        return found

    def unsettled_orders(self) -> list[OrderRecord]:
        """Return the orders that can still change, read again from the table because the index may lag."""
        found = self.orders_by_id([item["client_order_id"] for item in self._unsettled("orders")])
        return sorted(
            (order for order in found.values() if not order.terminal), key=lambda order: (order.created_at, order.client_order_id)
        )

    def page_of_orders(self, month: str, *, limit: int = 100, cursor: str | None = None) -> Page:
        """Return one page of the orders of `month`, oldest first, and the cursor of the next (None at the end)."""
        query = self._month_query("orders", month, Limit=limit)
        if cursor is not None:
            query["ExclusiveStartKey"] = _decoded(cursor)
        answer = self._table.query(**query)
        last = answer.get("LastEvaluatedKey")
        return Page(tuple(OrderRecord.of(item) for item in answer["Items"]), _encoded(last) if last else None)

    def orders(self, month: str) -> list[OrderRecord]:
        return list(self._month(OrderRecord, "orders", month))

    def orders_of_day(self, day: str) -> list[OrderRecord]:
        """Return the orders created on `day` ("2020-01-02", UTC, which during trading hours is the session), oldest first."""
        query = self._month_query("orders", day[:7])
        query["KeyConditionExpression"] += " AND begins_with(month_sk, :day)"
        query["ExpressionAttributeValues"][":day"] = day
        return [OrderRecord.of(item) for item in _pages(self._table.query, query)]

    def fills_since(self, start: str, *, months: Sequence[str]) -> list[Fill]:
        """Return the fills after the instant `start` (ISO 8601 UTC) in `months`, oldest first in each."""
        found = []
        for month in months:
            query = self._month_query("fills", month)
            query["KeyConditionExpression"] += " AND month_sk > :start"
            query["ExpressionAttributeValues"][":start"] = f"{start}~"
            found += [Fill.of(item) for item in _pages(self._table.query, query)]
        return found

    def fills(self, month: str) -> list[Fill]:
        return list(self._month(Fill, "fills", month))

    def fills_of(self, client_order_id: str) -> list[Fill]:
        return list(self._query(Fill, f"order#{client_order_id}", "fill#", "fill$"))

    # --- snapshots

    def put_snapshot(self, snapshot: Snapshot) -> bool:
        """Put a session's snapshot; False if the session already has one, which stays as it is."""
        return self._put_once(snapshot)

    def snapshot(self, session: str) -> Snapshot | None:
        return self._get(Snapshot, {"pk": "snapshot", "sk": session})

    def latest_snapshot(self, *, before: str | None = None) -> Snapshot | None:
        """Return the newest snapshot, of a session before `before` if given."""
        condition: dict[str, Any] = {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": "snapshot"}}
        if before is not None:
            condition = {"KeyConditionExpression": "pk = :pk AND sk < :sk", "ExpressionAttributeValues": {":pk": "snapshot", ":sk": before}}
        items = self._table.query(**condition, ScanIndexForward=False, Limit=1, ConsistentRead=True)["Items"]
        return Snapshot.of(items[0]) if items else None

    def snapshots(self, start: str, end: str) -> list[Snapshot]:
        """Return the snapshots of the sessions from `start` to `end`, both included."""
        return list(self._query(Snapshot, "snapshot", start, end))

    # --- trading state, breakers, lease

    def trading_state(self) -> TradingState:
        """Return the state, strongly consistent. Where nobody ever set one, it is active; a failed read raises and means halted."""
        return self._get(TradingState, TradingState().keys()) or TradingState()

    def set_trading_state(self, state: State, *, reason: str, time: str, by: str) -> TradingState:
        """Set the state and append to its audit trail, both or neither."""
        was = self.trading_state().state
        new = TradingState(state=state, reason=reason, since=time, by=by)
        change = StateChange(state=state, was=was, reason=reason, time=time, by=by)
        self._transact([self._put(new), self._put(change)], refused=[None, None])
        return new

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
                self._table.put_item(
                    Item=following.item(),
                    ConditionExpression="attribute_not_exists(version) OR version = :version",
                    ExpressionAttributeValues={":version": was.version},
                )
            except ClientError as error:
                if _code(error) != "ConditionalCheckFailedException":
                    raise
            else:
                return following
        raise Stale(f"the breakers changed {RACES} times while they were written")

    def rearm_breakers(self) -> None:
        """Clear what has tripped and count from the equity of the next look: a person has decided to go on."""
        kept = {"account_id", "last_close_session", "version"}
        self.change_breakers(lambda was: Breakers(**was.model_dump(include=kept)) if was.tripped else was)

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
            if _code(error) == "ConditionalCheckFailedException":
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
            if _code(error) != "ConditionalCheckFailedException":
                raise

    # --- models

    def incumbent(self) -> ServedModel | None:
        return self._get(ServedModel, {"pk": "model", "sk": "incumbent"})

    def shadow(self) -> ServedModel | None:
        return self._get(ServedModel, {"pk": "model", "sk": "shadow"})

    def put_model(self, model: ServedModel) -> None:
        """Point a role (incumbent or shadow) to a model; the change is the deployment."""
        self._table.put_item(Item=model.item())

    def put_shadow_decision(self, decision: ShadowDecision) -> bool:
        return self._put_once(decision)

    def shadow_decisions(self, month: str) -> list[ShadowDecision]:
        return list(self._month(ShadowDecision, "shadow", month))

    # --- alerts

    def put_alert(self, alert: AlertRecord) -> bool:
        """Put an alert; False if this rule has already spoken in this session."""
        return self._put_once(alert)

    def alerts(self, month: str) -> list[AlertRecord]:
        return list(self._query(AlertRecord, f"alert#{month}", "", "~"))

    # --- the few shapes of a call

    def _get(self, model: type[R], key: dict[str, str]) -> R | None:
        item = self._table.get_item(Key=key, ConsistentRead=True).get("Item")
        return None if item is None else model.of(item)

    def _put(self, record: Record) -> dict[str, Any]:
        return {"Put": {"TableName": self._table.name, "Item": record.item()}}

    def _put_new(self, record: Record) -> None:
        try:
            self._table.put_item(Item=record.item(), ConditionExpression="attribute_not_exists(pk)")
        except ClientError as error:
            if _code(error) == "ConditionalCheckFailedException":
                raise _ConditionError from None
            raise

    def _put_once(self, record: Record) -> bool:
        try:
            self._put_new(record)
        except _ConditionError:
            return False
        return True

    def _lease_is(self, fence: int) -> dict[str, Any]:
        held = {"ConditionExpression": "fence = :fence", "ExpressionAttributeValues": {":fence": fence}}
        return {"ConditionCheck": {"TableName": self._table.name, "Key": LEASE, **held}}

    def _transact(self, actions: list[dict[str, Any]], *, refused: list[Exception | None]) -> None:
        """Write all `actions` or none; raise the exception in `refused` that belongs to the first condition that failed."""
        try:
            self._client.transact_write_items(TransactItems=actions)
        except ClientError as error:
            if _code(error) != "TransactionCanceledException":
                raise
            for reason, exception in zip(error.response.get("CancellationReasons", []), refused, strict=False):
                if reason.get("Code") == "ConditionalCheckFailed" and exception is not None:
                    raise exception from None
            raise

    def _month_query(self, what: str, month: str, **more: Any) -> dict[str, Any]:
        return {
            "IndexName": BY_MONTH,
            "KeyConditionExpression": "#month = :month",
            "ExpressionAttributeNames": {"#month": "month"},
            "ExpressionAttributeValues": {":month": f"{what}#{month}"},
            **more,
        }

    def _month(self, model: type[R], what: str, month: str) -> Iterator[R]:
        return (model.of(item) for item in _pages(self._table.query, self._month_query(what, month)))

    def _unsettled(self, what: str) -> Iterator[dict[str, Any]]:
        query = {
            "IndexName": UNSETTLED,
            "KeyConditionExpression": "unsettled = :what",
            "ExpressionAttributeValues": {":what": what},
        }
        return _pages(self._table.query, query)

    def _query(self, model: type[R], pk: str, start: str, end: str) -> Iterator[R]:
        values = {":pk": pk, ":start": start or " ", ":end": end}
        query = {
            "KeyConditionExpression": "pk = :pk AND sk BETWEEN :start AND :end",
            "ExpressionAttributeValues": values,
            "ConsistentRead": True,
        }
        return (model.of(item) for item in _pages(self._table.query, query))


class _ConditionError(Exception):
    """A put found the item there."""


def _pages(query: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    while True:
        answer = query(**arguments)
        yield from answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return
        arguments = {**arguments, "ExclusiveStartKey": answer["LastEvaluatedKey"]}


def _code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])


def _encoded(key: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(key, sort_keys=True).encode()).decode()


def _decoded(cursor: str) -> dict[str, str]:
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (binascii.Error, ValueError):
        raise CursorError(f"cursor is not one that GET /orders gave, was {cursor!r}") from None
    if not isinstance(key, dict) or set(key) != {"pk", "sk", "month", "month_sk"} or not all(isinstance(v, str) for v in key.values()):
        raise CursorError(f"cursor is not one that GET /orders gave, was {cursor!r}")
    return key


@lru_cache(maxsize=4)
def ledger_of(table: str) -> Ledger:
    """Return the ledger in `table`; one client a process, with short timeouts because a batch waits for it."""
    config = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    return Ledger(boto3.resource("dynamodb", config=config).Table(table))


def ledger_from_environment() -> Ledger:
    """Return the ledger that LEDGER_TABLE names."""
    return ledger_of(read(LedgerVariables).ledger_table)
