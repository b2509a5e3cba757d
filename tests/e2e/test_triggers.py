"""One session as the account would live it: every deployed function by the trigger that the templates give it, and by no other."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from lambdas.common.ledger.records import ServedModel
from local.replay.local_deployment import LocalDeploymentError, TrainingResult
from local.replay.replayed_news import scored_items
from schema.lake_layout import news_key
from tests.e2e.conftest import EVE, FIRST, FUNCTIONS, App

UNREACHABLE = "http://127.0.0.1:9"
SECOND = "2020-08-27"
SCHEDULES = ("backfill_bars", "build_features", "collect_news", "decide", "health", "ingest_quotes", "reconcile", "report", "train")


def until(what: Callable[[], Any], *, seconds: float = 60) -> Any:
    """Poll until `what` is true and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


@dataclass(frozen=True, kw_only=True)
class LivedDay:
    """What the day left behind: answers by schedule, runs by (function, trigger), firings by schedule, mails, pointers, dead letters; and
    which alarms were `loud` before it, by what other tests did to the app."""

    answers: dict[str, dict[str, Any]]
    runs: Counter[tuple[str, str]]
    firings: Counter[str]
    mails: list[dict[str, Any]]
    approved: ServedModel
    rejected: tuple[ServedModel | None, ServedModel | None]
    quiet: tuple[str, ...]
    loud: set[str]
    failed: dict[str, Any]
    dead: list[dict[str, Any]]


def alarming(app: App) -> set[str]:
    return {alarm["AlarmName"] for alarm in app.deployment.client("cloudwatch").describe_alarms(StateValue="ALARM")["MetricAlarms"]}


@pytest.fixture(scope="module")
def day(app: App, trained: TrainingResult) -> LivedDay:
    """The session of the 26th, whose model was approved before it and rejected in it; then a decision without a broker on the 27th."""
    app.begin(f"{EVE}T22:00:00Z")
    app.dead_letters()
    runs, firings, mails = app.invoked(), app.fired(), len(app.deployment.cloud.published())
    quiet = tuple(name for name in ("decide-failed", "dead-letter") if app.alarm(name)["StateValue"] != "ALARM")
    loud = alarming(app)
    registry, ledger = app.deployment.client("sagemaker"), app.deployment.ledger

    def judge(status: str) -> None:
        registry.update_model_package(ModelPackageArn=trained.package_arn, ModelApprovalStatus=status)

    judge("Approved")
    approved = until(ledger.incumbent)
    answers = {
        "ingest_quotes": app.succeed("ingest_quotes", f"{FIRST}T13:35:00Z"),
        "decide": app.succeed("decide", f"{FIRST}T13:35:00Z"),
        "reconcile": app.succeed("reconcile", f"{FIRST}T13:40:00Z"),
    }
    judge("Rejected")
    until(ledger.shadow)
    rejected = (ledger.incumbent(), ledger.shadow())
    answers["collect_news"] = app.succeed("collect_news", f"{FIRST}T20:00:00Z")
    answers["close"] = app.succeed("reconcile", f"{FIRST}T20:05:00Z")
    answers["health"] = app.succeed("health", f"{FIRST}T20:15:00Z")
    answers["report"] = app.succeed("report", f"{FIRST}T21:30:00Z")
    answers["backfill_bars"] = app.succeed("backfill_bars", f"{FIRST}T22:00:00Z")
    app.exchange.advance(f"{FIRST}T22:30:00Z")
    answers["build_features"] = app.deployment.build_features(time=f"{FIRST}T22:30:00Z")
    answers["portfolio"] = app.api.call("GET", "/portfolio").body
    with app.with_broker("decide", UNREACHABLE):
        failed = app.fire("decide", f"{SECOND}T13:35:00Z")
    return LivedDay(
        answers=answers,
        runs=app.invoked() - runs,
        firings=app.fired() - firings,
        mails=app.deployment.cloud.published()[mails:],
        approved=approved,
        rejected=rejected,
        quiet=quiet,
        loud=loud,
        failed=failed,
        dead=app.dead_letters(),
    )


def test_every_function_runs_through_its_real_trigger(app: App, day: LivedDay) -> None:
    assert day.runs == {
        ("ingest_quotes", "schedule"): 1,
        ("decide", "schedule"): 2,
        ("execute_orders", "api"): 1,  # decide's own signed POST
        ("reconcile", "schedule"): 2,
        ("collect_news", "schedule"): 1,
        ("health", "schedule"): 1,
        ("report", "schedule"): 1,
        ("backfill_bars", "schedule"): 1,
        ("deploy_model", "event"): 2,
        ("control", "api"): 1,
    }
    assert {folder for folder, _ in day.runs} == set(FUNCTIONS)
    assert day.answers["ingest_quotes"]["quotes"] == 8
    assert (day.answers["decide"]["outcome"], day.answers["decide"]["orders"]) == ("decided", 8)
    collected = day.answers["collect_news"]
    assert (collected["outcome"], collected["down"]) == ("collected", [])
    assert collected["scored"] == collected["items"]["alpaca"] > 0
    assert day.answers["close"]["snapshot"] == "taken"
    assert day.answers["backfill_bars"]["end"] == FIRST
    assert day.answers["build_features"]["end"] >= FIRST  # later, if another test has filled the lake further
    assert day.answers["portfolio"]["snapshot"]["session"] == FIRST


def test_every_deployed_schedule_is_fired_and_every_function_of_the_app_is_known(app: App, day: LivedDay) -> None:
    assert sorted(name.removeprefix(f"{app.settings.name}-") for name in app.deployment.schedules()) == sorted(SCHEDULES)
    assert set(app.fired()) >= set(SCHEDULES)
    pages = app.deployment.client("lambda").get_paginator("list_functions").paginate()
    deployed = {function["FunctionName"] for page in pages for function in page["Functions"]}
    assert deployed == set(app.names), "each deployed function has an output and a place in the tests"


def test_a_session_s_news_lie_in_the_lake_with_their_scores(app: App, day: LivedDay) -> None:
    """Through the deployed role and the real scheduler's target; what is read is what the report of a replay reads."""
    items = [item for item in scored_items(app.deployment) if item.received == f"{FIRST}T20:00:00Z"]
    assert len(items) == day.answers["collect_news"]["scored"]
    assert {symbol for item in items for symbol in item.symbols} <= set(app.settings.universe.symbols)
    key = news_key("alpaca", datetime.fromisoformat(f"{FIRST}T20:00:00Z"))
    lines = [json.loads(line) for line in gzip.decompress(app.deployment.object("raw", key)).splitlines()]
    assert [line["id"] for line in lines] == [item.id for item in items]
    assert {line["author"] for line in lines} == {"papertape (invented)"}


def test_no_function_runs_that_was_not_fired(app: App, day: LivedDay) -> None:
    """Since the deployment: a function's scheduled runs are its schedule's firings, and nothing else ran but what its trigger allows."""
    runs, firings = app.invoked(), app.fired()
    scheduled = {folder for folder in SCHEDULES if folder in FUNCTIONS}
    assert {folder: runs[folder, "schedule"] for folder in scheduled} == {folder: firings[folder] for folder in scheduled}
    others = {key for key in runs if key[1] != "schedule"}
    assert others <= {("execute_orders", "api"), ("control", "api"), ("deploy_model", "event"), ("backfill_bars", "direct")}
    assert runs["backfill_bars", "direct"] == 1, "the user's first backfill"
    assert runs["deploy_model", "event"] == firings["train"] + 2, "each pipeline's verdict, the approval and the rejection"


def test_an_approved_model_decides_and_a_rejected_one_watches(app: App, day: LivedDay, trained: TrainingResult) -> None:
    assert (day.approved.policy, day.approved.spec) == ("endpoint", trained.package_arn)
    assert day.answers["decide"]["model_version"] == day.approved.model_version
    stored = app.deployment.ledger.decision(f"agent:{FIRST}/open+5")
    assert stored is not None
    assert stored.model_version == trained.evaluation["model_hash"]
    assert len(set(stored.weights.values())) == 8, "the network's own weights, not equal ones"
    incumbent, shadow = day.rejected
    assert incumbent is not None
    assert shadow is not None
    assert (incumbent.policy, shadow.spec) == ("equal-weight", trained.package_arn)


def test_a_failed_run_reaches_the_dead_letters_and_its_alarm_mails(app: App, day: LivedDay) -> None:
    assert day.quiet == ("decide-failed", "dead-letter")
    assert day.failed["status"] == "failed"
    (letter,) = day.dead
    assert letter["requestPayload"] == {"schedule": "decide", "slot": "open+5", "time": f"{SECOND}T13:35:00Z"}
    assert app.names[letter["requestContext"]["functionArn"].split(":function:")[1].split(":")[0]] == "decide"
    topic = app.deployment.output("AlertTopicArn")
    for name in day.quiet:
        alarm = app.alarm(name)
        assert alarm["StateValue"] == "ALARM"
        assert alarm["AlarmActions"] == [topic]
        (mail,) = [mail for mail in day.mails if alarm["AlarmName"] in mail["subject"]]
        assert mail["topic"] == topic
        assert "ALARM" in mail["subject"]
    assert alarming(app) - day.loud == {app.alarm(name)["AlarmName"] for name in day.quiet}


@pytest.mark.rehearse
def test_the_weekly_training_sees_new_sessions_and_ends_when_there_are_none(app: App, day: LivedDay, trained: TrainingResult) -> None:
    """The features reach a session further by now. What trades is of the same configuration, approved by its owner, so the judge asks the
    registry for it and only checks the refit; a week without a session gives no model."""
    assert trained.evaluation["windows"]["live_start"] == FIRST <= day.answers["build_features"]["end"]
    app.deployment.client("sagemaker").update_model_package(ModelPackageArn=trained.package_arn, ModelApprovalStatus="Approved")
    again = app.deployment.train(time="2020-08-29T10:00:00Z")
    assert again.package_version == trained.package_version + 1
    assert again.evaluation["data"]["end"] > trained.evaluation["data"]["end"]
    assert (trained.evaluation["gate"]["title"], again.evaluation["gate"]["title"]) == ("gate", "refit check")
    assert again.evaluation["configuration"] == trained.evaluation["configuration"]
    assert again.evaluation["log"] == {**trained.evaluation["log"], "new": False}
    with pytest.raises(LocalDeploymentError, match=r"no training was due: nothing changed: papertape/\d+ was made from the same data"):
        app.deployment.train(time="2020-09-05T10:00:00Z")
    bucket, log = app.deployment.output("ProcessedBucket"), "models/trials/"
    kept = app.deployment.client("s3").list_objects_v2(Bucket=bucket, Prefix=log)["Contents"]
    assert [entry["Key"] for entry in kept] == [f"{log}000001.json"]
