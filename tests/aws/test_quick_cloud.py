"""What hurries moto answers as moto does: a transaction that fails has changed nothing, and an item has a largest size."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from lambdas.common.ledger.ledger import Ledger
from tests import quick_cloud
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


def test_what_is_asked_without_the_detour_is_answered_as_with_it(ledger_table: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("dynamodb")
    key = {name: row("a")[name] for name in ("pk", "sk")}
    values = {
        **row("a"),
        "number": {"N": "1.5"},
        "flags": {"M": {"on": {"BOOL": True}, "none": {"NULL": True}}},
        "list": {"L": [{"S": "x"}]},
    }
    change = {"UpdateExpression": "SET word = :word", "ExpressionAttributeValues": {":word": {"S": "after"}}}
    month = {**row("b"), "month": {"S": "m"}, "month_sk": {"S": "2"}}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("put_item", {"TableName": TABLE, "Item": values, "ReturnValues": "ALL_OLD"}),
        ("put_item", {"TableName": TABLE, "Item": values, "ConditionExpression": "attribute_not_exists(pk)"}),
        ("put_item", {"TableName": "nobody-s", "Item": values}),
        ("transact_write_items", {"TransactItems": [{"Put": {"TableName": TABLE, "Item": month}}]}),
        ("update_item", {"TableName": TABLE, "Key": key, "ReturnValues": "ALL_NEW", **change}),
        ("get_item", {"TableName": TABLE, "Key": key, "ConsistentRead": True}),
        ("get_item", {"TableName": TABLE, "Key": row("nobody")}),
        ("batch_get_item", {"RequestItems": {TABLE: {"Keys": [key, row("b")]}}}),
        ("query", {"TableName": TABLE, "KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": key["pk"]}, "Limit": 1}),
        (
            "query",
            {
                "TableName": TABLE,
                "IndexName": "by_month",
                "KeyConditionExpression": "#m = :month",
                "ExpressionAttributeNames": {"#m": "month"},
                "ExpressionAttributeValues": {":month": month["month"]},
            },
        ),
        ("scan", {"TableName": TABLE, "Limit": 1}),
        ("delete_item", {"TableName": TABLE, "Key": key, "ReturnValues": "ALL_OLD"}),
        ("transact_write_items", {"TransactItems": [{"Delete": {"TableName": TABLE, "Key": row("b")}}]}),
    ]

    def answers() -> list[dict[str, Any]]:
        found = []
        for method, asked in calls:
            try:
                found.append({**getattr(client, method)(**asked), "ResponseMetadata": None})
            except client.exceptions.ClientError as error:
                found.append({**error.response, "ResponseMetadata": None})
        return found

    straight = answers()
    monkeypatch.setattr(quick_cloud, "HOT", frozenset())
    assert answers() == straight
    assert [one["Error"]["Code"] for one in straight if "Error" in one] == ["ConditionalCheckFailedException", "ResourceNotFoundException"]
