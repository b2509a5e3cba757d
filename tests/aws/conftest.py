"""What the handler tests stand on: AWS in process (moto), and a real exchange in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from lambdas.common.broker import alpaca
from lambdas.common.lake import provenance
from lambdas.common.ledger import ledger
from local.exchange.server import RunningExchange
from schema.settings import SETTINGS_FILE, Settings, load
from tests.aws.proxy import Proxy, running
from tests.quick_cloud import hurry
from tests.settings_files import settings_file
from tests.tables import create_ledger_table

ROOT = Path(__file__).resolve().parents[2]
REGION = "us-east-1"
TABLE = "papertape-ledger"
CASH = "100000"
FIRST_SLOT = "2020-01-02T14:35:00Z"


@pytest.fixture(scope="session", autouse=True)
def _quick_cloud() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        yield


@pytest.fixture(scope="session")
def settings() -> Settings:
    return load(ROOT / "data" / "settings.toml")


@pytest.fixture(scope="session")
def two_slots(settings: Settings) -> Settings:
    return settings.model_copy(update={"schedule": settings.schedule.model_copy(update={"slots": ("open+5", "open+60")})})


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """AWS in this process, and a process environment as a function has it."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "ALERT_TOPIC_ARN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_SESSION_TOKEN": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        ledger.ledger_of.cache_clear()
        alpaca.forget_broker()
        provenance.default_registry.cache_clear()
        yield


@pytest.fixture
def ledger_table(aws: None, monkeypatch: pytest.MonkeyPatch) -> ledger.Ledger:
    """The ledger with the keys and indexes that the lake stack gives it."""
    create_ledger_table(TABLE)
    monkeypatch.setenv("LEDGER_TABLE", TABLE)
    return ledger.ledger_of(TABLE)


@pytest.fixture
def buckets(aws: None, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The lake's buckets, and the variables that name them."""
    names = {"RAW_BUCKET": "papertape-raw", "PROCESSED_BUCKET": "papertape-processed", "AUDIT_BUCKET": "papertape-audit"}
    s3 = boto3.client("s3")
    for variable, name in names.items():
        s3.create_bucket(Bucket=name)
        monkeypatch.setenv(variable, name)
    return SimpleNamespace(**{variable.partition("_")[0].lower(): name for variable, name in names.items()})


@pytest.fixture
def topic(aws: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """The alert topic with a queue on it; call it for the messages so far."""
    arn = boto3.client("sns").create_topic(Name="alerts")["TopicArn"]
    sqs = boto3.client("sqs")
    queue = sqs.create_queue(QueueName="mails")["QueueUrl"]
    address = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    boto3.client("sns").subscribe(TopicArn=arn, Protocol="sqs", Endpoint=address)
    monkeypatch.setenv("ALERT_TOPIC_ARN", arn)

    def messages() -> list[dict[str, Any]]:
        answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        return [json.loads(message["Body"]) for message in answer.get("Messages", [])]

    return messages


@pytest.fixture
def exchange(exchange_process: RunningExchange, aws: None, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> RunningExchange:
    """A fresh account in the first slot of 2020, reachable by the functions through their own variables and secret."""
    exchange_process.reset(now=FIRST_SLOT, cash=CASH)
    keys = {"key_id": exchange_process.config.key_id, "secret_key": exchange_process.config.secret_key}
    secret = boto3.client("secretsmanager").create_secret(Name=f"{settings.name}/alpaca", SecretString=json.dumps(keys))
    for name, value in {
        "BROKER_SECRET_ARN": secret["ARN"],
        "ALPACA_TRADING_URL": exchange_process.url,
        "ALPACA_DATA_URL": exchange_process.url,
        SETTINGS_FILE: settings_file(settings),
        "CODE_VERSION": "test",
    }.items():
        monkeypatch.setenv(name, value)
    return exchange_process


@pytest.fixture
def proxy(exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The exchange behind a proxy that can lose requests and answers."""
    with running(exchange.url) as between:
        monkeypatch.setenv("ALPACA_TRADING_URL", between.url)
        yield between


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]


Call = Callable[..., Answer]


def through_gateway(handler: Callable[[dict[str, Any], Any], dict[str, Any]]) -> Call:
    """Return `call(method, path, body, query)`, which invokes `handler` with the event that API Gateway would send."""

    def call(method: str, path: str, body: Any = None, query: dict[str, str] | None = None) -> Answer:
        event = {
            "resource": path,
            "path": path,
            "httpMethod": method,
            "headers": {"Content-Type": "application/json"},
            "multiValueHeaders": {},
            "queryStringParameters": query,
            "multiValueQueryStringParameters": None,
            "pathParameters": None,
            "stageVariables": None,
            "requestContext": {
                "stage": "v1",
                "requestId": "request",
                "requestTimeEpoch": 1577975700000,
                "identity": {"userArn": "arn:aws:iam::000000000000:user/person", "sourceIp": "127.0.0.1"},
            },
            "body": body if isinstance(body, str) or body is None else json.dumps(body),
            "isBase64Encoded": False,
        }
        answer = handler(
            event, SimpleNamespace(aws_request_id="request", function_name="f", memory_limit_in_mb=1, invoked_function_arn="a")
        )
        return Answer(answer["statusCode"], json.loads(answer["body"]))

    return call


@pytest.fixture
def execution(ledger_table: ledger.Ledger, exchange: RunningExchange) -> Call:
    from lambdas.execute_orders.handler import handler

    return through_gateway(handler)


@pytest.fixture
def control(ledger_table: ledger.Ledger, buckets: SimpleNamespace, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Call:
    from lambdas.control.handler import handler

    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings))

    return through_gateway(handler)


@pytest.fixture
def reconcile(ledger_table: ledger.Ledger, exchange: RunningExchange, buckets: SimpleNamespace) -> Callable[[], dict[str, Any]]:
    from lambdas.reconcile.handler import handler

    return lambda: handler({"schedule": "reconcile", "time": FIRST_SLOT}, SimpleNamespace(aws_request_id="reconcile"))


def decision(
    *, session: str = "2020-01-02", as_of: str = "2019-12-31", weights: dict[str, float] | None = None, **more: Any
) -> dict[str, Any]:
    """A body of POST /decisions: equal weight unless told otherwise."""
    names = ("SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM")
    slot = f"{session}/open+5"
    return {
        "decision_id": f"agent:{slot}",
        "slot": slot,
        "strategy": "agent",
        "model_version": "equal-weight",
        "data_as_of": as_of,
        "weights": dict.fromkeys(names, 1 / len(names)) if weights is None else weights,
        "feature_hash": "0" * 64,
        "observation_hash": "1" * 64,
        **more,
    }


@pytest.fixture
def decide() -> Callable[..., dict[str, Any]]:
    return decision
