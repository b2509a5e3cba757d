"""The ledger: one DynamoDB table, one named method per access pattern (`docs/ledger.md`).

Correctness of orders rests here: a decision and an order are put only where none was (`AlreadyThere` carries what is stored), an order
is put only by the holder of the lease (`Fenced` otherwise), an order is changed only from the version that was read (`Stale`
otherwise), and a fill enters in the same transaction as the order's new total. Reads that guard an order are strongly consistent; a
read that fails raises botocore's `ClientError`, which callers treat as halted, and an item that cannot be understood `LedgerCorrupt`.
Nothing is deleted.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from lambdas.common.environment import LedgerVariables, read
from lambdas.common.ledger.controls import Controls
from lambdas.common.ledger.item import LedgerCorrupt
from lambdas.common.ledger.notices import WAITING, Notice
from lambdas.common.ledger.records import (
    AlertRecord,
    Attribution,
    BrokerState,
    Decision,
    Fill,
    OrderOfDay,
    OrderRecord,
    ServedModel,
    ShadowDecision,
    Snapshot,
    decision_key,
    order_key,
)
from lambdas.common.ledger.runner_state import RunnerState
from lambdas.common.ledger.table import ABSENT, AlreadyThere, ConditionError, Fenced, LedgerConflictError, Stale, code_of
from lambdas.common.ledger.turns import Turns
from trading_env.errors import PapertapeError

__all__ = [
    "AlreadyThere",
    "CursorError",
    "Fenced",
    "Ledger",
    "LedgerConflictError",
    "LedgerCorrupt",
    "Page",
    "Stale",
    "ledger_from_environment",
    "ledger_of",
]


class CursorError(PapertapeError, ValueError):
    """A page cursor that this ledger did not give."""


@dataclass(frozen=True)
class Page:
    orders: tuple[OrderRecord, ...]
    cursor: str | None


@dataclass(frozen=True)
class DecisionPage:
    decisions: tuple[Decision, ...]
    cursor: str | None


class Ledger(Controls, Turns):
    """Named access to the table."""

    # --- decisions

    def open_decision(self, decision: Decision) -> None:
        """Put a new decision; raise `AlreadyThere` with the stored one."""
        try:
            self._put_new(decision)
        except ConditionError:
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

    def page_of_decisions(self, month: str, *, limit: int, cursor: str | None = None) -> DecisionPage:
        """Return one page of the decisions of `month`, newest first, and the cursor of the next (None at the end)."""
        items, following = self._page(self._month_query("decisions", month, Limit=limit, ScanIndexForward=False), cursor)
        return DecisionPage(tuple(Decision.of(item) for item in items), following)

    def working_decisions(self) -> list[Decision]:
        """Return what a batch has not finished. The index may lag, so each is read again from the table."""
        found = (self.decision(decision_id) for decision_id in self.working_ids())
        return [decision for decision in found if decision is not None and decision.state == "working"]

    def working_ids(self) -> list[str]:
        """Return the ids of what the index says is not finished: to look at each alone where one cannot be read."""
        return [item["unsettled_sk"] for item in self._unsettled("decisions")]

    # --- orders and fills

    def open_order(self, order: OrderRecord, *, fence: int) -> None:
        """Put a PENDING order while holding the lease; raise `Fenced`, or `AlreadyThere` with the stored order."""
        fenced = Fenced("the lease has passed on")
        try:
            self._transact([self._lease_is(fence), *self._new_order(order)], refused=[fenced, ConditionError(), None])
        except ConditionError:
            stored = self.order(order.client_order_id)
            if stored is None:
                raise Stale(f"order {order.client_order_id} was refused as present and then not found") from None
            raise AlreadyThere(stored) from None

    def put_external_order(self, order: OrderRecord) -> bool:
        """Put an order that the broker has and the ledger has not; False if it is there. It sends nothing, so it needs no lease."""
        try:
            self._transact(self._new_order(order), refused=[ConditionError(), None])
        except ConditionError:
            return False
        return True

    def save_order(self, order: OrderRecord, *, fill: Fill | None = None, fence: int | None = None) -> OrderRecord:
        """Replace the version that `order` was made from, with the fill that explains its new total; return it with its new version.

        Raises `Stale` if another writer was first; the fill is then not written either. What the broker shows may be recorded by anyone;
        with `fence`, only the holder of the lease may write (`Fenced`).
        """
        following = order.model_copy(update={"version": order.version + 1})
        stale = Stale(f"order {order.client_order_id} has changed since it was read")
        actions = [self._put(following, "version = :version", {":version": order.version})]
        refused: list[Exception | None] = [stale]
        if fill is not None:
            actions.append(self._put(fill, ABSENT))
            refused.append(stale)
        if fence is not None:
            actions.append(self._lease_is(fence))
            refused.append(Fenced("the lease has passed on"))
        self._transact(actions, refused=refused)
        return following

    def order(self, client_order_id: str) -> OrderRecord | None:
        return self._get(OrderRecord, order_key(client_order_id))

    def orders_by_id(self, client_order_ids: Sequence[str]) -> dict[str, OrderRecord]:
        """Return those that exist, by client order id; 100 per call."""
        orders = (OrderRecord.of(item) for item in self._items([order_key(one) for one in dict.fromkeys(client_order_ids)]))
        return {order.client_order_id: order for order in orders}

    def unsettled_orders(self) -> list[OrderRecord]:
        """Return the orders that can still change, read again from the table because the index may lag."""
        found = self.orders_by_id(self.unsettled_ids())
        return sorted(
            (order for order in found.values() if not order.terminal), key=lambda order: (order.created_at, order.client_order_id)
        )

    def unsettled_ids(self) -> list[str]:
        """Return the client order ids of what the index says can still change."""
        return [item["unsettled_sk"] for item in self._unsettled("orders")]

    def page_of_orders(self, month: str, *, limit: int = 100, cursor: str | None = None, newest_first: bool = False) -> Page:
        """Return one page of the orders of `month`, oldest first unless told, and the cursor of the next (None at the end)."""
        query = self._month_query("orders", month, Limit=limit, ScanIndexForward=not newest_first)
        items, following = self._page(query, cursor)
        return Page(tuple(OrderRecord.of(item) for item in items), following)

    def orders(self, month: str) -> list[OrderRecord]:
        return list(self._month(OrderRecord, "orders", month))

    def orders_of_day(self, day: str) -> list[OrderRecord]:
        """Return the orders created on `day` ("2020-01-02", UTC, which during trading hours is the session), oldest first.

        Strongly consistent: an order counts from the moment that it is PENDING.
        """
        return sorted(self.orders_by_id(self.ids_of_day(day)).values(), key=lambda order: (order.created_at, order.client_order_id))

    def ids_of_day(self, day: str) -> list[str]:
        """Return the client order ids of the orders created on `day`; strongly consistent."""
        return [one.client_order_id for one in self._query(OrderOfDay, f"day#{day}", "order#", "order$")]

    def fills_since(self, start: str, *, months: Sequence[str]) -> list[Fill]:
        """Return the fills after the instant `start` (ISO 8601 UTC) in `months`, oldest first in each."""
        found = []
        for month in months:
            query = self._month_query("fills", month)
            query["KeyConditionExpression"] += " AND month_sk > :start"
            query["ExpressionAttributeValues"][":start"] = f"{start}~"
            found += [Fill.of(item) for item in self._pages(query)]
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

    def snapshots_of(self, days: Sequence[str]) -> list[Snapshot]:
        """Return those of the sessions among `days`, oldest first; 100 per call."""
        found = (Snapshot.of(item) for item in self._items([{"pk": "snapshot", "sk": day} for day in days]))
        return sorted(found, key=lambda one: one.session)

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

    def put_attribution(self, attribution: Attribution) -> bool:
        """Put a session's attribution; False if it has one."""
        return self._put_once(attribution)

    def attributions(self, start: str, end: str) -> list[Attribution]:
        """Return the attributions of the sessions from `start` to `end`, both included."""
        return list(self._query(Attribution, "attribution", start, end))

    def put_broker_state(self, state: BrokerState) -> None:
        """Replace what was seen of the broker before."""
        self._table.put_item(Item=state.item())

    def broker_state(self) -> BrokerState | None:
        return self._get(BrokerState, {"pk": "state", "sk": "broker"})

    def put_runner_state(self, state: RunnerState) -> bool:
        """Replace the runner's last beat; False where a runner that began later has spoken, whose beat stays."""
        try:
            self._table.put_item(
                Item=state.item(),
                ConditionExpression="attribute_not_exists(pk) OR since <= :since",
                ExpressionAttributeValues={":since": state.since},
            )
        except ClientError as error:
            if code_of(error) == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def runner_state(self) -> RunnerState | None:
        """Return the runner's last beat, None where none ever ran."""
        return self._get(RunnerState, {"pk": "runner", "sk": "state"})

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

    def shadow_decisions_in(self, slot: str) -> list[ShadowDecision]:
        """What the models that watch would have done in `slot`, by model version."""
        return list(self._query(ShadowDecision, f"shadow#{slot}", "", "~"))

    # --- alerts

    def put_alert(self, alert: AlertRecord) -> bool:
        """Put an alert; False if this rule has already spoken in this session."""
        return self._put_once(alert)

    def has_alert(self, rule: str, *, session: str) -> bool:
        """Whether this rule has spoken in this session; strongly consistent."""
        key = AlertRecord(rule=rule, session=session, subject="", detail="", time="").keys()
        return self._get(AlertRecord, key) is not None

    def alerts(self, month: str) -> list[AlertRecord]:
        return list(self._query(AlertRecord, f"alert#{month}", "", "~"))

    # --- notices

    def put_notice(self, notice: Notice) -> bool:
        """Put a notice; False if this event has one."""
        return self._put_once(notice)

    def waiting_notices(self) -> list[Notice]:
        """Return what nobody was mailed yet, oldest first; read again from the table, because the index may lag."""
        found = (self._get(Notice, {"pk": "notice", "sk": item["unsettled_sk"]}) for item in self._unsettled(WAITING))
        return sorted((one for one in found if one is not None and not one.mailed), key=lambda one: (one.time, one.key))

    def mark_mailed(self, notice: Notice) -> None:
        self._table.put_item(Item=notice.model_copy(update={"mailed": True}).item())

    # --- what several of them use

    def _page(self, query: dict[str, Any], cursor: str | None) -> tuple[list[dict[str, Any]], str | None]:
        start = {} if cursor is None else {"ExclusiveStartKey": _decoded(cursor)}
        if start and start["ExclusiveStartKey"]["month"] != query["ExpressionAttributeValues"][":month"]:
            raise CursorError(f"cursor is of another list, was {cursor!r}")
        answer = self._table.query(**query, **start)
        last = answer.get("LastEvaluatedKey")
        return answer["Items"], _encoded(last) if last else None

    def _new_order(self, order: OrderRecord) -> list[dict[str, Any]]:
        place = OrderOfDay(day=order.created_at[:10], client_order_id=order.client_order_id)
        return [self._put(order, ABSENT), self._put(place)]


def _encoded(key: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(key, sort_keys=True).encode()).decode()


def _decoded(cursor: str) -> dict[str, str]:
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (binascii.Error, ValueError, RecursionError):
        raise CursorError(f"cursor is not one that this ledger gave, was {cursor!r}") from None
    if not isinstance(key, dict) or set(key) != {"pk", "sk", "month", "month_sk"} or not all(isinstance(v, str) for v in key.values()):
        raise CursorError(f"cursor is not one that this ledger gave, was {cursor!r}")
    return key


@lru_cache(maxsize=4)
def ledger_of(table: str) -> Ledger:
    """Return the ledger in `table`; one client per process, with short timeouts because a batch waits for it."""
    config = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    return Ledger(boto3.resource("dynamodb", config=config).Table(table))


def ledger_from_environment() -> Ledger:
    """Return the ledger that LEDGER_TABLE names."""
    return ledger_of(read(LedgerVariables).ledger_table)
