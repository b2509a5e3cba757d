"""The few shapes of a call to the ledger's DynamoDB table: get, query, put once, write all or none.

Promises: all reads are consistent but those of an index; a transaction that met another on its way is tried again, for nothing of
it was written. Failure: botocore's `ClientError`, `LedgerCorrupt` for an item that cannot be read, `ConditionError` for a put that found
the item there, and for callers the three ways in which a conditional write does not apply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from lambdas.common.ledger.item import Record
from trading_env.errors import PapertapeError

ABSENT = "attribute_not_exists(pk)"
BY_MONTH = "by_month"
UNSETTLED = "unsettled"
#: How often a change that another writer overtakes is made again.
RACES = 5

R = TypeVar("R", bound=Record)


class ConditionError(PapertapeError):
    """A put found the item there, or changed."""


class LedgerConflictError(PapertapeError, RuntimeError):
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


class Table:
    """Typed access to `table` (a boto3 DynamoDB Table resource)."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._client = table.meta.client

    def _get(self, model: type[R], key: dict[str, str]) -> R | None:
        item = self._table.get_item(Key=key, ConsistentRead=True).get("Item")
        return None if item is None else model.of(item)

    def _items(self, keys: Sequence[dict[str, str]]) -> Iterator[dict[str, Any]]:
        """Yield the items that exist of `keys`, 100 per call. What the table leaves out under load is asked for again, then an error."""
        pending, idle = list(keys), 0
        while pending:
            request = {self._table.name: {"Keys": pending[:100], "ConsistentRead": True}}
            answer = self._client.batch_get_item(RequestItems=request)
            left = answer.get("UnprocessedKeys", {}).get(self._table.name, {}).get("Keys", [])
            idle = idle + 1 if len(left) == len(pending[:100]) else 0
            if idle == RACES:
                problem = {"Code": "ProvisionedThroughputExceededException", "Message": f"{len(left)} items were not read in {RACES} calls"}
                raise ClientError({"Error": problem}, "BatchGetItem")
            pending = pending[100:] + left
            yield from answer["Responses"].get(self._table.name, [])

    def _put(self, record: Record, condition: str | None = None, values: dict[str, Any] | None = None) -> dict[str, Any]:
        put = {"TableName": self._table.name, "Item": record.item()}
        if condition is not None:
            put["ConditionExpression"] = condition
        if values is not None:
            put["ExpressionAttributeValues"] = values
        return {"Put": put}

    def _put_new(self, record: Record) -> None:
        try:
            self._table.put_item(Item=record.item(), ConditionExpression=ABSENT)
        except ClientError as error:
            if code_of(error) == "ConditionalCheckFailedException":
                raise ConditionError from None
            raise

    def _put_once(self, record: Record) -> bool:
        try:
            self._put_new(record)
        except ConditionError:
            return False
        return True

    def _transact(self, actions: list[dict[str, Any]], *, refused: Sequence[Exception | None]) -> None:
        """Write all `actions` or none; raise the exception in `refused` that belongs to the first condition that failed.

        Where another transaction was under way on an item, nothing was written and nothing is known of the conditions: it is tried again.
        """
        for attempt in range(RACES):
            try:
                self._client.transact_write_items(TransactItems=actions)
            except ClientError as error:
                if code_of(error) != "TransactionCanceledException":
                    raise
                reasons = [reason.get("Code") for reason in error.response.get("CancellationReasons", [])]
                for reason, exception in zip(reasons, refused, strict=False):
                    if reason == "ConditionalCheckFailed" and exception is not None:
                        raise exception from None
                if "TransactionConflict" not in reasons or attempt + 1 == RACES:
                    raise
            else:
                return

    def _month_query(self, what: str, month: str, **more: Any) -> dict[str, Any]:
        return {
            "IndexName": BY_MONTH,
            "KeyConditionExpression": "#month = :month",
            "ExpressionAttributeNames": {"#month": "month"},
            "ExpressionAttributeValues": {":month": f"{what}#{month}"},
            **more,
        }

    def _month(self, model: type[R], what: str, month: str) -> Iterator[R]:
        return (model.of(item) for item in self._pages(self._month_query(what, month)))

    def _unsettled(self, what: str) -> Iterator[dict[str, Any]]:
        query = {
            "IndexName": UNSETTLED,
            "KeyConditionExpression": "unsettled = :what",
            "ExpressionAttributeValues": {":what": what},
        }
        return self._pages(query)

    def _query(self, model: type[R], pk: str, start: str, end: str) -> Iterator[R]:
        values = {":pk": pk, ":start": start or " ", ":end": end}
        query = {
            "KeyConditionExpression": "pk = :pk AND sk BETWEEN :start AND :end",
            "ExpressionAttributeValues": values,
            "ConsistentRead": True,
        }
        return (model.of(item) for item in self._pages(query))

    def _pages(self, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        while True:
            answer = self._table.query(**query)
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            query = {**query, "ExclusiveStartKey": answer["LastEvaluatedKey"]}


def code_of(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])
