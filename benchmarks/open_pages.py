"""How much open pages of the web app slow the trading loop: decide to the last order, with twenty pages open and with none, wall time.

    .venv/bin/python -m benchmarks.open_pages [--folder out/demo] [--sessions 56] [--block 2] [--pages 20]

The demo's year is brought back up from a copy of `folder`, with the web app beside it as `make dashboard` serves it. Sessions after it are
replayed through the deployed schedules; blocks of sessions with pages and without take turns, so that both see the same machine. An open
page asks as its HTML does, the portfolio every 15 seconds and health every minute, spread evenly, from a process of its own. The goal: p95
within 10 %. It needs a quiet machine: one that does other things spreads the decisions of either arm by more than the goal.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import requests

from benchmarks.harness import ROOT
from local.replay import schedule as replay_schedule
from local.replay.driver import replay
from local.replay.local_deployment import LocalDeployment
from local.replay.restore import restored
from papertape.market_data.sessions import sessions_between
from schema.settings import load

GOAL = 0.10
#: The fragments that pages ask for again by themselves while the market is open, and every how many seconds; half of the pages each.
POLLS = (("portfolio/live", 15.0), ("health/live", 60.0))
FIRST, LAST = date(2021, 1, 4), date(2021, 3, 31)  # where the bundled bars end
WARM = 3  # sessions that do not count


class TimedCloud:
    """The deployed schedules; `spent`: seconds of each decision with its orders."""

    def __init__(self, deployment: LocalDeployment) -> None:
        self._deployment, self.spent = deployment, list[float]()

    def schedules(self) -> Sequence[str]:
        return self._deployment.schedules()

    def fire(self, schedule: str, when: str) -> Mapping[str, Any]:
        began = time.perf_counter()
        outcome = self._deployment.fire(schedule, when)
        if schedule.endswith("-decide"):
            self.spent.append(time.perf_counter() - began)
        return outcome


def open_pages(address: str, pages: int, looking: Event, ended: Event, asked: Synchronized[int], refused: Synchronized[int]) -> None:
    """Ask as `pages` open pages do, while `looking`."""
    base, _, token = address.partition("/#token=")

    def page(number: int) -> None:
        signed = {"Authorization": f"Bearer {token}"}
        path, every = POLLS[number % len(POLLS)]
        wait = every * number / pages
        while not ended.wait(wait):
            wait = every
            if looking.is_set():
                answer = session.get(f"{base}/v1/app/pages/{path}", headers=signed, timeout=60)
                with asked.get_lock():
                    asked.value += 1
                    refused.value += answer.status_code != 200

    with requests.Session() as session, ThreadPoolExecutor(pages) as people:
        list(people.map(page, range(pages)))


def p95(spent: Sequence[float]) -> float:
    return sorted(spent)[max(0, math.ceil(0.95 * len(spent)) - 1)]


def measured(folder: Path, *, sessions: int, block: int, pages: int) -> dict[str, Any]:
    settings = load(ROOT / "data" / "settings.toml")
    with restored(settings, folder=folder, port=0) as (deployment, _):
        cloud, entries = TimedCloud(deployment), replay_schedule.year(settings)
        days = sessions_between(FIRST, LAST)[: WARM + sessions]
        server = subprocess.Popen(
            [sys.executable, "-m", "papertape", "dashboard", "--folder", str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert server.stdout is not None
        looking, ended = multiprocessing.Event(), multiprocessing.Event()
        asked, refused = multiprocessing.Value("i", 0), multiprocessing.Value("i", 0)
        line = server.stdout.readline()
        arguments = (line[line.index("http") :].strip(), pages, looking, ended, asked, refused)
        people = multiprocessing.Process(target=open_pages, args=arguments)
        people.start()
        spent: dict[str, list[float]] = {"without": [], "with": []}
        try:
            for number, start in enumerate([0, *range(WARM, len(days), block)]):
                arm = "with" if number % 2 else "without"
                (looking.set if arm == "with" or number == 0 else looking.clear)()
                cloud.spent.clear()
                chosen = days[start : WARM if number == 0 else start + block]
                replay(
                    cloud=cloud, exchange=deployment.exchange, ledger=deployment.ledger, sessions=chosen, entries=entries,
                    prefix=settings.name, on_session=lambda _: None,
                )  # fmt: skip
                if number:
                    spent[arm] += cloud.spent
        finally:
            ended.set()
            people.terminate()
            people.join()
            server.terminate()
            server.wait()
    if refused.value:
        raise SystemExit(f"open_pages: {refused.value} of {asked.value} requests were refused")
    return {"asked": asked.value, **{arm: {"n": len(one), "p50": statistics.median(one), "p95": p95(one)} for arm, one in spent.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "demo")
    parser.add_argument("--sessions", type=int, default=56)
    parser.add_argument("--block", type=int, default=2)
    parser.add_argument("--pages", type=int, default=20)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "demo"
        shutil.copytree(chosen.folder, folder)
        found = measured(folder, sessions=chosen.sessions, block=chosen.block, pages=chosen.pages)
    sys.stdout.write(f"{chosen.pages} pages asked {found['asked']} times; load {os.getloadavg()[0]:.1f}\n")
    for arm in ("without", "with"):
        one = found[arm]
        sys.stdout.write(f"{arm:8} n {one['n']:3}   p50 {one['p50'] * 1e3:6.0f} ms   p95 {one['p95'] * 1e3:6.0f} ms\n")
    ratio = found["with"]["p95"] / found["without"]["p95"]
    sys.stdout.write(f"p95 with over without: {ratio:.2f} (goal: at most {1 + GOAL:.2f})\n")
    out = ROOT / "out" / "open_pages.json"
    out.write_text(json.dumps({**found, "goal": GOAL, "ratio": ratio}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
