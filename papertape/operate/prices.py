"""List prices in us-east-1, US dollars, and what an account gets for nothing each month, for ever: one row per thing that is paid for.

A price is never assumed: what has no row cannot be estimated (`KeyError`). `seen` says where the figure was read; those "as published" are
AWS's pricing pages as known in that month, and were not fetched again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

READ_IN = "2026-11"
REGION = "us-east-1"
PUBLISHED = f"as published, {READ_IN}"
FARGATE = "third parties that repeat AWS's page, 2026-11"
MEMORY = f"from memory, {READ_IN}: no source was found, check it on AWS's page of SageMaker prices"
FIREHOSE_MEMORY = f"from memory, {READ_IN}: no source was found, check it on AWS's page of Data Firehose prices"


@dataclass(frozen=True)
class Price:
    """`usd` per `unit`; `free` units a month cost nothing in every account, also after its first year."""

    service: str
    usd: float
    unit: str
    free: float = 0.0
    seen: str = PUBLISHED


PRICES: Mapping[str, Price] = {
    "alarm": Price("CloudWatch", 0.10, "alarm", free=10),
    "metric": Price("CloudWatch", 0.30, "custom metric", free=10),
    "dashboard": Price("CloudWatch", 3.00, "dashboard", free=3),
    "log": Price("CloudWatch", 0.50, "GB of logs", free=5),
    "ml.m5.large": Price("SageMaker training", 0.115, "hour", seen="Price List API, 2026-08"),
    "job volume": Price("SageMaker training", 0.14 / 730, "GB-hour of disk"),
    "serverless": Price("SageMaker endpoint", 0.00002, "GB-second", seen="Price List API, 2026-09"),
    "ml.t2.medium": Price("SageMaker endpoint", 0.056, "hour of an endpoint"),
    "dpu": Price("Glue", 0.44, "DPU-hour", seen="AWS's own example, 2026-11"),
    "store write": Price("SageMaker Feature Store", 0.00000125, "write unit of up to 1 KB", seen=MEMORY),
    "store storage": Price("SageMaker Feature Store", 0.45, "GB-month of the online store", seen=MEMORY),
    "secret": Price("Secrets Manager", 0.40, "secret"),
    "secret read": Price("Secrets Manager", 0.000005, "read"),
    "lambda request": Price("Lambda", 0.0000002, "request", free=1e6),
    "lambda time": Price("Lambda", 0.0000166667, "GB-second", free=400_000),
    "schedule": Price("EventBridge Scheduler", 0.000001, "run", free=14e6),
    "s3 storage": Price("S3", 0.023, "GB-month"),
    "s3 write": Price("S3", 0.000005, "write"),
    "s3 read": Price("S3", 0.0000004, "read"),
    "table write": Price("DynamoDB", 0.000000625, "write"),
    "table read": Price("DynamoDB", 0.000000125, "read"),
    "table storage": Price("DynamoDB", 0.25, "GB-month", free=25),
    "table backup": Price("DynamoDB", 0.20, "GB-month of point-in-time recovery"),
    "api request": Price("API Gateway", 0.0000035, "request"),
    "mail": Price("SNS", 0.00002, "mail", free=1000),
    "traffic": Price("Data transfer", 0.09, "GB out", free=100),
    "scoring": Price("Scoring of news", 1.0, "dollar of [sentiment] monthly_budget_usd", seen="settings.toml"),
    "web user": Price("Cognito", 0.015, "user who signs in, Essentials plan", free=10_000),
    "web request": Price("CloudFront", 0.000001, "request over HTTPS", free=10e6),
    "web traffic": Price("CloudFront", 0.085, "GB out", free=1000),
    "run hour": Price("Runs of the web app", 0.115, "hour of an ml.m5.large", seen="Price List API, 2026-08"),
    "run volume": Price("Runs of the web app", 0.14 / 730, "GB-hour of disk"),
    "task processor": Price("Runner on Fargate", 0.03238, "hour of an ARM vCPU", seen=FARGATE),
    "task memory": Price("Runner on Fargate", 0.00356, "GB-hour of an ARM task", seen=FARGATE),
    "task image": Price("Runner on Fargate", 0.10, "GB-month in ECR"),
    "public address": Price("Public IPv4 address", 0.005, "hour"),
    "market event": Price("EventBridge", 0.000001, "event of up to 64 KB"),
    "kinesis shard": Price("Kinesis", 0.015, "shard-hour"),
    "kinesis put": Price("Kinesis", 0.000000014, "record of up to 25 KB"),
    "firehose": Price("Firehose", 0.029, "GB, a record counted as 5 KB at least"),
    "firehose placed": Price("Firehose", 0.020, "GB that is placed by what it says", seen=FIREHOSE_MEMORY),
    "firehose object": Price("Firehose", 0.000005, "object that is placed by what it says", seen=FIREHOSE_MEMORY),
}
