"""The ledger's table in moto, with the keys and indexes that the lake stack gives it."""

from __future__ import annotations

import boto3


def create_ledger_table(name: str) -> None:
    text = ("pk", "sk", "month", "month_sk", "unsettled", "unsettled_sk")

    def keys(partition: str, sort: str) -> list[dict[str, str]]:
        return [{"AttributeName": partition, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}]

    boto3.client("dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": one, "AttributeType": "S"} for one in text],
        KeySchema=keys("pk", "sk"),
        GlobalSecondaryIndexes=[
            {"IndexName": "by_month", "KeySchema": keys("month", "month_sk"), "Projection": {"ProjectionType": "ALL"}},
            {"IndexName": "unsettled", "KeySchema": keys("unsettled", "unsettled_sk"), "Projection": {"ProjectionType": "ALL"}},
        ],
    )
