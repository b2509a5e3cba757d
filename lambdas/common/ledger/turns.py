"""Whose turn it is to reconcile for the runner's events: many ask at once, and one pass answers them all.

Promise: whoever asks either has the turn, or is seen by the run that has it before that run gives it back. A dead run's turn ends by
itself. It says who may begin, not who may order: that is the executor's lease. Failure: botocore's `ClientError`.
"""

from __future__ import annotations

from botocore.exceptions import ClientError

from lambdas.common.ledger.controls import LEASE
from lambdas.common.ledger.table import Table, code_of

TURN = {"pk": "lease", "sk": "reconcile"}


class Turns(Table):
    """Named access to the item that counts who asked."""

    def ask_for_turn(self, owner: str, *, now: float, seconds: float) -> int | None:
        """Ask, and return how often anybody has, with the turn until `now + seconds` (wall clock); None while another run has it."""
        self._table.update_item(
            Key=TURN, UpdateExpression="SET kind = :kind ADD asked :one", ExpressionAttributeValues={":kind": "turn", ":one": 1}
        )
        try:
            answer = self._table.update_item(
                Key=TURN,
                UpdateExpression="SET #owner = :owner, expires = :expires",
                ConditionExpression="attribute_not_exists(expires) OR expires <= :now",
                ExpressionAttributeNames={"#owner": "owner"},
                ExpressionAttributeValues={":owner": owner, ":expires": int((now + seconds) * 1000), ":now": int(now * 1000)},
                ReturnValues="ALL_NEW",
            )
        except ClientError as error:
            if code_of(error) == "ConditionalCheckFailedException":
                return None
            raise
        return int(answer["Attributes"]["asked"])

    def end_turn(self, owner: str, *, asked: int | None) -> int | None:
        """Give the turn back, unless somebody has asked since it was `asked`: then return how often by now. With None it ends whatever
        was asked. A turn that has passed on is left alone."""
        unchanged = "" if asked is None else " AND asked = :asked"
        try:
            self._table.update_item(
                Key=TURN,
                UpdateExpression="SET expires = :never",
                ConditionExpression=f"#owner = :owner{unchanged}",
                ExpressionAttributeNames={"#owner": "owner"},
                ExpressionAttributeValues={":never": 0, ":owner": owner, **({} if asked is None else {":asked": asked})},
            )
        except ClientError as error:
            if code_of(error) != "ConditionalCheckFailedException":
                raise
            item = self._table.get_item(Key=TURN, ConsistentRead=True)["Item"]
            return int(item["asked"]) if item["owner"] == owner and asked is not None else None
        return None

    def lease_is_free(self, *, now: float) -> bool:
        """Whether nobody has the executor's lease at `now` (wall clock); it may be taken in the next moment."""
        item = self._table.get_item(Key=LEASE, ConsistentRead=True).get("Item")
        return item is None or int(item["expires"]) <= int(now * 1000)
