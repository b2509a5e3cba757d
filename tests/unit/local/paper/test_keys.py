"""The paper account's keys: tried at the paper account's address and nowhere else, never shown."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
import requests
from rich.console import Console

from local.aws.emulator import Emulator
from local.paper import keys, run
from local.replay.local_deployment import LocalDeploymentError, PaperBroker
from schema.settings import load
from tests.exchanges import ExchangeClient

ROOT = Path(__file__).parents[4]
SECRET = "never-to-be-seen"


def test_keys_are_tried_at_the_paper_account_and_no_socket_is_opened_to_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: set[tuple[str, int]] = set()

    def refuse(host: str, port: int, *_rest: object, **_options: object) -> None:
        reached.add((host, port))
        raise socket.gaierror("no name is looked up here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://broker.example.org:3128")
    for name in ("APCA_API_BASE_URL", "ALPACA_TRADING_URL"):
        monkeypatch.setenv(name, "https://api.alpaca.markets")
    monkeypatch.setenv("ALLOW_LIVE_TRADING", "yes-real-money")
    with pytest.raises(keys.KeysError, match="does not open with these keys") as refused:
        keys.opened(("PK1", SECRET))
    assert reached == {("paper-api.alpaca.markets", 443)}
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["https://api.alpaca.markets", "http://10.0.0.7:80", "https://127.0.0.1:1", "http://127.0.0.1@evil.example"]
)
def test_an_exchange_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(LocalDeploymentError, match="must be an exchange on this machine"):
        PaperBroker(url)


@pytest.mark.parametrize(("bound", "exchange"), [("alpaca", "http://127.0.0.1:9"), ("exchange", "")])
def test_a_folder_keeps_its_broker(tmp_path: Path, bound: str, exchange: str) -> None:
    (tmp_path / "broker.json").write_text(f'{{"broker": "{bound}"}}\n', encoding="utf-8")
    options = run.PaperOptions(folder=tmp_path, exchange=exchange)
    with pytest.raises(run.PaperRunError, match="choose another --folder"):
        run.run(load(ROOT / "settings.toml"), options, console=Console())


def test_no_switch_of_the_environment_reaches_the_local_cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    switches = ("ALLOW_LIVE_TRADING", "ALPACA_TRADING_URL", "ALPACA_DATA_URL", "APCA_API_BASE_URL", "AWS_PROFILE")
    for name in switches:
        monkeypatch.setenv(name, "anything")
    with subprocess.Popen(["true"]) as process:
        emulator = Emulator(url="http://127.0.0.1:1", region="us-east-1", log=tmp_path / "log", process=process)
        assert emulator.environment().keys().isdisjoint(switches)


def test_wrong_keys_are_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    client, send = ExchangeClient(), requests.Session.send

    def to_the_exchange(session: requests.Session, request: requests.PreparedRequest, **options: object) -> requests.Response:
        session.mount("http://127.0.0.1:9", client.adapter)
        return send(session, request, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(requests.Session, "send", to_the_exchange)
    _, account = keys.opened(("local-key", "local-secret"), url="http://127.0.0.1:9")
    assert float(account.equity) == 100_000
    with pytest.raises(keys.KeysError, match="give other keys with `papertape paper --new-keys`"):
        keys.opened(("local-key", SECRET), url="http://127.0.0.1:9")
