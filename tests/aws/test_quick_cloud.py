"""What hurries moto answers as moto does: a transaction that fails has changed nothing, and an item has a largest size."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from lambdas.common.ledger.ledger import Ledger
from tests.aws.conftest import TABLE


def row(sk: str, **more: str) -> dict[str, Any]:
    return {name: {"S": text} for name, text in {"pk": "one", "sk": sk, **more}.items()}


def test_a_transaction_that_fails_takes_back_what_its_items_put_changed_and_deleted(ledger_table: Ledger) -> None:
    client = boto3.client("dynamodb")
    for each in (row("changed", word="before"), row("deleted"), row("replaced", word="before"), {**row("other"), "pk": {"S": "two"}}):
        client.put_item(TableName=TABLE, Item=each)
    before = client.scan(TableName=TABLE)["Items"]
    key = {name: row("changed")[name] for name in ("pk", "sk")}
    change = {"UpdateExpression": "SET word = :word", "ExpressionAttributeValues": {":word": {"S": "after"}}}
    steps: list[dict[str, Any]] = [
        {"Update": {"TableName": TABLE, "Key": key, **change}},
        {"Update": {"TableName": TABLE, "Key": {**key, "sk": {"S": "made"}}, **change}},
        {"Delete": {"TableName": TABLE, "Key": row("deleted")}},
        {"Put": {"TableName": TABLE, "Item": row("replaced", word="after")}},
        {"Put": {"TableName": TABLE, "Item": {**row("new"), "pk": {"S": "three"}}}},
    ]
    fails = {"Put": {"TableName": TABLE, "Item": {**row("other"), "pk": {"S": "two"}}, "ConditionExpression": "attribute_not_exists(pk)"}}
    with pytest.raises(client.exceptions.TransactionCanceledException):
        client.transact_write_items(TransactItems=[*steps, fails])
    assert client.scan(TableName=TABLE)["Items"] == before
    client.transact_write_items(TransactItems=steps)
    after = {(each["pk"]["S"], each["sk"]["S"]): each.get("word", {}).get("S") for each in client.scan(TableName=TABLE)["Items"]}
    assert after == {
        ("one", "changed"): "after", ("one", "made"): "after", ("one", "replaced"): "after", ("two", "other"): None, ("three", "new"): None,
    }  # fmt: skip


@pytest.mark.parametrize("long", ["aaa", "zzz"])
def test_an_item_has_a_largest_size_whichever_attribute_comes_last(ledger_table: Ledger, long: str) -> None:
    client = boto3.client("dynamodb")
    client.put_item(TableName=TABLE, Item=row("small", **{long: "x" * 300_000, "mmm": "x" * 90_000}))
    with pytest.raises(client.exceptions.ClientError, match="Item size has exceeded the maximum allowed size"):
        client.put_item(TableName=TABLE, Item=row("large", **{long: "x" * 300_000, "mmm": "x" * 120_000}))
