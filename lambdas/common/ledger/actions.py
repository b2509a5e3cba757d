"""What a person did through the web app, and the names that they watch: ledger items, and the two access patterns that they need.

Promise: an idempotency key is one action, whoever repeats it; what was answered is stored with it and is the answer from then on.
`AlreadyThere` carries the stored action; a read or write that fails raises botocore's `ClientError`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import boto3
from botocore.config import Config

from lambdas.common.ledger.item import Record
from lambdas.common.ledger.table import AlreadyThere, ConditionError, Stale, Table


class ActionRecord(Record):
    """One write of a `user` (the name that they signed in with): `name` says which, `body_sha256` and `body` what they asked for, `status`
    and `answer` (JSON) what came of it; None while nobody knows."""

    kind: ClassVar[str] = "action"
    key: str
    user: str
    name: str
    body: str
    body_sha256: str
    at: str
    status: int | None = None
    answer: str | None = None

    def keys(self) -> dict[str, str]:
        place = {"month": f"actions#{self.at[:7]}", "month_sk": f"{self.at}#{self.key}"}
        return {"pk": f"action#{self.key}", "sk": "action", **place}


class Watchlist(Record):
    """The names that a person watches beside those that are held, in their order."""

    kind: ClassVar[str] = "watchlist"
    symbols: tuple[str, ...] = ()

    def keys(self) -> dict[str, str]:
        return {"pk": "action#watchlist", "sk": "watchlist"}  # below the prefix that the web app may write


class Actions(Table):
    """The web app's own part of the ledger's table."""

    def begin(self, action: ActionRecord) -> None:
        """Put a new action; raise `AlreadyThere` with the stored one."""
        try:
            self._put_new(action)
        except ConditionError:
            stored = self.action(action.key)
            if stored is None:
                raise Stale(f"action {action.key} was refused as present and then not found") from None
            raise AlreadyThere(stored) from None

    def answered(self, action: ActionRecord) -> None:
        """Keep what came of an action."""
        self._table.put_item(Item=action.item())

    def action(self, key: str) -> ActionRecord | None:
        return self._get(ActionRecord, {"pk": f"action#{key}", "sk": "action"})

    def actions(self, month: str) -> list[ActionRecord]:
        """Return the actions of `month` ("2020-01"), oldest first."""
        return list(self._month(ActionRecord, "actions", month))

    def watchlist(self) -> tuple[str, ...]:
        stored = self._get(Watchlist, {"pk": "action#watchlist", "sk": "watchlist"})
        return () if stored is None else stored.symbols

    def put_watchlist(self, symbols: tuple[str, ...]) -> None:
        self._table.put_item(Item=Watchlist(symbols=symbols).item())


@lru_cache(maxsize=4)
def actions_of(table: str) -> Actions:
    """Return the actions in `table`; one client per process."""
    config = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    return Actions(boto3.resource("dynamodb", config=config).Table(table))
