"""How long a fill takes from the exchange to the ledger: with the runner in seconds, without it in minutes of the exchange's clock.

    .venv/bin/python -m benchmarks.fill_delay [--sessions 5] [--alone]

A deployment of the laptop with every option on (`--alone`: the runner alone) replays `--sessions` sessions with the runner, then as many
without. Each order fills in parts, the last a minute or two after the answer. With the runner the time is from before the exchange's clock
is moved to the fill's minute until the ledger has it, the polling included; the first session, whose functions start cold, is among them
and shown apart. Goal: p95 within 2 s. It needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from lambdas.common.ledger.records import ServedModel
from local.replay.fill_delay import IN_PARTS, AwaitedSession, short_waits
from local.replay.local_deployment import LocalDeployment, synthesize
from local.replay.soak import POLICY
from papertape.market_data.sessions import sessions_between
from schema.sections.dashboard import DashboardSettings
from schema.sections.feature_store import FeatureStoreSettings
from schema.sections.learning import FeatureSettings
from schema.sections.realtime import RunnerSettings, StreamSettings
from schema.settings import Settings, load

GOAL = 2.0
EVE, HISTORY = "2020-08-25T22:00:00Z", "2018-01-02"
FIRST, LAST = date(2020, 8, 26), date(2020, 11, 25)


def settings(*, alone: bool) -> Settings:
    """The bundled names', with the runner on; unless `alone` with all else that is off by default."""
    on: dict[str, Any] = {"runner": RunnerSettings(enabled=True)}
    if not alone:
        on |= {
            "stream": StreamSettings(kind="firehose"),
            "dashboard": DashboardSettings(enabled=True, user="someone@example.com"),
            "feature_store": FeatureStoreSettings(enabled=True),
            "features": FeatureSettings(sentiment="daily"),
        }
    return load(ROOT / "data" / "settings.toml").model_copy(update=on)


def measured(folder: Path, *, sessions: int, alone: bool) -> dict[str, Any]:
    """Delays by session with the runner, in seconds, and of the sessions after them without it, in minutes of the exchange's clock."""
    chosen = settings(alone=alone)
    synthesize(folder / "cdk.out", settings=chosen)
    days = list(sessions_between(FIRST, LAST))[: 2 * sessions]
    with LocalDeployment(folder / "run", settings=chosen, now=EVE) as deployment:
        deployment.deploy(folder / "cdk.out", with_cli=False)
        deployment.backfill(start=HISTORY)
        deployment.exchange.use_faults(dict(IN_PARTS))
        served = {"role": "incumbent", "policy": "random", "spec": POLICY, "model_version": POLICY, "kappa": 1.0, "since": EVE}
        deployment.ledger.put_model(ServedModel.model_validate(served))
        with short_waits(deployment):
            seconds = [_session(AwaitedSession(deployment, times), runner=True).seconds for times in days[:sessions]]
            minutes = [_session(AwaitedSession(deployment, times), runner=False).minutes for times in days[sessions:]]
    return {
        "with the runner, s": summary([one for session in seconds for one in session]),
        "its first session, s": summary(seconds[0]),
        "without, minutes of the exchange's clock": summary([one for session in minutes for one in session]),
    }


def _session(session: AwaitedSession, *, runner: bool) -> AwaitedSession:
    if runner:
        session.start_runner()
    session.trade(told=runner)
    session.close()
    if runner:
        session.stop_runner()
    session.night()
    return session


def summary(delays: Sequence[float]) -> dict[str, float]:
    """Count, p50, p95 and worst of at least two."""
    p95 = statistics.quantiles(delays, n=20, method="inclusive")[-1]
    return {"fills": len(delays), "p50": round(statistics.median(delays), 2), "p95": round(p95, 2), "worst": round(max(delays), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=5, help="with the runner, and as many without")
    parser.add_argument("--alone", action="store_true", help="the runner alone, all else that is off by default stays off")
    chosen = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), sessions=chosen.sessions, alone=chosen.alone)
    sys.stdout.write(json.dumps({**found, "load before": before, "load after": os.getloadavg()[0]}, indent=2) + "\n")
    sys.exit(0 if found["with the runner, s"]["p95"] <= GOAL else 1)


if __name__ == "__main__":
    main()
