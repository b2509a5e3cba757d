"""Three sessions over a split, with the runner and without: the same books, fills in the ledger before the schedule asks for them, and a
runner that may die.

Every order is filled in parts, the last of them a minute or two of the exchange's clock after the answer: who waits for the schedule
learns of it five minutes later, and who is told by the runner while the exchange's clock stands. How many seconds that takes is measured
by `benchmarks/fill_delay.py`. All that is off by default is on: the runner, its stream, the web app, Feature Store, sentiment.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lambdas.common.health.checks import RUNNER_LIMIT
from lambdas.common.ledger.runner_state import RunnerState
from local.replay.fill_delay import IN_PARTS, AwaitedSession, short_waits
from local.replay.local_deployment import LocalDeployment, synthesize
from papertape.market_data.sessions import sessions_between
from schema.exchange_time import iso, parse_utc
from schema.lake_layout import QUOTES
from schema.sections.dashboard import DashboardSettings
from schema.sections.feature_store import FeatureStoreSettings
from schema.sections.learning import FeatureSettings
from schema.sections.realtime import RunnerSettings, StreamSettings
from schema.settings import Settings
from tests.e2e.conftest import App
from tests.e2e.driven import HISTORY, books, decides
from tests.e2e.test_kill import processes

pytestmark = [pytest.mark.rehearse, pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")]

EVE = "2020-08-27"
SESSIONS = list(sessions_between(date(2020, 8, 28), date(2020, 9, 1)))


@pytest.fixture(scope="module")
def settings(small: Settings) -> Settings:
    """Every option that is off by default, together."""
    on = {
        "runner": RunnerSettings(enabled=True),
        "stream": StreamSettings(kind="firehose"),
        "dashboard": DashboardSettings(enabled=True, user="someone@example.com"),
        "feature_store": FeatureStoreSettings(enabled=True),
        "features": FeatureSettings(sentiment="daily"),
    }
    return small.model_copy(update=on)


@pytest.fixture(scope="module")
def app(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("realtime")
    synthesize(folder / "cdk.out", settings=settings)
    with LocalDeployment(folder / "run", settings=settings, now=f"{EVE}T22:00:00Z") as deployment:
        deployment.deploy(folder / "cdk.out", with_cli=False)
        deployment.backfill(start=HISTORY)
        yield App(deployment, settings)


def begin(app: App) -> None:
    app.begin(f"{EVE}T22:00:00Z")
    app.exchange.use_faults(IN_PARTS)
    decides(app)


@dataclass(frozen=True)
class DeadRunner:
    """Sessions whose runner died before its first slot, for good. `silent`: what the rule of each session's end found."""

    began: RunnerState
    revived: RunnerState
    last: RunnerState
    silent: Sequence[list[str]]
    mails: Sequence[str]
    books: dict[str, Any]


@pytest.fixture(scope="module")
def dead(app: App) -> DeadRunner:
    begin(app)
    ledger, deployment = app.deployment.ledger, app.deployment
    app.succeed("keep_runner", iso(SESSIONS[0].opens + timedelta(minutes=1)))  # as after a deployment in the session
    until(lambda: (beat := ledger.runner_state()) is not None and beat.heard_orders is not None)
    (first,), began = runners(app), beat_of(app)
    os.kill(first, signal.SIGKILL)
    until(lambda: (beat := beat_of(app)).since > began.since and beat.heard_orders is not None)
    (second,), revived = runners(app), beat_of(app)
    app.succeed("keep_runner", iso(SESSIONS[0].opens + timedelta(minutes=2)))
    assert runners(app) == [second], "one that lives is left alone"

    # Nothing starts the next one: as where there is no capacity, or the image cannot be pulled
    service = {"cluster": deployment.output("RunnerCluster"), "service": deployment.output("RunnerService")}
    os.kill(second, signal.SIGSTOP)
    deployment.client("ecs").update_service(**service, desiredCount=0)
    last, mails, silent = beat_of(app), len(deployment.cloud.published()), []
    with short_waits(deployment):
        for times in SESSIONS:
            session = AwaitedSession(deployment, times)
            session.trade(told=False)
            if times is SESSIONS[-1]:  # a beat may be so old
                until(lambda: datetime.now(UTC) - parse_utc(last.beat_at) > RUNNER_LIMIT, seconds=150)
            silent.append(app.succeed("health-runner", iso(times.closes - timedelta(minutes=5)))["unhealthy"])
            session.close()
            session.night()
    until(lambda: not runners(app), seconds=120)
    assert ledger.trading_state().state == "active"
    assert beat_of(app) == last, "a dead one says nothing"
    subjects = [mail["subject"] for mail in deployment.cloud.published()[mails:]]
    return DeadRunner(began=began, revived=revived, last=last, silent=silent, mails=subjects, books=books(app))


def beat_of(app: App) -> RunnerState:
    beat = app.deployment.ledger.runner_state()
    assert beat is not None
    return beat


def test_a_killed_runner_is_started_anew_and_a_dead_one_is_mailed_while_trading_goes_on(dead: DeadRunner) -> None:
    assert dead.revived.runner != dead.began.runner
    assert dead.last.runner == dead.revived.runner
    assert dead.last.state == "following", "it could not say that it stopped"
    assert dead.silent[-1] == ["runner-silent"], "a beat that nobody renewed"
    assert dead.mails.count("papertape: runner-silent") == sum(bool(found) for found in dead.silent)


def test_sessions_with_the_runner_have_the_books_of_those_without_and_hear_of_fills_before_reconcile(app: App, dead: DeadRunner) -> None:
    begin(app)
    told = 0
    with short_waits(app.deployment):
        for times in SESSIONS:
            session = AwaitedSession(app.deployment, times)
            session.start_runner()
            session.trade(told=True)
            app.succeed("health-runner", iso(times.closes - timedelta(minutes=5)))
            session.close()
            session.stop_runner()
            session.night()
            told += len(session.seconds)
            assert session.minutes == [], "a fill that reconcile's schedule had to find"
    assert told > 24
    assert books(app) == dead.books
    app.deployment.cloud.deliver()
    assert {key[len(QUOTES) :][:15] for key in streamed(app)} == {f"date={times.date}" for times in SESSIONS}


def streamed(app: App) -> Iterator[str]:
    """Keys of the quotes that the runner put into the stream."""
    pages = app.deployment.client("s3").get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=app.deployment.output("RawBucket"), Prefix=QUOTES):
        yield from (item["Key"] for item in page.get("Contents", ()))


def runners(app: App) -> list[int]:
    """The processes of `python -m runner` that this deployment's cloud has started, without their supervisors."""
    return [
        pid
        for pid, environment in processes()
        if environment.get("EVENT_BUS_NAME") and environment.get("PAPERTAPE_RUN_DIR") == str(app.deployment.cloud.log.parent) and runs(pid)
    ]


def runs(pid: int) -> bool:
    try:
        words = (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[1:3] == [b"-m", b"runner"]


def until(look: Callable[[], Any], *, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
