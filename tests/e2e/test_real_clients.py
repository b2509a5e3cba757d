"""Bots that nobody here wrote, unmodified, against the exchange as a process: given its URL, and the exchange's time where they need it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.exchange.server import ROOT, ExchangeConfig, RunningExchange

PYTHON = ROOT / ".venv-clients" / "bin" / "python"
CLIENTS = Path(__file__).parents[1] / "clients"
pytestmark = pytest.mark.rehearse


@pytest.fixture
def exchange() -> Iterator[RunningExchange]:
    """On the morning of a session whose minutes are recorded."""
    with RunningExchange(ExchangeConfig(now="2013-10-04T13:59:00Z")) as running:
        yield running


def run(script: str, *arguments: str) -> dict[str, Any]:
    """What the script's last line says."""
    done = subprocess.run([PYTHON, CLIENTS / script, *arguments], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_the_legacy_client_trades_reads_and_listens(exchange: RunningExchange) -> None:
    said = run("legacy_client.py", exchange.url)
    assert (said["status"], said["held"]) == ("ACTIVE", "3")
    assert said["events"] == ["new buy", "fill buy", "new sell", "canceled sell"]
    assert said["market"] == {"trades": 32, "quotes": 32, "bars": 32}
    assert said["listed"] == said["market"]["bars"] + 32  # the session's first half hour, which passed before the client listened


def test_lumibot_buys_and_holds_and_hears_of_every_order_twice(exchange: RunningExchange) -> None:
    said = run("lumibot_bot.py", exchange.url, "BuyAndHold")
    assert sorted(said["called"]) == ["filled buy", "filled sell", "new buy", "new sell"]
    books = exchange.books()
    assert books["counts"] == {"orders": 2, "fills": 2, "refused": 0, "duplicates": 0}
    assert [order["side"] for order in books["orders"]] == ["buy", "sell"]


def test_lumibots_bracket_takes_its_profit_and_cancels_its_stop(exchange: RunningExchange) -> None:
    said = run("lumibot_bot.py", exchange.url, "StockBracket")
    assert sorted(said["called"]) == ["filled buy", "later", "new buy"]
    entry, profit, stop = exchange.books()["orders"]
    assert [(one["type"], one["status"]) for one in (entry, profit, stop)] == [
        ("market", "filled"),
        ("limit", "filled"),
        ("stop", "canceled"),
    ]
    assert exchange.books()["positions"] == {}


def test_lumibot_goes_through_a_strategys_life(exchange: RunningExchange) -> None:
    assert run("lumibot_bot.py", exchange.url, "LifecycleLogger")["called"] == ["iteration"] * 3
