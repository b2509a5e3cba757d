"""The settings as they are shipped, from keys to the second quarter, on the local cloud at a clock in November 2026.

Of settings.toml only the size of training is changed, to fit a test: one seed of 1,000 steps in 8 environments. Symbols, slots, costs,
limits, folds and the "auto" dates stay as shipped. The bars are GENERATED, for none are recorded of these dates: seeded random walks with
a common factor. Nothing that these tests show says anything about a market.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import AlertRecord, ServedModel
from local.aws.emulator import ROOT
from local.replay import schedule as replay_schedule
from local.replay.driver import Replayed, replay
from local.replay.local_deployment import LocalDeployment, LocalDeploymentError, TrainingResult, synthesize
from papertape import command_line
from papertape.market_data.sessions import sessions_between
from schema.settings import Settings, load
from tests.e2e.conftest import App
from tests.settings_files import settings_file

pytestmark = pytest.mark.rehearse

KEYS = "local-key\nlocal-secret\n"
EVENING = "2026-11-20T23:00:00Z"  # Friday, 18:00 in New York
WEEK = (date(2026, 11, 23), date(2026, 11, 27))  # Thanksgiving is closed, and the day after it a half day
TRAINED_SMALL = {"seeds": (0,), "timesteps": 1000, "environments": 8}
FIRST_BARS, LAST_BARS = date(2016, 1, 4), date(2027, 3, 31)
QUARTER_LATER = date(2027, 2, 19)  # the last session before the 91st day after 2026-11-21
FIRST_EX_DATE = 10  # the session on which the first name pays, the others follow: in the week, one per session
NIGHTLY = 6  # of the nights between, one in so many is fired: a nightly backfill reads the last seven sessions
SATURDAY, QUARTERS_SATURDAY = "2026-11-28T11:00:00Z", "2027-02-20T11:00:00Z"  # 06:00 in New York


@pytest.fixture(scope="module")
def shipped() -> Settings:
    document = load(ROOT / "settings.toml").model_dump()
    return Settings.model_validate({**document, "training": {**document["training"], **TRAINED_SMALL}})


@pytest.fixture(scope="module")
def generated_bars(shipped: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of raw daily bars that never were, per name and session: a common factor of 0.8 %, 1 % of the name's own, drawn back to where
    it began; every quarter each name pays 0.3 %, some of them in the week that is traded."""
    days = [session.date for session in sessions_between(FIRST_BARS, LAST_BARS)]
    rng = np.random.default_rng(20261120)
    count = len(shipped.universe.symbols)
    level = np.log(rng.uniform(60.0, 240.0, count))
    walked, now = np.empty((len(days), count)), level.copy()
    common, own = rng.normal(0.0003, 0.008, len(days)), rng.normal(0.0, 0.01, (len(days), count))
    for step in range(len(days)):
        now = now + common[step] + own[step] + 0.004 * (level - now)
        walked[step] = now
    closes = np.exp(walked)
    before = np.vstack([np.exp(level), closes[:-1]])
    opens = before * np.exp(rng.normal(0.0, 0.003, closes.shape))
    reach = np.abs(rng.normal(0.0, 0.004, (2, *closes.shape)))
    pays = (np.arange(len(days))[:, None] - np.arange(count)) % 63 == FIRST_EX_DATE
    table = pd.DataFrame(
        {
            "symbol": np.tile(shipped.universe.symbols, len(days)),
            "session": np.repeat(days, count),
            "open": opens.round(2).ravel(),
            "high": (np.maximum(opens, closes) * np.exp(reach[0])).round(2).ravel(),
            "low": (np.minimum(opens, closes) * np.exp(-reach[1])).round(2).ravel(),
            "close": closes.round(2).ravel(),
            "volume": rng.integers(1_000_000, 40_000_000, closes.size),
            "dividend": np.where(pays, (0.003 * before).round(2), 0.0).ravel(),
        }
    )
    assert table["low"].min() > 20, "prices as of shares"
    assert table["high"].max() < 600
    file = tmp_path_factory.mktemp("bars") / "GENERATED-daily-bars.parquet"
    table.to_parquet(file, index=False)
    return file


class Shell:
    """What a person types, with the local cloud's credentials."""

    def __init__(self, deployment: LocalDeployment, settings: Settings) -> None:
        exchange = {"ALPACA_TRADING_URL": deployment.exchange.url, "ALPACA_DATA_URL": deployment.exchange.url}
        self._settings = settings_file(settings)
        self._environment = {"COLUMNS": "300", **deployment.cloud.env(), **exchange, "PAPERTAPE_ON": "aws"}

    def __call__(self, *arguments: str, typed: str | None = None) -> Result:
        runner = CliRunner(env=self._environment)
        return runner.invoke(command_line.app, [*arguments, "--settings", self._settings], input=typed)


class Nights:
    """The deployed schedules; a feature job that was started has ended before the clock goes on, as by the next morning it has."""

    def __init__(self, deployment: LocalDeployment) -> None:
        self._deployment = deployment
        self.answers: dict[str, list[Mapping[str, Any]]] = {}

    def schedules(self) -> Sequence[str]:
        return self._deployment.schedules()

    def fire(self, schedule: str, time: str) -> Mapping[str, Any]:
        name = schedule.removeprefix(f"{self._deployment.settings.name}-")
        if name == "build_features":
            answer: Mapping[str, Any] = {"status": "succeeded", "payload": self._deployment.build_features(time=time)}
        else:
            answer = self._deployment.fire(schedule, time)
        self.answers.setdefault(name, []).append(answer.get("payload", {}))
        return answer


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What the commands said, in the order in which a person types them."""

    app: App
    shell: Shell
    without_keys: Result
    secret: Result
    deployed: Result
    first_run: Result


@dataclass(frozen=True, kw_only=True)
class Week:
    replayed: Replayed
    answers: Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Quarter:
    """The Saturday after the first week, and the first one on which the refused configuration is judged again."""

    not_due: str
    repeated: Result
    trials_not_due: Sequence[str]
    first: ServedModel
    again: TrainingResult
    trials: Sequence[str]


@pytest.fixture(scope="module")
def begun(shipped: Settings, generated_bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begun]:
    folder = tmp_path_factory.mktemp("shipped")
    synthesize(folder / "cdk.out", settings=shipped)
    with LocalDeployment(folder / "run", settings=shipped, now=EVENING, data=generated_bars) as deployment:
        shell = Shell(deployment, shipped)
        without_keys = shell("preflight")
        secret = shell("secret", typed=KEYS)
        deployment.deploy(folder / "cdk.out", with_cli=False)
        deployed = shell("preflight")
        first_run = shell("first-run")
        assert first_run.exit_code == 0, first_run.output + repr(first_run.exception)
        app = App(deployment, shipped)
        yield Begun(app=app, shell=shell, without_keys=without_keys, secret=secret, deployed=deployed, first_run=first_run)


@pytest.fixture(scope="module")
def week(begun: Begun, shipped: Settings) -> Week:
    deployment = begun.app.deployment
    watched = {
        "ingest_quotes": {"moments": ("open+5", "open+39")},
        "health": {"moments": ("open+40", "close+15")},  # in the session, its slot's window closed, and after it
        "build_features": {"every": 1},
    }
    entries = [replace(entry, **watched.get(entry.schedule, {})) for entry in replay_schedule.year(shipped)]
    nights = Nights(deployment)
    replayed = replay(
        cloud=nights,
        exchange=deployment.exchange,
        ledger=deployment.ledger,
        sessions=sessions_between(*WEEK),
        entries=entries,
        prefix=shipped.name,
        on_session=lambda _: None,
    )
    return Week(replayed=replayed, answers=nights.answers)


@pytest.fixture(scope="module")
def quarter(begun: Begun, week: Week) -> Quarter:
    app, deployment = begun.app, begun.app.deployment
    app.exchange.advance(SATURDAY)
    with pytest.raises(LocalDeploymentError) as not_due:
        deployment.train(time=SATURDAY)
    repeated = begun.shell("first-run")
    trials, first = logged(app), deployment.ledger.shadow()
    assert first is not None, "the refused model of the first run watches"
    nights = sessions_between(WEEK[1], QUARTER_LATER)[::-NIGHTLY][::-1]
    for session in nights:
        app.succeed("backfill_bars", f"{session.date}T23:00:00Z")
    deployment.build_features(time=f"{QUARTER_LATER}T23:30:00Z")
    app.exchange.advance(QUARTERS_SATURDAY)
    again = deployment.train(time=QUARTERS_SATURDAY)
    return Quarter(not_due=str(not_due.value), repeated=repeated, trials_not_due=trials, first=first, again=again, trials=logged(app))


def logged(app: App) -> Sequence[str]:
    """The log of trials, by its keys."""
    found = app.deployment.client("s3").list_objects_v2(Bucket=app.deployment.output("ProcessedBucket"), Prefix="models/trials/")
    return [entry["Key"] for entry in found.get("Contents", ())]


def said_in_logs(app: App) -> list[str]:
    """Every line of the functions' logs that is more than information."""
    logs = app.deployment.client("logs")
    groups = [group["logGroupName"] for page in logs.get_paginator("describe_log_groups").paginate() for group in page["logGroups"]]
    lines = [event["message"] for group in groups for event in logs.filter_log_events(logGroupName=group)["events"]]
    assert len(lines) > 100, "the functions log"
    return [line for line in lines if any(word in line for word in ('"WARNING"', '"ERROR"', '"CRITICAL"', "Traceback"))]


def alerts(ledger: Ledger) -> list[AlertRecord]:
    return [alert for month in ("2026-11", "2026-12", "2027-01", "2027-02") for alert in ledger.alerts(month)]


def test_the_commands_lead_from_keys_to_an_armed_account(begun: Begun) -> None:
    assert begun.without_keys.exit_code == 1
    assert "2 to mend first" in begun.without_keys.stdout, begun.without_keys.output
    assert "run `make bootstrap`" in begun.without_keys.stdout, "which make deploy does"
    assert "there is no secret papertape/alpaca in us-east-1; run `make secret`" in begun.without_keys.stdout
    assert begun.secret.exit_code == 0, begun.secret.output
    assert begun.deployed.exit_code == 0, begun.deployed.output
    assert "symbols: 30 of 30 active and tradable" in begun.deployed.stdout
    dates = "as of 2026-11-20: training from 2017-01-01, judged from 2019-01-01, live from 2026-11-21"
    assert dates in begun.deployed.stdout
    said = begun.first_run.stdout
    steps = {line.split()[0]: line for line in said.splitlines() if line and not line.startswith(" ")}
    assert "daily bars to 2026-11-20" in steps["backfill"]
    assert "rows to 2026-11-20" in steps["features"]
    assert "trained and judged" in steps["training"]
    assert "refused by the gate" in said, "one seed is too few"
    assert "2026-11-23/open+5 by equal-weight; nothing was ordered" in steps["decision"]
    assert "Armed. Next decision: 2026-11-23/open+5 at Mon 2026-11-23 09:35 New York" in said


def test_a_week_of_sessions_is_traded_and_nothing_is_stale(begun: Begun, week: Week) -> None:
    ledger, exchange = begun.app.deployment.ledger, begun.app.exchange
    days = [day.session for day in week.replayed.days]
    assert days == ["2026-11-23", "2026-11-24", "2026-11-25", "2026-11-27"]
    assert [day.differences for day in week.replayed.days] == [()] * 4
    assert (week.replayed.duplicates, week.replayed.rejected) == (0, 0)
    decisions = {decision.slot: decision for decision in ledger.decisions("2026-11")}
    assert sorted(decisions) == [f"{day}/open+5" for day in days]
    assert {(decision.verdict, decision.state) for decision in decisions.values()} == {("accepted", "done")}, decisions
    assert not any(decision.refused for decision in decisions.values())
    assert all(decision.received_at == f"{day}T14:35:00Z" for day, decision in zip(days, decisions.values(), strict=True))
    orders = ledger.orders("2026-11")
    assert {order.status for order in orders} == {"filled"}
    assert sum(order.slot == f"{days[0]}/open+5" for order in orders) == 30, "the whole book at once, within the shipped limits"
    held = [position for position in exchange.books()["positions"].values() if float(position)]
    assert len(held) == 30
    assert (ledger.trading_state().state, ledger.breakers().tripped) == ("active", {})
    assert [answer["outcome"] for answer in week.answers["decide"]] == ["decided"] * 4
    assert [answer["end"][:10] for answer in week.answers["build_features"]] == days
    assert all(answer["actions"] > 0 and not answer["silent"] for answer in week.answers["backfill_bars"]), "dividends are listed"
    assert [answer["unhealthy"] for answer in week.answers["health"]] == [[]] * 8
    assert [alert.model_dump() for alert in alerts(ledger)] == []
    assert len(ledger.shadow_decisions("2026-11")) == 4, "the refused model watched every slot"


def test_saturday_says_why_nothing_is_judged_and_a_quarter_later_it_is_judged_on_newer_data(begun: Begun, quarter: Quarter) -> None:
    assert "no training was due" in quarter.not_due
    reason = "this configuration was judged with live_start 2026-11-21 and does not trade; it is judged again from 2027-02-20 on"
    assert reason in quarter.not_due
    assert quarter.repeated.exit_code == 0, quarter.repeated.output
    for line in ("backfill  stands", "features  stands", f"training  no new model: {reason}", "Armed. Next decision: 2026-11-30/open+5"):
        assert line in quarter.repeated.stdout, quarter.repeated.stdout
    assert quarter.trials_not_due == ["models/trials/000001.json"]
    assert quarter.trials == ["models/trials/000001.json", "models/trials/000002.json"]
    assert quarter.again.evaluation["windows"]["live_start"] == "2027-02-20"
    assert quarter.again.evaluation["data"]["end"][:10] == "2027-02-19"
    assert (quarter.first.evaluated_until, quarter.again.served.evaluated_until) == ("2026-11-20", "2027-02-19")
    assert quarter.again.evaluation["model_hash"] != quarter.first.model_hash
    assert (quarter.again.package_version, quarter.again.served.role) == (2, "shadow")


def test_nothing_failed_on_the_way(begun: Begun, quarter: Quarter) -> None:
    app = begun.app
    assert app.dead_letters() == []
    alarms = app.deployment.client("cloudwatch").describe_alarms(StateValue="ALARM")["MetricAlarms"]
    assert [alarm["AlarmName"] for alarm in alarms] == []
    assert said_in_logs(app) == [], "no function had to warn of anything"
    mails = [mail["subject"] for mail in app.deployment.cloud.published()]
    assert [subject.partition(" $")[0] for subject in mails] == [
        "papertape: a model was refused, the first orders",
        "papertape: 2026-11-27",
    ], "no alarm, no rule of health: news, and the week's report"
    status = begun.shell("status", "--json")
    assert status.exit_code == 0, status.output
    assert json.loads(status.stdout)["trading_state"]["state"] == "active"
