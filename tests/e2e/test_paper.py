"""`papertape paper` against an exchange whose clock runs by itself: a session of minutes, crashes in the slot, a laptop asleep through it.

The exchange outlives what is killed, as a broker does. Its clock is brought to shortly before a slot and then runs at sixty times the
wall's: a minute of the market is a second here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.aws.emulator import ROOT
from local.exchange.server import ExchangeConfig, RunningExchange
from local.replay.local_deployment import settings_text
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET
from schema.settings import Settings
from tests.aws.proxy import running
from tests.e2e.conftest import EVE, FIRST

pytestmark = [pytest.mark.rehearse, pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")]

READY = "Ctrl-C stops it."
SECONDS = 240.0
NAMES = 8
DIES_AT = 4
#: The command, with less history and without a first training.
PAPER = """
from pathlib import Path
import typer
from rich.console import Console
from local.paper import run
from papertape.command_line import in_plain_words
from schema.settings import load
def paper(folder: Path, exchange: str, settings: Path, runner: bool = True) -> None:
    with in_plain_words():
        options = run.PaperOptions(
            folder=folder, exchange=exchange, first_bars="2018-01-02", training=False, web_app=False, runner=runner
        )
        run.run(load(settings), options, console=Console())
typer.run(paper)
"""


@dataclass
class PaperProcess:
    """A paper run as a process, with what it has said so far."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, words: str, *, times: int = 1) -> None:
        deadline = time.monotonic() + SECONDS
        while self.said().count(words) < times:
            assert self.process.poll() is None, self.said()[-3000:]
            assert time.monotonic() < deadline, f"{words!r} was not said:\n{self.said()[-3000:]}"
            time.sleep(0.05)

    def emulator(self) -> int:
        """The process id of its local cloud."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="utf-8").split()
        found = [int(pid) for pid in children if b"emulator_patches" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(found) == 1, children
        return found[0]

    def power_cut(self) -> None:
        """Everything of this machine is gone at once: the run, its cloud, the functions at work."""
        emulator = self.emulator()
        os.kill(self.process.pid, signal.SIGKILL)
        os.killpg(emulator, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0, self.said()[-3000:]


@dataclass
class Machine:
    """A folder with a run that is deployed and has its bars, and the exchange that it trades at."""

    folder: Path
    settings: Path
    exchange: RunningExchange

    @contextmanager
    def paper(self, url: str = "", *options: str) -> Iterator[PaperProcess]:
        log = self.folder.with_suffix(".said")
        with log.open("ab") as output:
            command = [sys.executable, "-c", PAPER, str(self.folder), url or self.exchange.url, str(self.settings), *options]
            process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "COLUMNS": "200"}, stdout=output, stderr=output)
        run = PaperProcess(process, log)
        try:
            yield run
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)

    def mails(self) -> list[str]:
        return [file.read_text(encoding="utf-8") for file in sorted((self.folder / "mail").glob("*.txt"))]

    def operator(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "papertape", *arguments, "--folder", str(self.folder), "--json"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        document: dict[str, Any] = json.loads(done.stdout)
        return document


@pytest.fixture(scope="module")
def prepared(small: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Deployed, backfilled and stopped, on the eve: what each test begins with a copy of. A dead executor's lease ends in seconds."""
    home = tmp_path_factory.mktemp("paper")
    (home / "settings.toml").write_text(settings_text(small), encoding="utf-8")
    with (
        RunningExchange(exchange_at(f"{EVE}T22:40:00Z")) as exchange,
        Machine(home / "run", home / "settings.toml", exchange).paper() as run,
    ):
        run.wait_for(READY)
        shorten_leases(home / "run")
        run.stop()
    (home / "run" / "alive.json").unlink()  # these tests choose what time it is
    return home


def service(name: str, folder: Path) -> Any:
    """A client of the local cloud that is up in `folder`."""
    cloud = json.loads((folder / "running.json").read_text(encoding="utf-8"))["cloud"]
    keys = {"aws_access_key_id": LOCAL_ACCOUNT, "aws_secret_access_key": LOCAL_SECRET}
    return boto3.Session().client(name, endpoint_url=cloud, region_name="us-east-1", **keys)


def shorten_leases(folder: Path) -> None:
    client = service("lambda", folder)
    for page in client.get_paginator("list_functions").paginate():
        for function in page["Functions"]:
            if any(name in function["FunctionName"] for name in ("ExecuteOrders", "Reconcile")):
                variables = {**function["Environment"]["Variables"], "LEASE_SECONDS": "3", "LEASE_TIMEOUT_SECONDS": "8"}
                client.update_function_configuration(FunctionName=function["FunctionName"], Environment={"Variables": variables})


def exchange_at(now: str) -> ExchangeConfig:
    return ExchangeConfig(now=now, speed="20", slippage_bps="10")


@contextmanager
def machine(prepared: Path, folder: Path) -> Iterator[Machine]:
    """A copy of what is prepared, on the eve."""
    shutil.copytree(prepared / "run", folder / "run")
    with RunningExchange(exchange_at(f"{EVE}T22:40:00Z")) as exchange:
        yield Machine(folder / "run", prepared / "settings.toml", exchange)


def books(exchange: RunningExchange) -> dict[str, Any]:
    """Cash, positions and orders of the exchange without times and the numbers that it gives out."""
    found = exchange.books()
    told = ("client_order_id", "symbol", "side", "qty", "filled_qty", "status")
    return {
        "cash": found["cash"],
        "positions": found["positions"],
        "orders": sorted([str(order[name]) for name in told] for order in found["orders"]),
        "twice": found["counts"]["duplicates"],
    }


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, PaperProcess, dict[str, Any]]]:
    """A machine whose run has decided the first session's slot, which is closed, with the books after it."""
    with machine(prepared, tmp_path_factory.mktemp("undisturbed")) as one, one.paper() as run:
        run.wait_for(READY)
        one.exchange.advance(f"{FIRST}T13:34:30Z")
        run.wait_for("decide: decided")
        one.exchange.advance(f"{FIRST}T20:04:30Z")
        wait_until(lambda: one.operator("status")["snapshot"] is not None)
        yield one, run, books(one.exchange)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_second_run_in_the_folder_is_refused_and_leaves_the_first_alone(
    undisturbed: tuple[Machine, PaperProcess, dict[str, Any]],
) -> None:
    first, run, _ = undisturbed
    second = subprocess.run(
        [sys.executable, "-c", PAPER, str(first.folder), first.exchange.url, str(first.settings)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (second.returncode, second.stderr) == (
        1, f"papertape: {first.folder} is in use by process {run.process.pid}: work with that one, or stop it first\n"
    )  # fmt: skip
    assert first.operator("status")["trading_state"]["state"] == "active"


def test_a_session_is_traded_by_the_clock_and_a_slot_slept_through_is_missed_and_mailed(
    undisturbed: tuple[Machine, PaperProcess, dict[str, Any]],
) -> None:
    machine, run, after = undisturbed
    assert [order[-1] for order in after["orders"]] == ["filled"] * NAMES
    status = machine.operator("status")
    held = {symbol: Decimal(one["quantity"]) for symbol, one in status["snapshot"]["positions"].items()}
    assert held == {symbol: Decimal(quantity) for symbol, quantity in after["positions"].items()}
    assert (status["snapshot"]["session"], Decimal(status["snapshot"]["cash"])) == (FIRST, Decimal(after["cash"]))

    machine.exchange.advance("2020-08-27T13:20:00Z")  # the lid is closed before the slot, and opened after its window
    machine.exchange.advance("2020-08-27T14:06:00Z")
    run.wait_for("slot 2020-08-27/open+5 at Thu 2020-08-27 09:35 New York was missed and is not traded late")
    run.wait_for("slot-2020-08-27-open-5-missed.txt")
    assert any("Subject: papertape: slot 2020-08-27/open+5 missed" in mail for mail in machine.mails())
    assert books(machine.exchange) == after, "nothing is traded late"
    run.stop()
    assert not (machine.folder / "running.json").exists()


def test_a_power_cut_in_the_slot_leaves_the_same_books_and_no_order_twice(
    undisturbed: tuple[Machine, PaperProcess, dict[str, Any]], prepared: Path, tmp_path: Path
) -> None:
    """Between an order that the exchange has accepted and its answer; nothing was saved since the run began to wait for the slot."""
    with machine(prepared, tmp_path) as one, running(one.exchange.url) as proxy:
        dead = threading.Event()
        with one.paper(proxy.url) as run:
            run.wait_for(READY)

            def cut(posted: int) -> None:
                if posted == DIES_AT:
                    run.power_cut()
                    dead.set()

            proxy.on_post = cut
            one.exchange.advance(f"{FIRST}T13:34:30Z")
            assert dead.wait(SECONDS), run.said()
        with one.paper(proxy.url) as run:
            run.wait_for("back at ")
            run.wait_for("decide: decided")
            wait_until(
                lambda: (
                    all(order["status"] == "filled" for order in one.exchange.books()["orders"])
                    and len(one.exchange.books()["orders"]) == NAMES
                )
            )
            one.exchange.advance(f"{FIRST}T20:04:30Z")
            wait_until(lambda: one.operator("status")["snapshot"] is not None)
            status = one.operator("status")
            assert status["trading_state"]["state"] == "active", status["trading_state"]
            assert status["unsettled"] == []
            run.stop()
        assert books(one.exchange) == undisturbed[2]


def test_a_training_that_a_crash_cut_off_is_begun_again_in_the_background(prepared: Path, tmp_path: Path) -> None:
    saturday = "2020-08-29T10:00:20Z"
    with machine(prepared, tmp_path) as one:

        def executions() -> list[str]:
            sagemaker = service("sagemaker", one.folder)
            (pipeline,) = sagemaker.list_pipelines()["PipelineSummaries"]
            found = sagemaker.list_pipeline_executions(PipelineName=pipeline["PipelineName"])["PipelineExecutionSummaries"]
            return sorted(execution["PipelineExecutionStatus"] for execution in found)

        with one.paper() as run:
            run.wait_for(READY)
            one.exchange.advance(saturday)
            wait_until(lambda: executions() == ["Executing"])
            run.wait_for(f"slot {FIRST}/open+5 at")  # the pass goes on to its end, and saves
            time.sleep(1)
            run.power_cut()
        with one.paper() as run:
            run.wait_for("the training that was under way begins again")
            wait_until(lambda: executions() == ["Executing", "Failed"])
            run.stop()
