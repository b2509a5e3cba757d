"""`papertape run` beside `papertape paper`: the foreground takes the deployed runner's place, and reconcile hears of fills by it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local.aws.emulator import ROOT
from local.exchange.server import RunningExchange
from local.replay.fill_delay import IN_PARTS
from local.replay.local_deployment import settings_text
from schema.sections.realtime import RunnerSettings
from schema.settings import Settings
from tests.e2e.conftest import EVE, FIRST
from tests.e2e.test_paper import READY, Machine, PaperProcess, exchange_at, service, wait_until

pytestmark = pytest.mark.rehearse

#: What a run of reconcile on an order's event writes into its log when it has recorded a fill.
HEARD = re.compile(r'"event": ?"order updated", ?"order": ?"(partially_)?filled, ')


def log_of_reconcile(folder: Path) -> list[str]:
    pages = service("logs", folder).get_paginator("filter_log_events").paginate(logGroupName="/papertape/reconcile")
    return [event["message"] for page in pages for event in page["events"]]


def test_the_foreground_follows_in_place_of_the_task_and_reconcile_hears_of_a_fill_by_it(small: Settings, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(settings_text(small.model_copy(update={"runner": RunnerSettings(enabled=True)})), encoding="utf-8")
    with RunningExchange(exchange_at(f"{EVE}T22:40:00Z")) as exchange:
        machine = Machine(tmp_path / "run", settings, exchange)
        with machine.paper("", "--no-runner") as paper:
            for words in ("deployed", "backfilled", "rows of features", "the deployed runner stays down", READY):
                paper.wait_for(words)
            exchange.use_faults(dict(IN_PARTS))
            exchange.advance(f"{FIRST}T13:31:00Z")
            with (tmp_path / "follows.said").open("wb") as output:
                command = [sys.executable, "-m", "papertape", "run", "--on", "paper", "--folder", str(machine.folder)]
                process = subprocess.Popen([*command, "--settings", str(settings)], cwd=ROOT, stdout=output, stderr=output)
            follows = PaperProcess(process, tmp_path / "follows.said")
            try:
                follows.wait_for("following the market for papertape")
                follows.wait_for(" UTC  ")  # a minute is over
                paper.wait_for("decide: decided")
                wait_until(lambda: any(map(HEARD.search, log_of_reconcile(machine.folder))))
            finally:
                process.send_signal(signal.SIGINT)
                assert process.wait(30) == 0, follows.said()[-3000:]
            paper.stop()
