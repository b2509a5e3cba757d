"""`python -m runner` as the container runs it: AWS by HTTP, the vendor by its sockets, and signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from lambdas.common.ledger.ledger import Ledger
from runner.__main__ import main
from schema.realtime.events import OrderUpdated
from schema.realtime.records import StreamedBar, StreamedQuote
from schema.settings import SETTINGS_FILE, load
from tests.settings_files import settings_file
from tests.streaming_vendor import KEY, OPEN, SECOND, SECRET, StreamingVendor, quote, streaming, trade
from tests.tables import create_ledger_table

ROOT = Path(__file__).resolve().parents[3]
AWS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


class Bus(ThreadingHTTPServer):
    """EventBridge's PutEvents, which moto has not without another package: keeps what it is sent."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.events: list[dict[str, Any]] = []


class TakesEvents(BaseHTTPRequestHandler):
    server: Bus

    def do_POST(self) -> None:
        entries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["Entries"]
        self.server.events += entries
        body = json.dumps({"FailedEntryCount": 0, "Entries": [{"EventId": "1"} for _ in entries]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Silent."""


@dataclass(frozen=True)
class Deployed:
    """What the process is given: its variables, and the means to look at what it made of them."""

    variables: dict[str, str]
    events: list[dict[str, Any]]

    def client(self, service: str) -> Any:
        return boto3.client(service)

    @property
    def ledger(self) -> Ledger:
        return Ledger(boto3.resource("dynamodb").Table("ledger"))

    def records(self) -> list[dict[str, Any]]:
        kinesis = self.client("kinesis")
        shard = kinesis.get_shard_iterator(StreamName="quotes", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON")
        return [json.loads(record["Data"]) for record in kinesis.get_records(ShardIterator=shard["ShardIterator"])["Records"]]


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    requests.post(f"http://{host}:{port}/moto-api/reset", timeout=5)
    for name, value in {**AWS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    create_ledger_table("ledger")
    secret = boto3.client("secretsmanager").create_secret(Name="keys", SecretString=json.dumps({"key_id": KEY, "secret_key": SECRET}))
    boto3.client("kinesis").create_stream(StreamName="quotes", ShardCount=1)
    bus = Bus(("127.0.0.1", 0), TakesEvents)
    Thread(target=bus.serve_forever, daemon=True).start()
    try:
        yield Deployed(
            {
                **os.environ,
                "AWS_ENDPOINT_URL_EVENTBRIDGE": f"http://127.0.0.1:{bus.server_port}",
                "LEDGER_TABLE": "ledger",
                "BROKER_SECRET_ARN": secret["ARN"],
                "EVENT_BUS_NAME": "market",
                "STREAM_KIND": "kinesis",
                "STREAM_NAME": "quotes",
                SETTINGS_FILE: settings_file(load(ROOT / "data" / "settings.toml")),
                "PYTHONHASHSEED": "0",
            },
            bus.events,
        )
    finally:
        bus.shutdown()
        bus.server_close()
        server.stop()


@dataclass
class Process:
    """One run of it beside a vendor."""

    deployed: Deployed
    vendor: StreamingVendor
    begun: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, command: Sequence[str] = (sys.executable, "-m", "runner")) -> subprocess.Popen[str]:
        variables = {**self.deployed.variables, "ALPACA_TRADING_URL": self.vendor.url, "ALPACA_DATA_URL": self.vendor.url}
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.begun.append(process)
        return process

    async def until(self, so: Callable[[], object], *, seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(so):
                await asyncio.sleep(0.05)

    async def ended(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        return await asyncio.to_thread(lambda: process.communicate(timeout=60))


def beside_a_vendor(deployed: Deployed, script: Callable[[Process], Awaitable[None]]) -> None:
    async def both() -> None:
        async with streaming() as vendor:
            process = Process(deployed, vendor)
            try:
                await script(process)
            finally:
                for one in process.begun:
                    if one.poll() is None:
                        one.kill()
                        print(*one.communicate())

    asyncio.run(both())


def test_killed_and_begun_again_nothing_is_made_up_and_sigterm_ends_it_in_order(deployed: Deployed) -> None:
    minute = OPEN + 60 * SECOND

    def resumed() -> int:
        return sum(one["DetailType"] == "feed resumed" for one in deployed.events)

    async def script(on: Process) -> None:
        first = on.start()
        await on.until(lambda: on.vendor.data and on.vendor.orders)
        await on.until(lambda: resumed() == 2)
        await on.vendor.send(quote("SPY", minute + SECOND, 99.0, 99.5), trade("SPY", minute + SECOND, 1, 99.0))
        await on.until(lambda: any(one["kind"] == "quote" for one in deployed.records()))
        first.send_signal(signal.SIGKILL)
        await on.ended(first)

        on.vendor.now = minute + 30 * SECOND
        second = on.start()
        await on.until(lambda: on.vendor.data and on.vendor.orders)
        await on.until(lambda: resumed() == 4)
        await on.vendor.send(trade("SPY", minute + 40 * SECOND, 2, 101.0), trade("SPY", minute + 70 * SECOND, 3, 102.0))
        await on.vendor.send(trade("SPY", minute + 130 * SECOND, 4, 103.0))
        await on.vendor.update("pt1-a", event="fill", status="filled", at=minute + 131 * SECOND)
        await on.until(lambda: sum(one["kind"] == "bar" for one in deployed.records()) == 2)
        second.send_signal(signal.SIGTERM)
        said, _problem = await on.ended(second)
        assert second.returncode == 0
        logged = [json.loads(line) for line in said.splitlines()]
        assert [line["reason"] for line in logged if line["message"] == "stopped"] == ["told to stop"]
        assert [line["minute"] for line in logged if line["message"] == "minute"] == [
            "2020-01-02T14:31:00+00:00",
            "2020-01-02T14:32:00+00:00",
        ]

    beside_a_vendor(deployed, script)
    bars = [StreamedBar.model_validate(one) for one in deployed.records() if one["kind"] == "bar"]
    assert [(one.ts, one.open, one.trades, one.flaws) for one in bars] == [
        (minute, 101.0, 1, ("partial",)),
        (minute + 60 * SECOND, 102.0, 1, ()),
    ]
    quotes = [StreamedQuote.model_validate(one) for one in deployed.records() if one["kind"] == "quote"]
    assert [(one.bid, one.ask) for one in quotes] == [(99.0, 99.5)]
    (updated,) = [OrderUpdated.model_validate_json(one["Detail"]) for one in deployed.events if one["DetailType"] == "order updated"]
    assert (updated.status, updated.client_order_id) == ("filled", "pt1-a")
    assert {(one["Source"], one["EventBusName"]) for one in deployed.events} == {("papertape.runner", "market")}
    state = deployed.ledger.runner_state()
    assert state is not None
    assert (state.state, state.minutes, state.lost, state.queued) == ("stopped", 2, 0, 0)


def test_papertape_run_follows_with_the_deployed_tasks_variables_until_it_is_told_to_stop(deployed: Deployed) -> None:
    names = ("LEDGER_TABLE", "BROKER_SECRET_ARN", "EVENT_BUS_NAME", "STREAM_KIND", "STREAM_NAME")
    given = [{"name": name, "value": deployed.variables[name]} for name in names]
    container = {"name": "runner", "image": "runner", "memory": 512, "environment": given}
    deployed.client("ecs").register_task_definition(family="papertape-runner", containerDefinitions=[container])

    async def script(on: Process) -> None:
        command = [sys.executable, "-m", "papertape", "run", "--on", "aws", "--settings", str(ROOT / "data" / "settings.toml")]
        running = on.start(command)
        await on.until(lambda: on.vendor.data and sum(one["DetailType"] == "feed resumed" for one in deployed.events) == 2)
        await on.vendor.send(trade("SPY", OPEN + 61 * SECOND, 1, 99.0), trade("SPY", OPEN + 130 * SECOND, 2, 99.0))
        await on.until(lambda: any(one["DetailType"] == "minute closed" and "SPY" in one["Detail"] for one in deployed.events))
        await on.until(lambda: any(one["kind"] == "bar" for one in deployed.records()))
        running.send_signal(signal.SIGTERM)
        said, _problem = await on.ended(running)
        assert running.returncode == 0
        assert "14:31 UTC  1 bar · 0 quotes" in said
        assert "stopped: reason told to stop" in said

    beside_a_vendor(deployed, script)


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"EVENT_BUS_NAME": ""}, "EVENT_BUS_NAME"),
        ({"ALPACA_DATA_URL": "https://evil.example"}, "ALPACA_DATA_URL may be https://data.alpaca.markets"),
        ({"STREAM_NAME": ""}, "STREAM_NAME must be the name of the kinesis stream"),
        ({"BROKER_SECRET_ARN": "nothing"}, "the broker's secret nothing cannot be read"),
    ],
)
def test_what_may_not_be_followed_is_one_line_and_status_1(
    aws: None, variables: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = boto3.client("secretsmanager").create_secret(Name="keys", SecretString=json.dumps({"key_id": KEY, "secret_key": SECRET}))
    here = {"ALPACA_TRADING_URL": "http://127.0.0.1:1", "ALPACA_DATA_URL": "http://127.0.0.1:1", "LEDGER_TABLE": "ledger"}
    names = {**here, "BROKER_SECRET_ARN": secret["ARN"], "EVENT_BUS_NAME": "market", "STREAM_KIND": "kinesis", "STREAM_NAME": "quotes"}
    for name, value in {**names, SETTINGS_FILE: settings_file(load(ROOT / "data" / "settings.toml")), **variables}.items():
        monkeypatch.setenv(name, value)
    assert main() == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("runner: ")
    assert line in said
