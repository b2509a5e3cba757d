"""The exchange as a process: the same requests give the same bytes, it outlives nobody, and what goes wrong is one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from local.exchange.server import ROOT, ExchangeConfig, ExchangeError, RunningExchange
from local.exchange.serving import serve

TCP = Path("/proc/self/net/tcp")

CONFIG = ExchangeConfig(now="2020-01-02T14:00:00Z")
KEYS = {"APCA-API-KEY-ID": "local-key", "APCA-API-SECRET-KEY": "local-secret"}
ORDER = {"symbol": "AAPL", "side": "buy", "type": "market", "time_in_force": "day"}


def run_a_day(running: RunningExchange) -> list[bytes]:
    """Orders before the open and in the slot, one of each outcome; every answer's bytes."""
    answers = []
    with requests.Session() as http:
        http.headers.update(KEYS)
        for now, order in [
            ("2020-01-02T14:20:00Z", {**ORDER, "qty": "1.5"}),
            ("2020-01-02T14:35:00Z", {**ORDER, "notional": "1000", "client_order_id": "named"}),
            ("2020-01-02T14:40:00Z", {**ORDER, "qty": 1, "client_order_id": "named"}),
            ("2020-01-02T14:45:00Z", {**ORDER, "type": "limit", "qty": "1", "limit_price": "200"}),
            ("2020-01-02T21:05:00Z", {**ORDER, "side": "sell", "qty": "0.25"}),
        ]:
            running.advance(now)
            answers.append(http.post(f"{running.url}/v2/orders", json=order).content)
        answers += [
            http.get(running.url + path).content for path in ("/v2/account", "/v2/positions", "/v2/orders?status=all", "/admin/books")
        ]
    return answers


@pytest.fixture(scope="module")
def processed() -> Iterator[RunningExchange]:
    with RunningExchange(replace(CONFIG, actions="processed")) as running:
        yield running


def test_the_switch_lists_only_what_is_processed(processed: RunningExchange) -> None:
    """AAPL's dividend of 2019-11-07 is paid on 2019-12-19 here; SPY's of 2019-12-20 on 2020-01-31."""
    query = {"symbols": "SPY,AAPL", "start": "2019-12-01", "end": "2020-04-30"}
    answer = requests.get(f"{processed.url}/v1/corporate-actions", params=query, headers=KEYS, timeout=10).json()
    assert [row["ex_date"] for row in answer["corporate_actions"]["cash_dividends"]] == ["2019-11-07"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"


def test_same_requests_same_bytes(exchange: RunningExchange) -> None:
    """In a process that has just begun, and in one with a new account after whatever it did before."""
    with RunningExchange(replace(exchange.config, now=CONFIG.now)) as fresh:
        first = run_a_day(fresh)
    exchange.reset(now=CONFIG.now)
    assert run_a_day(exchange) == first
    exchange.reset(now=CONFIG.now)
    assert run_a_day(exchange) == first
    assert json.loads(first[-1])["counts"] == {"orders": 4, "fills": 2, "refused": 1, "duplicates": 1}


def test_journal_brings_the_books_back(tmp_path: Path) -> None:
    config = replace(CONFIG, journal=tmp_path / "exchange.jsonl")
    with RunningExchange(config) as running:
        run_a_day(running)
        before = running.books()
        os.kill(running.pid, signal.SIGKILL)
    with (tmp_path / "exchange.jsonl").open("a", encoding="utf-8") as journal:
        journal.write('{"advance":"2020-01-0')  # cut off by the crash
    with RunningExchange(config) as running:
        after = running.books()
        assert after == before
        running.advance("2020-01-03T14:35:00Z")
        final = running.books()
        assert final["counts"]["fills"] == 3
    with RunningExchange(config) as running:
        assert running.books() == final
    with pytest.raises(ExchangeError, match=r"opened with cash 100000 \(now 5\); remove the file") as error:
        RunningExchange(replace(config, cash="5")).start()
    assert "\n" not in str(error.value)


def test_books_since_a_moment_leave_out_what_came_before(exchange: RunningExchange) -> None:
    exchange.reset(now=CONFIG.now)
    run_a_day(exchange)
    books = exchange.books(since="2020-01-02T14:31:00+00:00")
    assert ([o["status"] for o in books["orders"]], len(books["fills"])) == (["filled", "expired", "accepted"], 1)


def test_taken_port_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ExchangeError) as error:
            RunningExchange(replace(CONFIG, port=port)).start()
        message = f"exchange: port {port} is in use by another process; stop that process or choose another port, 0 for a free one"
        assert str(error.value) == message
        command = [sys.executable, "-m", "local.exchange", "--now", CONFIG.now, "--port", str(port)]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (2, "", message + "\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"now": "tomorrow"}, "now must be RFC 3339 or YYYY-MM-DD, was 'tomorrow'"),
        ({"now": "2060-01-01"}, "now must lie from 2005-01-03 to 2021-03-31, where the data have bars, was 2060-01-01"),
        ({"now": "1999-01-01"}, "now must lie from 2005-01-03 to 2021-03-31, where the data have bars, was 1999-01-01"),
        ({"cash": "much"}, "cash must be a number of at least 0, was 'much'"),
        ({"slippage_bps": "-1"}, "slippage-bps must be a number of at least 0, was '-1'"),
        ({"data": Path("/nonexistent")}, "/nonexistent: must be a .csv"),
    ],
)
def test_wrong_starts_are_one_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(ExchangeError) as error:
        serve(replace(CONFIG, **change), ready_file=None, parent_pid=None)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_stopped_exchange_says_so() -> None:
    running = RunningExchange(CONFIG)
    with running:
        os.kill(running.pid, signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(ExchangeError, match="it has stopped, start it again"):
            running.advance("2020-01-02T15:00:00Z")
    with pytest.raises(ExchangeError, match="it is not running"):
        running.books()


def test_it_ends_with_its_parent() -> None:
    script = (
        "import os, sys\n"
        "from local.exchange.server import ExchangeConfig, RunningExchange\n"
        f"running = RunningExchange(ExchangeConfig(now={CONFIG.now!r}))\n"
        "running.start()\n"
        "print(running.pid, flush=True)\n"
        "os._exit(1)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    pid = int(run.stdout)
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(pid)


def test_clock_is_refused_when_it_would_go_back(exchange: RunningExchange) -> None:
    exchange.advance("2020-01-02T14:35:00Z")
    with pytest.raises(ExchangeError, match="answered 409: the clock only goes forward"):
        exchange.advance("2020-01-02T14:34:59Z")
    for now in ("1990-01-01T00:00:00Z", "2060-01-01T00:00:00Z", "soon"):
        with pytest.raises(ExchangeError, match="answered 400: now must"):
            exchange.advance(now)


@pytest.mark.skipif(not TCP.exists(), reason="connections are read from /proc")
def test_the_driver_keeps_no_connection_that_could_be_closed_under_its_next_call(processed: RunningExchange) -> None:
    """After five idle seconds the exchange had closed one in the moment in which the clock was moved: the replay ended there."""
    processed.books()
    processed.reset(now=CONFIG.now)
    processed.advance("2020-01-02T14:36:00Z")
    port, established = f":{int(processed.url.rpartition(':')[2]):04X}", "01"
    rows = [line.split() for line in TCP.read_text(encoding="ascii").splitlines()[1:]]
    assert [row for row in rows if row[2].endswith(port) and row[3] == established] == []
