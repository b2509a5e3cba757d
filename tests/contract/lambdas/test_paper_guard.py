"""The paper guard, seen where sockets connect: short of both switches, whatever the environment, the secret and the answers say, only the
paper and data addresses and this machine are reached; with both, Alpaca's live address besides. That the watch would see more is tested
too, without the guard.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from moto import mock_aws

from lambdas.common.broker import alpaca as edge
from lambdas.common.broker import connection
from lambdas.common.broker.alpaca import LIVE_SWITCH, LIVE_TRADING, PAPER_TRADING, AlpacaBroker, broker_from_environment, forget_broker
from lambdas.common.broker.port import BrokerError, BrokerRefused
from schema.settings import SETTINGS_FILE, load
from tests.settings_files import settings_file

ROOT = Path(__file__).resolve().parents[3]
ELSEWHERE = "broker.example.org"
#: Addresses that lead elsewhere, or to real money.
REFUSED = [
    LIVE_TRADING,
    f"https://{ELSEWHERE}",
    f"http://{ELSEWHERE}:80",
    f"https://paper-api.alpaca.markets@{ELSEWHERE}",
    f"https://paper-api.alpaca.markets.{ELSEWHERE}",
    f"http://127.0.0.1@{ELSEWHERE}",
    f"http://127.0.0.1:80@{ELSEWHERE}",
    f"http://127.0.0.1\\@{ELSEWHERE}",
    "http://0.0.0.0:1",
    "http://[::ffff:203.0.113.7]:80",
    "http://203.0.113.7",
    "http://2130706434",
    f"//{ELSEWHERE}",
    ELSEWHERE,
]
LOCAL = ["http://127.0.0.1:1", "http://127.0.0.1:1/", "http://localhost:1", "http://[::1]:1", f"http://127.0.0.1:1#@{ELSEWHERE}"]
ONE_SWITCH = [("", False), (LIVE_SWITCH, False), ("", True), ("true", True), (LIVE_SWITCH.upper(), True)]
PAPER = {"paper-api.alpaca.markets", "data.alpaca.markets", "127.0.0.1", "localhost", "::1"}
#: What an environment may hold that other clients, and libraries below ours, listen to.
FOREIGN = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), f"http://{ELSEWHERE}:3128"),
    **dict.fromkeys(("APCA_API_BASE_URL", "APCA_API_DATA_URL", "APCA_RETRY_MAX", "ALPACA_BASE_URL"), f"https://{ELSEWHERE}"),
    "APCA_API_KEY_ID": "other",
    "APCA_API_SECRET_KEY": "other",
}


@dataclass(frozen=True)
class Order:
    symbol: str = "SPY"
    side: str = "buy"
    quantity: Decimal = Decimal(1)
    client_order_id: str = "pt1-guard"


DAY, NOON = date(2020, 1, 2), datetime(2020, 1, 2, 12, tzinfo=UTC)
#: Everything that a broker can be asked for.
CALLS: dict[str, Callable[[AlpacaBroker], object]] = {
    "clock": lambda broker: broker.clock(),
    "sessions": lambda broker: broker.sessions(DAY, DAY),
    "account": lambda broker: broker.account(),
    "assets": lambda broker: broker.assets(),
    "positions": lambda broker: broker.positions(),
    "open_orders": lambda broker: broker.open_orders(),
    "orders_since": lambda broker: broker.orders_since(NOON),
    "order": lambda broker: broker.order("an-order"),
    "order_by_client_id": lambda broker: broker.order_by_client_id("pt1-guard"),
    "submit": lambda broker: broker.submit(Order(), retry_timeout=0.0),
    "cancel": lambda broker: broker.cancel("an-order"),
    "latest_quotes": lambda broker: broker.latest_quotes(["SPY"]),
    "latest_trades": lambda broker: broker.latest_trades(["SPY"]),
    "minute_bars": lambda broker: broker.minute_bars(["SPY"], NOON, NOON, feed="iex"),
    "daily_bars": lambda broker: broker.daily_bars(["SPY"], DAY, DAY),
    "corporate_actions": lambda broker: broker.corporate_actions(["SPY"], DAY, DAY),
}


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Hosts that a socket was connected to; no name is looked up, and nothing but this machine answers."""
    hosts: set[str] = set()
    connect = socket.socket.connect

    def record(one: socket.socket, address: Any) -> None:
        hosts.add(str(address[0]))
        if address[0] != "127.0.0.1":
            raise ConnectionRefusedError
        connect(one, address)

    monkeypatch.setattr(socket.socket, "connect", record)
    monkeypatch.setattr(socket.socket, "connect_ex", record)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        yield hosts
    forget_broker()


def try_everything(*, trading: str = "", data: str = "", switch: str, live: bool) -> bool:
    """Build the broker as a function does, and ask it for everything; return whether there was one to ask."""
    secrets = boto3.client("secretsmanager", region_name="us-east-1")
    value = json.dumps({"key_id": "k", "secret_key": "s", "live": live})
    try:
        arn = secrets.create_secret(Name=f"alpaca-{live}", SecretString=value)["ARN"]
    except secrets.exceptions.ResourceExistsException:
        arn = secrets.describe_secret(SecretId=f"alpaca-{live}")["ARN"]
    addresses = {name: url for name, url in (("ALPACA_TRADING_URL", trading), ("ALPACA_DATA_URL", data)) if url}
    forget_broker()
    try:
        timeouts = {"BROKER_CONNECT_TIMEOUT": "1", "BROKER_READ_TIMEOUT": "1", "BROKER_PAUSE": "0.0001"}
        broker = broker_from_environment(environ={"BROKER_SECRET_ARN": arn, "ALLOW_LIVE_TRADING": switch, **timeouts, **addresses})
    except BrokerRefused:
        return False
    for call in CALLS.values():
        with pytest.raises(BrokerError):
            call(broker)
    return True


def test_everything_is_everything() -> None:
    assert CALLS.keys() == {name for name in vars(AlpacaBroker) if not name.startswith("_")}


@pytest.mark.parametrize(("switch", "live"), ONE_SWITCH)
def test_short_of_both_switches_nothing_but_paper_is_reached(reached: set[str], switch: str, live: bool) -> None:
    for url in REFUSED:
        assert not try_everything(trading=url, switch=switch, live=live)
        assert not try_everything(data=url, switch=switch, live=live)
    assert reached == set()
    assert all(try_everything(trading=url, data=url, switch=switch, live=live) for url in LOCAL)
    assert try_everything(trading=PAPER_TRADING, switch=switch, live=live)
    assert reached == PAPER


def test_with_both_switches_the_live_address_and_no_other(reached: set[str]) -> None:
    for url in REFUSED:
        assert try_everything(trading=url, switch=LIVE_SWITCH, live=True) == (url == LIVE_TRADING)
        assert not try_everything(data=url, switch=LIVE_SWITCH, live=True)
    assert reached == {"api.alpaca.markets", "data.alpaca.markets"}


@pytest.mark.parametrize(("switch", "live"), [(LIVE_SWITCH, True), (LIVE_SWITCH, False), ("", True)])
def test_a_refused_model_never_trades_where_a_switch_for_real_money_is_on(
    reached: set[str], monkeypatch: pytest.MonkeyPatch, switch: str, live: bool
) -> None:
    settings = load(ROOT / "settings.toml")
    secret = boto3.client("secretsmanager", region_name="us-east-1").create_secret(
        Name="alpaca", SecretString=json.dumps({"key_id": "k", "secret_key": "s", "live": live})
    )
    monkeypatch.setenv("BROKER_SECRET_ARN", secret["ARN"])
    monkeypatch.setenv("ALLOW_LIVE_TRADING", switch)
    for refused in ("trade", "shadow"):
        changed = settings.model_copy(update={"gate": settings.gate.model_copy(update={"refused": refused})})
        monkeypatch.setenv(SETTINGS_FILE, settings_file(changed))
        forget_broker()
        if refused == "shadow":
            connection.broker_from_environment()
            continue
        with pytest.raises(BrokerRefused, match=r'gate.refused must be "shadow" where a switch for real money is on, was "trade"'):
            connection.broker_from_environment()
    assert reached == set()


def test_without_the_guard_the_watch_sees_more(reached: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "refuse_foreign_broker", lambda **_: None)
    for url in (LIVE_TRADING, f"https://{ELSEWHERE}", "http://203.0.113.7"):
        assert try_everything(trading=url, data=url, switch="", live=False)
    assert reached == {"api.alpaca.markets", ELSEWHERE, "203.0.113.7"}


def test_the_environment_does_lead_elsewhere(reached: set[str]) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(PAPER_TRADING, timeout=1)
    assert reached == {ELSEWHERE}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_answer_that_sends_elsewhere_is_not_followed(reached: set[str], status: int) -> None:
    with redirecting(status) as url:
        assert try_everything(trading=url, data=url, switch="", live=False)
        assert reached == {"127.0.0.1"}
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=1, proxies={"http": ""})
        assert reached == {"127.0.0.1", ELSEWHERE}


@contextmanager
def redirecting(status: int) -> Iterator[str]:
    """A server of this machine that sends every request elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        def _elsewhere(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Location", f"http://{ELSEWHERE}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_DELETE = _elsewhere  # noqa: N815 -- the names that http.server calls

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
