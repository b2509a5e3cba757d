"""Health as a person sees it: the loop's freshness, what is wrong with its remedy, alarms, and what is not known said to be so."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import boto3
import pytest

from lambdas.common.lake.lake import Lake
from lambdas.common.lake.news_state import NEWS_STATE
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.notices import Notice
from lambdas.common.ledger.records import AlertRecord, BrokerState, Snapshot
from lambdas.common.ledger.runner_state import RunnerState
from schema.lake_layout import bars_key, calendar_key, quotes_key, stream_quarantine_key
from schema.sections.realtime import RunnerSettings, StreamSettings
from schema.settings import SETTINGS_FILE, Settings
from tests.aws.conftest import settings_file
from tests.aws.dashboard.conftest import Web

AT = "2020-01-02T14:31:00Z"  # a minute after the open


@pytest.fixture
def well(web: Web, ledger_table: Ledger, buckets: SimpleNamespace, settings: Settings) -> Web:
    """A deployment of which the calendar, the bars and the last close are there, a minute after the open."""
    sessions = [date(2019, 12, 30), date(2019, 12, 31), date(2020, 1, 2), date(2020, 1, 3)]
    rows = [
        {"session": day.isoformat(), "open": f"{day.isoformat()}T14:30:00Z", "close": f"{day.isoformat()}T21:00:00Z"} for day in sessions
    ]
    lake = Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw)
    bars = [{"ts": "2019-12-31T05:00:00Z", "close": 300.0}]
    lake.write({calendar_key(2019): rows[:2], calendar_key(2020): rows[2:], bars_key("SPY", 2019): bars})
    ledger_table.put_snapshot(
        Snapshot(session="2019-12-31", cash=Decimal(1), equity=Decimal(100), positions={}, taken_at="2019-12-31T21:05:00Z")
    )
    seen(ledger_table, "2020-01-02T14:30:00Z")
    return web.as_user(now=AT)


def seen(ledger: Ledger, now: str) -> None:
    ledger.put_broker_state(
        BrokerState(now=now, is_open=True, next_open=now, next_close=now, account_id="a", equity=Decimal(100))
    )  # fmt: skip


def states(web: Web) -> dict[str, str]:
    return {one["name"]: one["state"] for one in web.get("api/health").body["steps"]}


def test_the_loop_is_shown_left_to_right_and_nothing_unknown_is_fresh(well: Web) -> None:
    found = states(well)
    assert list(found) == [
        "calendar", "bars", "quotes", "news", "features", "decision", "orders", "reconcile", "snapshot", "report", "training",
    ]  # fmt: skip
    assert {name for name, state in found.items() if state == "fresh"} == {"calendar", "bars", "reconcile", "snapshot"}
    assert {name for name, state in found.items() if state == "unknown"} == {"quotes", "news", "features", "decision", "orders", "report"}
    assert "Nothing is wrong" in well.get("pages/health").text


def test_a_broken_rule_makes_its_step_late_and_shows_its_remedy(well: Web, ledger_table: Ledger) -> None:
    later = well.as_user(now="2020-01-02T15:06:00Z")
    found = states(later)
    assert (found["decision"], found["quotes"], found["reconcile"]) == ("late", "late", "late")
    view = later.get("api/health").body
    missed = next(one for one in view["conditions"] if one["rule"] == "slot-missed")
    assert missed["detail"].startswith("no decision in slot 2020-01-02/open+5")
    assert missed["remedy"].startswith("Read decide's log")
    assert missed["command"] == "", "a laptop has no such command"
    shown = later.get("pages/health").text
    assert "What to do.</strong> Read decide&#39;s log" in shown


def test_what_stops_trading_is_marked_and_hostile_words_are_text(well: Web, ledger_table: Ledger) -> None:
    ledger_table.put_alert(AlertRecord(rule="drift:IBM", session="2020-01-02", subject="<img src=x>", detail="<script>1</script>", time=AT))
    ledger_table.put_notice(Notice(key="n", time=AT, subject="s", detail="<b>trading is halted</b>"))
    ledger_table.set_trading_state("halted", reason="<i>odd fills</i>", time=AT, by="anna")
    shown = well.get("pages/health").text
    assert "&lt;script&gt;1" in shown
    for tag in ("<script", "<img", "<b>", "<i>"):
        assert tag not in shown
    assert "Trading is halted: &lt;i&gt;odd fills" in shown
    drift = next(one for one in well.get("api/health").body["conditions"] if one["rule"] == "drift")
    assert drift["remedy"].startswith("Compare GET /portfolio with the broker's page")


def test_alarms_come_what_rings_first(well: Web) -> None:
    cloudwatch = boto3.client("cloudwatch")
    for name in ("papertape-decide-failed", "papertape-dead-letter", "another-app"):
        cloudwatch.put_metric_alarm(
            AlarmName=name, AlarmDescription=f"what {name} watches", MetricName="m", Namespace="n", Statistic="Sum", Period=60,
            EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanThreshold",
        )  # fmt: skip
    cloudwatch.set_alarm_state(AlarmName="papertape-decide-failed", StateValue="ALARM", StateReason="it raised")
    alarms = well.get("api/health").body["alarms"]
    assert (alarms[0]["name"], alarms[0]["state"]) == ("papertape-decide-failed", "ALARM")
    assert len(alarms) == 2
    assert "in alarm</span>" in well.get("pages/health").text


def test_what_cannot_be_read_is_said_to_be_unknown(well: Web, buckets: SimpleNamespace) -> None:
    boto3.client("s3").put_object(Bucket=buckets.processed, Key=NEWS_STATE, Body=b"not JSON")
    view = well.get("api/health").body
    assert (view["steps"], view["conditions"], view["cost"]) == ([], [], None)
    assert "is no state of the news collection" in view["problem"]
    shown = well.get("pages/health").text
    assert "The ledger or the lake cannot be read now" in shown
    assert "Nothing is wrong" not in shown


def test_a_replay_is_judged_by_its_own_clock_and_says_so(well: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    years_later = well.as_user(now="2026-11-22T05:00:00Z")
    view = years_later.get("api/health").body
    assert (view["as_of"], view["replay"]) == ("2020-01-02T14:30:00Z", True)
    assert "the clock of this replay" in years_later.get("pages/health").text
    monkeypatch.setenv("RUNS_PIPELINE", "papertape-runs")
    on_aws = years_later.get("api/health").body
    assert (on_aws["as_of"], on_aws["replay"]) == ("2026-11-22T05:00:00Z", False)
    missing = next(one for one in on_aws["conditions"] if one["rule"] == "calendar-missing")
    assert missing["stops"] is True
    assert missing["command"].startswith("aws lambda invoke")


def test_an_empty_deployment_has_no_numbers_of_its_own(web: Web) -> None:
    view = web.get("api/health").body
    assert view["cost"] == {
        "budget": 15.0, "scorer": "vader", "scoring": 0.0, "scoring_budget": 2.0, "posts": None, "posts_limit": 2000,
    }  # fmt: skip
    assert "fresh" not in {one["state"] for one in view["steps"]}


@pytest.fixture
def realtime(well: Web, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Web:
    on = {"runner": RunnerSettings(enabled=True), "stream": StreamSettings(kind="firehose")}
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings.model_copy(update=on)))
    return well


def beat(*, ago: float = 5.0, **changed: object) -> RunnerState:
    """The runner's, of `ago` seconds before now on this machine's clock."""
    now = datetime.now(UTC)
    said = RunnerState(
        runner="task-1", state="following", since="2020-01-02T14:20:00Z", beat_at=(now - timedelta(seconds=ago)).isoformat(),
        market_open=True, symbols=("SPY",), heard_orders="2020-01-02T14:30:55Z", minutes=4, reconnects=2, lost=7,
    )  # fmt: skip
    return said.model_copy(update=changed)


def test_the_page_is_silent_about_a_runner_and_a_stream_that_are_off(well: Web, ledger_table: Ledger) -> None:
    ledger_table.put_runner_state(beat())
    view = well.get("api/health").body
    assert (view["runner"], view["stream"]) == (None, None)
    shown = well.get("pages/health").text
    assert "The runner" not in shown
    assert "The stream" not in shown


def test_a_runner_that_follows_is_shown_with_its_sockets_and_what_it_lost(realtime: Web, ledger_table: Ledger) -> None:
    assert realtime.get("api/health").body["runner"]["state"] == "never"
    assert "It has never run." in realtime.get("pages/health").text
    ledger_table.put_runner_state(beat())
    runner = realtime.get("api/health").body["runner"]
    assert (runner["state"], runner["since"], runner["minutes"], runner["lost"]) == ("following", "2020-01-02T14:20:00Z", 4, 7)
    assert runner["sockets"] == [{"name": "orders", "heard": "2020-01-02T14:30:55Z"}, {"name": "market data", "heard": None}]
    shown = realtime.get("pages/health").text
    assert "<dt>Last heard: market data</dt><dd>never</dd>" in shown
    assert '<dt>Lost</dt><dd class="loss">7</dd>' in shown


def test_a_runner_whose_beat_is_too_old_is_silent_and_one_that_ended_says_why(realtime: Web, ledger_table: Ledger) -> None:
    ledger_table.put_runner_state(beat(ago=61))
    assert realtime.get("api/health").body["runner"]["state"] == "silent"
    assert "runner-silent" in realtime.get("pages/health").text
    ledger_table.put_runner_state(beat(since="2020-01-02T14:25:00Z", state="stopped", reason="<b>the keys were refused</b>"))
    assert realtime.get("api/health").body["runner"]["state"] == "stopped"
    assert "It ended: &lt;b&gt;the keys were refused" in realtime.get("pages/health").text


def test_the_stream_shows_its_newest_quotes_and_what_could_not_be_read(realtime: Web, buckets: SimpleNamespace) -> None:
    assert realtime.get("api/health").body["stream"] == {"kind": "firehose", "newest": None, "set_aside": 0}
    now = datetime.fromisoformat(AT)
    for key in (quotes_key(now), stream_quarantine_key(now, "one"), stream_quarantine_key(now - timedelta(days=1), "of yesterday")):
        boto3.client("s3").put_object(Bucket=buckets.raw, Key=key, Body=b"")
    assert realtime.get("api/health").body["stream"] == {"kind": "firehose", "newest": "2020-01-02T14:31:00Z", "set_aside": 1}
    assert "<dt>Kind</dt><dd>firehose</dd>" in realtime.get("pages/health").text
