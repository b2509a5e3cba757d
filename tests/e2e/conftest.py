"""The synthesized app on a laptop: one deployment for all tests that trade through it, and a second for those that need its beginning.

The settings are the app's own with a small training: its data end where the bundled split week of AAPL begins, so the eve of that week
is the eve of these tests. `market` gives each test a new account and an empty ledger at a moment of its choice.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.aws.emulator import ROOT
from local.exchange.server import RunningExchange
from local.replay.local_deployment import LocalDeployment, TrainingResult, synthesize
from schema.lake_layout import NEWS, NEWS_QUARANTINE, SENTIMENT
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET
from schema.settings import Settings, load
from tests.aws.proxy import Proxy, running
from tests.once import once

EVE, FIRST, LAST = "2020-08-25", "2020-08-26", "2020-09-02"
HISTORY = "2016-01-04"  # more than the 600 sessions that a decision reads, and a year and a half to train in
# PPO: a network with a view decides, where direct reinforcement finds nothing in so few names
SMALL_TRAINING: dict[str, Any] = {
    "algorithm": "ppo",
    "start": "2017-02-01",
    "test_start": "2020-01-02",
    "live_start": "auto",  # as of the eve: the same day
    "folds": 1,
    "holdout_sessions": 63,
    "timesteps": 2000,
    "seeds": (0,),
    "environments": 8,
    "episode_sessions": 63,
}
FUNCTIONS = {
    "backfill_bars": "BackfillBarsFunction",
    "collect_news": "CollectNewsFunction",
    "control": "ControlFunction",
    "decide": "DecideFunction",
    "deploy_model": "DeployModelFunction",
    "execute_orders": "ExecuteOrdersFunction",
    "health": "HealthFunction",
    "ingest_quotes": "IngestQuotesFunction",
    "reconcile": "ReconcileFunction",
    "report": "ReportFunction",
}


#: The longest files after what stands on the deployed app.
LONGEST = ("test_parity", "test_minute_bars", "test_failures", "test_train_evaluate_serve", "test_soak", "test_build_features_spark")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that the other worker has something to do meanwhile."""

    def rank(item: pytest.Item) -> int:
        if {"app", "synthesized"} <= set(getattr(item, "fixturenames", ())):  # not an `app` that a file deploys for itself
            return -1
        return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def small() -> Settings:
    document = load(ROOT / "data" / "settings.toml").model_dump()
    return Settings.model_validate({**document, "training": {**document["training"], **SMALL_TRAINING}})


@pytest.fixture(scope="session")
def synthesized(small: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "synthesized", lambda folder: synthesize(folder / "cdk.out", settings=small)) / "cdk.out"


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]


@dataclass
class Gateway:
    """The deployed execution API, as its owner calls it: signed with botocore's own signer."""

    base: str
    region: str
    calls: int = 0

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | str | None = None,
        *,
        secret: str | None = LOCAL_SECRET,
        sent: str | None = None,
    ) -> Answer:
        """One request, its `body` JSON or text as it is; `secret` None leaves it unsigned, `sent` goes out in place of what was signed."""
        data = body if isinstance(body, str) or body is None else json.dumps(body)
        request = AWSRequest(method, self.base + path, data=data, headers={"Content-Type": "application/json"})
        if secret is not None:
            SigV4Auth(Credentials(LOCAL_ACCOUNT, secret), "execute-api", self.region).add_auth(request)
        response = requests.request(method, self.base + path, data=sent or data, headers=dict(request.headers), timeout=60)
        return Answer(response.status_code, response.json())


@dataclass
class App:
    """The deployed app with what a test asks of it."""

    deployment: LocalDeployment
    settings: Settings
    names: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        deployed = FUNCTIONS.keys() - ({"ingest_quotes"} if self.settings.stream.kind != "none" else set())
        self.names = {self.deployment.output(FUNCTIONS[folder]): folder for folder in sorted(deployed)}
        url = f"{self.deployment.cloud.url}/restapis/{self.deployment.output('ExecutionApiId')}/v1/_user_request_"
        self.api = Gateway(base=url, region=self.settings.region)

    @property
    def exchange(self) -> RunningExchange:
        return self.deployment.exchange

    def begin(self, now: str) -> None:
        """A new account at `now`, an empty ledger, and no news: what was collected later in another test's day would be known already."""
        self.exchange.reset(now=now)
        s3 = self.deployment.client("s3")
        for output, prefix in (
            ("RawBucket", NEWS),
            ("ProcessedBucket", NEWS_QUARANTINE),
            ("ProcessedBucket", SENTIMENT),
        ):
            bucket = self.deployment.output(output)
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    s3.delete_object(Bucket=bucket, Key=item["Key"])
        dynamodb, table = self.deployment.client("dynamodb"), self.deployment.output("LedgerTable")
        for page in dynamodb.get_paginator("scan").paginate(TableName=table):
            for item in page["Items"]:
                dynamodb.delete_item(TableName=table, Key={"pk": item["pk"], "sk": item["sk"]})

    def fire(self, schedule: str, time: str) -> dict[str, Any]:
        """Advance the exchange to `time` and fire the deployed schedule there; its outcome."""
        self.exchange.advance(time)
        return self.deployment.fire(f"{self.settings.name}-{schedule}", time)

    def succeed(self, schedule: str, time: str) -> dict[str, Any]:
        """`fire`, and the function's own answer."""
        outcome = self.fire(schedule, time)
        assert outcome["status"] == "succeeded", (schedule, time, outcome)
        payload: dict[str, Any] = outcome["payload"]
        return payload

    def invoked(self) -> Counter[tuple[str, str]]:
        """How often each function ran, by (folder, trigger)."""
        counts = self.deployment.cloud.fired()["functions"]
        return Counter({(self.names.get(name, name), trigger): n for name, by in counts.items() for trigger, n in by.items()})

    def fired(self) -> Counter[str]:
        """How often each schedule was fired, by its name without the app's."""
        prefix = f"{self.settings.name}-"
        return Counter({name.removeprefix(prefix): n for name, n in self.deployment.cloud.fired()["schedules"].items()})

    def dead_letters(self) -> list[dict[str, Any]]:
        """Every message that waits in the dead-letter queue."""
        sqs = self.deployment.client("sqs")
        (url,) = sqs.list_queues(QueueNamePrefix=f"{self.settings.name}-lake-DeadLetters")["QueueUrls"]
        found: list[dict[str, Any]] = []
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=60).get("Messages"):
            found += [json.loads(message["Body"]) for message in messages]
        return found

    def alarm(self, name: str) -> dict[str, Any]:
        """The deployed alarm with this name, without the app's."""
        alarms = self.deployment.client("cloudwatch").describe_alarms()["MetricAlarms"]
        (found,) = [alarm for alarm in alarms if alarm["AlarmName"] == f"{self.settings.name}-{name}"]
        assert isinstance(found, dict)
        return found

    @contextmanager
    def with_variables(self, folder: str, **changed: str) -> Iterator[None]:
        """One function has these variables: nothing else of its configuration changes, and they are put back."""
        client, name = self.deployment.client("lambda"), self.deployment.output(FUNCTIONS[folder])
        variables = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        client.update_function_configuration(FunctionName=name, Environment={"Variables": {**variables, **changed}})
        try:
            yield
        finally:
            client.update_function_configuration(FunctionName=name, Environment={"Variables": variables})

    @contextmanager
    def with_broker(self, folder: str, url: str) -> Iterator[None]:
        """One function's broker is at `url`."""
        with self.with_variables(folder, ALPACA_TRADING_URL=url, ALPACA_DATA_URL=url):
            yield

    @contextmanager
    def slow_exchange(self) -> Iterator[Proxy]:
        """The executor's way to the exchange leads through a proxy that a test can hold up."""
        with running(self.exchange.url) as proxy, self.with_broker("execute_orders", proxy.url):
            yield proxy


@pytest.fixture(scope="session")
def app(small: Settings, synthesized: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Deployed, its bars backfilled and its features built, on the eve of the split week."""
    with LocalDeployment(tmp_path_factory.mktemp("laptop"), settings=small, now=f"{EVE}T22:00:00Z") as deployment:
        deployment.deploy(synthesized, with_cli=False)
        deployment.backfill(start=HISTORY)
        deployment.build_features(time=f"{EVE}T23:30:00Z")
        yield App(deployment, small)


@pytest.fixture(scope="session")
def trained(app: App) -> TrainingResult:
    """The model of the weekly schedule, fired once on the eve, with its verdict and its endpoint."""
    return app.deployment.train(time=f"{EVE}T23:45:00Z")


@pytest.fixture
def market(app: App) -> Callable[[str], App]:
    """`market(now)`: the app with a new account and an empty ledger at `now`."""

    def at(now: str) -> App:
        app.begin(now)
        return app

    return at


@contextmanager
def in_background(call: Callable[[], Answer]) -> Iterator[Sequence[Answer]]:
    """Run `call` in a thread; its answer is in the list when the block has ended."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    try:
        yield answers
    finally:
        thread.join(60)
        assert not thread.is_alive(), "no answer came"
