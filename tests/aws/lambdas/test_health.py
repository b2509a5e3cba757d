"""Health: each rule against facts that break it and facts that don't, and the function against a real ledger, lake and topic."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from lambdas.common import telemetry
from lambdas.common.health.checks import Facts, NewsFacts, RunnerFacts, SlotRowFacts
from lambdas.common.health.closes import ComparedCloses
from lambdas.common.health.remedies import COMMANDS, AppAddress, command_for
from lambdas.common.health.rules import RULES, Finding, evaluate, markdown
from lambdas.common.health.runbooks import RUNBOOKS
from lambdas.common.lake import lake as lakes
from lambdas.common.lake.lake import Lake
from lambdas.common.lake.news_state import SourceDown
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import AlertRecord, Attribution, Breakers, Decision, OrderRecord, PlannedOrder, ServedModel, Snapshot
from lambdas.common.ledger.runner_state import RunnerState
from lambdas.common.market_events import MarketEventError
from lambdas.health import handler as watching
from lambdas.health.mail import News, compose
from schema.lake_layout import bars_key, features_manifest, quotes_key
from schema.realtime.events import SOURCE, FeedSilent
from schema.sections.learning import GateSettings
from schema.sections.realtime import StreamSettings
from schema.settings import SETTINGS_FILE, Settings
from tests.lakes import fill_raw
from tests.settings_files import settings_file
from trading_env.orders.order_state import OrderStatus

ROOT = Path(__file__).resolve().parents[3]
BREAKERS = ("max_drawdown", "max_daily_loss")  # named by trading_env.orders.risk
ACCOUNT, MINE = AppAddress("papertape", "us-east-1"), AppAddress("mine", "us-east-1")
OPENS, CLOSES = datetime(2020, 1, 2, 14, 30, tzinfo=UTC), datetime(2020, 1, 2, 21, tzinfo=UTC)
SLOT = "2020-01-02/open+5"
DECISION = Decision(
    decision_id=f"agent:{SLOT}", strategy="agent", slot=SLOT, body_sha256="b", received_at="2020-01-02T14:35:00Z", state="done"
)
ORDER = OrderRecord(
    client_order_id="pt1-x", decision_id=f"agent:{SLOT}", slot=SLOT, symbol="SPY", side="buy", quantity=Decimal(1), price=300.0,
    status="unknown", created_at="2020-01-02T14:35:00Z", unknown_since="2020-01-02T14:35:00Z",
)  # fmt: skip
MODEL = ServedModel(
    role="incumbent",
    policy="endpoint",
    spec="arn/1",
    model_version="m",
    kappa=0.1,
    since="2020-01-01T00:00:00Z",
    trained_until="2019-12-31",
)


def closed(session: str, **more: Any) -> Snapshot:
    return Snapshot(session=session, cash=Decimal(1), equity=Decimal(100_000), taken_at=f"{session}T21:05:00Z", **more)


def explained(gap: float, session: str = "2019-12-31") -> Attribution:
    return Attribution(
        session=session, decision_id="d", live=100.0, ideal=100.0 - gap, parts={"price": gap - 1, "missed": 1.0, "cash": 0.001}
    )


def apart(*pairs: tuple[str, float, float], failed: str = "") -> ComparedCloses:
    return ComparedCloses(session=date(2019, 12, 31), pairs=pairs, failed=failed)


def decided(*scores: float, model: str = "m") -> tuple[Decision, ...]:
    """Decisions of the model that scored SPY so, and IBM always 0."""
    return tuple(DECISION.model_copy(update={"model_version": model, "scores": {"SPY": score, "IBM": 0.0}}) for score in scores)


WELL = Facts(
    now=datetime(2020, 1, 2, 16, tzinfo=UTC),
    day=date(2020, 1, 2),
    calendar_reaches=date(2021, 12, 31),
    opens=OPENS,
    closes=CLOSES,
    earlier=(date(2019, 12, 30), date(2019, 12, 31)),
    last_quotes=datetime(2020, 1, 2, 15, 59, tzinfo=UTC),
    decisions=(DECISION,),
    working=(),
    unsettled=(),
    alerts=(),
    tripped={},
    state="active",
    state_reason="",
    trader=MODEL,
    features_end=date(2019, 12, 31),
    newest_bar=date(2019, 12, 31),
    last_snapshot=closed("2019-12-31"),
)
HOLIDAY = replace(WELL, opens=None, closes=None, decisions=(), last_quotes=None)
EVENING = replace(WELL, now=CLOSES + timedelta(minutes=15), last_snapshot=closed("2020-01-02"))
SETTLED_LATE = ORDER.model_copy(update={"status": OrderStatus.NEW, "unknown_since": None})
DOWN = SourceDown(runs=6, since="2020-01-02T13:00:00Z", reason="x refused its key for /2/tweets/search/recent (401)")
BEAT = RunnerState(
    runner="task-1", state="following", since="2020-01-02T14:20:00Z", beat_at="2020-01-02T15:59:30Z", market_open=True, symbols=("SPY",)
)
LONG = tuple(date(2019, 11, 1) + timedelta(days=day) for day in range(22))


def test_what_breaks_a_rule_twice_is_told_twice(settings: Settings) -> None:
    two = (ORDER, ORDER.model_copy(update={"client_order_id": "pt1-y"}))
    facts = replace(WELL, unsettled=two, tripped={"max_drawdown": "a", "max_daily_loss": "b"}, state="halted")
    keys = [
        "order-unknown:pt1-x",
        "order-unknown:pt1-y",
        "breaker-tripped:max_drawdown",
        "breaker-tripped:max_daily_loss",
        "not-active:halted",
    ]
    assert [finding.key for finding in evaluate(facts, settings)] == keys


def test_each_slot_is_watched(two_slots: Settings) -> None:
    later = replace(WELL, now=OPENS + timedelta(minutes=91))
    (finding,) = evaluate(later, two_slots)
    assert (finding.key, finding.detail) == (
        "slot-missed:open+60", "no decision in slot 2020-01-02/open+60, its window ended at 2020-01-02 16:00 UTC (11:00 New York)"
    )  # fmt: skip
    second = DECISION.model_copy(update={"slot": "2020-01-02/open+60", "refused": {"IBM": "IBM has no quote"}})
    assert [one.key for one in evaluate(replace(later, decisions=(DECISION, second)), two_slots)] == ["name-refused:IBM"]
    assert [one.key for one in evaluate(replace(later, decisions=()), two_slots)] == ["slot-missed:open+5", "slot-missed:open+60"]


def broken(facts: Facts, settings: Settings) -> list[str]:
    return [finding.rule.name for finding in evaluate(facts, settings)]


@pytest.mark.parametrize("facts", [WELL, HOLIDAY, EVENING, replace(WELL, trader=None)])
def test_a_healthy_agent_breaks_no_rule(facts: Facts, settings: Settings) -> None:
    assert broken(facts, settings) == []


@pytest.mark.parametrize(
    ("rule", "facts"),
    [
        ("calendar-missing", replace(WELL, calendar_reaches=date(2020, 1, 1))),
        ("calendar-missing", replace(HOLIDAY, calendar_reaches=None)),
        ("bars-late", replace(WELL, newest_bar=date(2019, 12, 30))),
        ("bars-late", replace(WELL, newest_bar=None)),
        ("minutes-late", replace(WELL, slot_rows=SlotRowFacts(newest=date(2019, 12, 30)))),
        ("minutes-late", replace(WELL, slot_rows=SlotRowFacts(newest=None))),
        ("bars-late", replace(WELL, newest_bar=date(2019, 12, 30), slot_rows=SlotRowFacts(newest=date(2019, 12, 30)))),
        ("quotes-stale", replace(WELL, last_quotes=WELL.now - timedelta(minutes=11))),
        ("quotes-stale", replace(WELL, last_quotes=None)),
        ("slot-missed", replace(WELL, decisions=())),
        ("order-unknown", replace(WELL, unsettled=(ORDER,))),
        ("order-open", replace(WELL, unsettled=(SETTLED_LATE.model_copy(update={"created_at": "2019-12-31T14:35:00Z"}),))),
        ("order-open", replace(EVENING, now=CLOSES + timedelta(minutes=16), unsettled=(SETTLED_LATE,))),
        ("name-refused", replace(WELL, decisions=(DECISION.model_copy(update={"refused": {"IBM": "IBM: the broker says it is halted"}}),))),
        ("position-drift", replace(WELL, last_snapshot=closed("2019-12-31", drift={"IBM": "our fills say 0, the broker holds 3"}))),
        ("live-differs", replace(WELL, attribution=explained(-500.5))),
        ("live-differs", replace(EVENING, attribution=explained(500.5))),
        ("policy-constant", replace(WELL, recent=decided(*[1.5] * 10))),
        ("policy-constant", replace(WELL, recent=(*decided(*range(9)), *decided(*[0.1 + 0.2] * 5, *[0.3] * 5)))),
        ("closes-disagree", replace(WELL, compared={"finnhub": apart(("SPY", 300.0, 301.6))})),
        ("closes-disagree", replace(WELL, compared={"finnhub": apart(("SPY", 300.0, 75.0), ("IBM", 130.0, 130.0))})),
        ("closes-disagree", replace(WELL, compared={"finnhub": apart(failed="finnhub refused its key")})),
        ("batch-unfinished", replace(WELL, working=(DECISION.model_copy(update={"window_ends": "2020-01-02T15:05:00Z"}),))),
        ("breaker-tripped", replace(WELL, tripped={"drawdown": "equity fell 51% below its high"})),
        ("not-active", replace(WELL, state="halted", state_reason="a person said so")),
        ("alert-raised", replace(WELL, alerts=(AlertRecord(rule="drift:AAPL", session="2020-01-02", subject="s", detail="d", time="t"),))),
        ("model-old", replace(WELL, trader=MODEL.model_copy(update={"trained_until": "2018-09-01"}))),
        ("features-late", replace(WELL, earlier=(*LONG, *WELL.earlier), features_end=date(2019, 10, 31))),
        ("features-late", replace(WELL, earlier=(*LONG, *WELL.earlier), features_end=None)),
        ("snapshot-missing", replace(WELL, last_snapshot=closed("2019-12-30"))),
        ("snapshot-missing", replace(EVENING, last_snapshot=closed("2019-12-31"))),
        ("snapshot-missing", replace(EVENING, last_snapshot=None)),
        ("news-stale", replace(WELL, news=NewsFacts(down={"x": DOWN}, unscored={}))),
        ("sentiment-behind", replace(WELL, news=NewsFacts(down={}, unscored={"x": WELL.now - timedelta(minutes=121)}))),
        ("sentiment-budget", replace(WELL, news=NewsFacts(down={}, unscored={}, stopped="2.00 of 2.00 dollars are spent"))),
        ("runner-silent", replace(WELL, runner=RunnerFacts(beat=None, asked_at=WELL.now))),
        ("runner-silent", replace(WELL, runner=RunnerFacts(beat=BEAT, asked_at=WELL.now + timedelta(seconds=31)))),
        ("runner-silent", replace(WELL, runner=RunnerFacts(beat=BEAT.model_copy(update={"state": "stopped"}), asked_at=WELL.now))),
    ],
)
def test_each_rule_is_broken_by_what_it_watches(rule: str, facts: Facts, settings: Settings) -> None:
    assert broken(facts, settings) == [rule]


@pytest.mark.parametrize(
    "facts",
    [
        replace(WELL, slot_rows=SlotRowFacts(newest=date(2019, 12, 31))),
        replace(WELL, now=OPENS + timedelta(minutes=9), last_quotes=None, decisions=()),
        replace(WELL, now=OPENS + timedelta(minutes=35), decisions=(), last_quotes=OPENS + timedelta(minutes=30)),
        replace(WELL, unsettled=(SETTLED_LATE,)),
        replace(EVENING, unsettled=(SETTLED_LATE,)),
        replace(EVENING, last_snapshot=closed("2020-01-02", drift={"IBM": "today's, of which the alert speaks"})),
        replace(WELL, attribution=explained(499.5)),
        replace(WELL, attribution=explained(-9_999.0, session="2019-12-30")),
        replace(WELL, recent=decided(*[1.5] * 9)),
        replace(WELL, recent=decided(*[1.5] * 9, 1.6)),
        replace(WELL, recent=decided(*[1.5] * 10, model="another")),
        replace(WELL, recent=decided(*[1.5] * 10), trader=MODEL.model_copy(update={"policy": "equal-weight"})),
        replace(WELL, unsettled=(ORDER.model_copy(update={"unknown_since": "2020-01-02T15:45:00Z"}),)),
        replace(WELL, unsettled=(ORDER.model_copy(update={"status": OrderStatus.NEW, "broker_id": "found-after-all"}),)),
        replace(WELL, trader=MODEL.model_copy(update={"policy": "equal-weight", "trained_until": None, "since": "2010-01-01T00:00:00Z"})),
        replace(WELL, compared={"finnhub": apart(("SPY", 300.0, 301.4), ("IBM", 130.0, 129.4))}),
        replace(WELL, decisions=(DECISION,), last_snapshot=None),
        replace(EVENING, last_quotes=None),
        replace(WELL, runner=RunnerFacts(beat=BEAT, asked_at=WELL.now + timedelta(seconds=30))),
        replace(EVENING, runner=RunnerFacts(beat=None, asked_at=WELL.now)),
        replace(WELL, news=NewsFacts(down={"x": DOWN.model_copy(update={"runs": 5})}, unscored={"x": WELL.now - timedelta(minutes=120)})),
    ],
)
def test_a_threshold_not_yet_reached_is_no_finding(facts: Facts, settings: Settings) -> None:
    assert broken(facts, settings) == []


def test_closes_that_differ_are_named_the_worst_first(settings: Settings) -> None:
    pairs = [(f"N{number}", 100.0, 101.0 + number) for number in range(7)]
    (finding,) = evaluate(replace(WELL, compared={"finnhub": apart(*pairs, ("SPY", 300.0, 300.1))}), settings)
    assert finding.key == "closes-disagree:finnhub"
    assert finding.detail.startswith("7 of 8 closes of 2019-12-31 differ from finnhub's: N6 100 here, 107 there (7.0%), N5 100 here, 106")
    assert finding.detail.endswith(" and 2 more")


def test_every_rule_is_proved_above() -> None:
    mark = next(mark for mark in test_each_rule_is_broken_by_what_it_watches.pytestmark)  # type: ignore[attr-defined]
    assert {case[0] for case in mark.args[1]} == {rule.name for rule in RULES}


def test_the_page_is_the_table() -> None:
    assert (ROOT / "docs" / "alarms.md").read_text(encoding="utf-8") == markdown()
    assert all(f"## {rule.name}\n" in markdown() for rule in RULES)


def test_every_alert_that_a_function_raises_has_its_runbook() -> None:
    """And the table has none that nobody raises. Rules are named where they are raised, in letters and dashes, before any colon."""
    raised = set(BREAKERS)
    pattern = re.compile(
        r"""(?:NoTrade\(|rule=f?|rule = f?|rule, (?:detail|session) = f?|_halt\(ledger, f?|_alert\((?:[\w.]+, )+f?)"([a-z][a-z-]+)[:"]"""
    )
    for path in sorted((ROOT / "lambdas").rglob("*.py")):
        if path.parent != ROOT / "lambdas" / "common" / "health":
            raised |= set(pattern.findall(path.read_text(encoding="utf-8")))
    assert raised == set(RUNBOOKS)


def test_an_alert_s_mail_says_what_to_do_about_that_alert(settings: Settings) -> None:
    alert = AlertRecord(rule="account-changed", session="2020-01-02", subject="s", detail="d", time="t")
    _, body = compose(News(new=evaluate(replace(WELL, alerts=(alert,)), settings)), deployment=ACCOUNT, now=WELL.now)
    assert RUNBOOKS["account-changed"].runbook in body
    assert '  Type:  make resume reason="..." on=aws\n' in body


@pytest.mark.parametrize(("minutes", "rules"), [(20, []), (21, ["quotes-stale"])])
def test_quotes_of_a_stream_may_be_as_old_as_two_deliveries(minutes: int, rules: list[str], settings: Settings) -> None:
    streamed = settings.model_copy(update={"stream": StreamSettings(kind="firehose")})
    assert broken(replace(WELL, last_quotes=WELL.now - timedelta(minutes=minutes)), streamed) == rules


@pytest.mark.parametrize("rule", [*RULES, *RUNBOOKS])
def test_each_finding_has_a_command_that_a_shell_can_read(rule: Any) -> None:
    name = rule if isinstance(rule, str) else rule.name
    command = command_for(name, "pt1-x", ACCOUNT)
    assert shlex.split(command)[0] in {"aws", "make"}
    assert not re.search(r"[{}]", command.replace("'{}'", ""))
    assert shlex.split(command_for(name, "pt1-x", AppAddress("papertape", "us-east-1", local=True)))[:1] in (["make"], [])


def test_a_command_names_what_the_stacks_export() -> None:
    """Each output that a command asks for is one of the stack's."""
    commands = [command_for(name, "x", address) for name in COMMANDS for address in (MINE, replace(MINE, streamed=True))]
    asked = {one for command in commands for one in re.findall(r"--stack-name mine-(\w+) --query \"[^\"]*=='(\w+)'", command)}
    assert {("ingest", "IngestQuotesFunction"), ("stream", "ConsumeStreamFunction")} <= asked
    for stack, output in asked:
        assert f'"{output}"' in (ROOT / "stacks" / f"{stack}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("state", "new", "answer"),
    [
        ("active", "slot-missed", "Yes, it goes on at the next slot."),
        ("active", "bars-late", "Not until this is mended: bars-late."),
        ("reduce_only", "bars-late", "It only sells: trading is reduce_only (why)."),
        ("halted", "bars-late", "No: trading is halted (why)."),
    ],
)
def test_a_mail_says_whether_it_still_trades(state: str, new: str, answer: str) -> None:
    finding = next(Finding(rule, "detail") for rule in RULES if rule.name == new)
    _, body = compose(News(new=[finding], state=state, state_reason="why"), deployment=ACCOUNT, now=WELL.now)
    assert body.splitlines()[-1] == f"Does it still trade? {answer}"
    assert body.splitlines()[0] == "At 2020-01-02 16:00 UTC (11:00 New York):"


def test_a_long_subject_stays_a_subject(settings: Settings) -> None:
    subject, body = compose(News(new=[Finding(rule, "detail") for rule in RULES]), deployment=ACCOUNT, now=WELL.now)
    assert len(subject) <= 100
    assert all(rule.runbook in body for rule in RULES)


@pytest.fixture
def run(
    ledger_table: Ledger, buckets: SimpleNamespace, topic: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[str, Any]]]:
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings))
    monkeypatch.setattr(telemetry.metrics.provider, "namespace", "Papertape")
    lakes.lake.cache_clear()
    watching._sns.cache_clear()
    yield lambda time: watching.handler({"schedule": "health", "time": time}, None)
    lakes.lake.cache_clear()
    watching._sns.cache_clear()


@pytest.fixture
def every_minute(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Callable[[str], Any]:
    """Runs of the rule that is looked at every minute, with the runner enabled."""
    enabled = settings.model_copy(update={"runner": settings.runner.model_copy(update={"enabled": True})})
    monkeypatch.setenv(SETTINGS_FILE, settings_file(enabled))
    return lambda time: watching.handler({"schedule": "health-runner", "time": time, "only": "runner-silent"}, None)


@pytest.fixture
def lake(buckets: SimpleNamespace, settings: Settings) -> Lake:
    lake = Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw, processed_bucket=buckets.processed)
    fill_raw(lake, symbols=[settings.universe.benchmark], start="2019-01-02", end="2019-12-31")
    lake.put_processed(features_manifest(), {"end": "2019-12-31"})
    return lake


def test_a_well_agent_sends_nothing_and_measures_zero(
    run: Any, lake: Lake, ledger_table: Ledger, topic: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.write({quotes_key(datetime(2020, 1, 2, 15, 59, tzinfo=UTC)): [{"symbol": "SPY"}]})
    ledger_table.open_decision(DECISION)
    ledger_table.put_snapshot(Snapshot(session="2019-12-31", cash=Decimal(1), equity=Decimal(1), taken_at="2019-12-31T21:05:00Z"))
    assert run("2020-01-02T16:00:00Z") == {"unhealthy": [], "mailed": []}
    assert topic() == []
    (metric,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"UnhealthyRules"' in line]
    assert metric["UnhealthyRules"] == [0.0]
    assert metric["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Papertape"


def test_what_the_dashboard_shows_is_measured_and_what_is_unknown_is_not(
    run: Any, lake: Lake, ledger_table: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(time: str) -> dict[str, float]:
        capsys.readouterr()
        run(time)
        (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"UnhealthyRules"' in line]
        named = [metric["Name"] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]]
        return {name: line[name][0] for name in named if name != "UnhealthyRules"}

    new = {"Orders": 0, "OrdersInDoubt": 0, "TradingState": 2, "BreakersTripped": 0, "DataAgeSessions": 0}
    assert shown("2020-01-02T16:00:00Z") == new, "no snapshot, no model: no equity of zero, no age of zero"

    fence = ledger_table.acquire_lease("a batch", now=0.0, seconds=60)
    assert fence is not None
    ledger_table.open_decision(DECISION)
    ledger_table.open_order(ORDER, fence=fence)
    ledger_table.put_model(MODEL)
    ledger_table.put_snapshot(closed("2020-01-02", orders=1))
    ledger_table.change_breakers(lambda _: Breakers(peak_equity=Decimal(125_000), tripped={"max_drawdown": "fell"}))
    ledger_table.set_trading_state("halted", reason="a test", time="2020-01-02T21:40:00Z", by="test")
    assert shown("2020-01-02T21:45:00Z") == {
        "Orders": 1, "OrdersInDoubt": 1, "TradingState": 0, "BreakersTripped": 1, "DataAgeSessions": 0, "ModelAgeDays": 2,
        "Equity": 100_000, "Drawdown": 20.0,
    }  # fmt: skip
    assert shown("2020-01-06T16:00:00Z")["DataAgeSessions"] == 2, "the lake ends before the sessions of the 2nd and the 3rd"


def test_where_a_row_is_a_slot_bar_its_freshness_is_that_of_the_newest_row(
    run: Any, lake: Lake, ledger_table: Ledger, topic: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_slot = settings.model_copy(update={"training": settings.training.model_copy(update={"timeframe": "1Min"})})
    monkeypatch.setenv(SETTINGS_FILE, settings_file(by_slot))
    lake.put_processed(features_manifest("1Min"), {"end": "2019-12-31"})
    ledger_table.open_decision(DECISION)
    ledger_table.put_snapshot(closed("2019-12-31"))
    lake.write({quotes_key(datetime(2020, 1, 2, 15, 59, tzinfo=UTC)): [{"symbol": "SPY"}]})
    assert run("2020-01-02T16:00:00Z")["unhealthy"] == ["minutes-late"]
    (mail,) = topic()
    assert "the newest slot row of SPY, of feed 'iex', is of never, its newest daily bar of 2019-12-31" in mail["Message"]
    assert "set another [data] minutes_feed" in mail["Message"]
    assert by_slot.slot_rows is not None
    lake.write({bars_key("SPY", 2019, by_slot.slot_rows): [{"ts": "2019-12-31T14:35:00Z"}]})
    assert run("2020-01-02T16:00:00Z")["unhealthy"] == []
    (mail,) = topic()
    assert mail["Subject"] == "papertape: over: minutes-late"


def test_what_is_wrong_is_mailed_once_a_session_with_what_to_do(run: Any, lake: Lake, ledger_table: Ledger, topic: Any) -> None:
    ledger_table.put_alert(
        AlertRecord(
            rule="model-unavailable", session="2020-01-02", subject="No decision", detail="endpoint down", time="2020-01-02T14:35:00Z"
        )
    )
    first = run("2020-01-02T21:15:00Z")
    assert first["unhealthy"] == ["slot-missed", "alert-raised"]
    (mail,) = topic()
    assert mail["Subject"] == "papertape: slot-missed, alert-raised"
    assert "endpoint down" in mail["Message"]
    assert "Leave the slot" in mail["Message"]

    second = run("2020-01-02T21:30:00Z")
    assert (second["unhealthy"], second["mailed"]) == (first["unhealthy"], [])
    assert topic() == []

    ledger_table.set_trading_state("halted", reason="a test", time="2020-01-02T21:40:00Z", by="test")
    assert run("2020-01-02T21:45:00Z")["mailed"] == ["not-active"]
    (mail,) = topic()
    assert mail["Subject"] == "papertape: not-active, trading is halted"
    assert "test set trading from active to halted: a test.\n  That was at 2020-01-02 21:40 UTC (16:40 New York)." in mail["Message"]
    assert "Still so, mailed before: slot-missed, alert-raised" in mail["Message"]


def test_a_second_alert_of_the_same_session_is_mailed_and_the_first_is_not_again(
    run: Any, lake: Lake, ledger_table: Ledger, topic: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def raised(rule: str) -> None:
        ledger_table.put_alert(AlertRecord(rule=rule, session="2020-01-02", subject="s", detail=f"{rule} happened", time="t"))

    raised("drift:AAPL")
    run("2020-01-02T21:15:00Z")
    topic()
    raised("drift:IBM")
    raised("snapshot-missing")
    assert run("2020-01-02T21:30:00Z")["mailed"] == ["alert-raised"]
    (mail,) = topic()
    assert mail["Subject"] == "papertape: alert-raised"
    assert "drift:IBM happened" in mail["Message"]
    assert "snapshot-missing happened" in mail["Message"]
    assert "drift:AAPL happened" not in mail["Message"]
    capsys.readouterr()
    assert run("2020-01-02T21:45:00Z")["mailed"] == []
    metric = next(json.loads(line) for line in capsys.readouterr().out.splitlines() if '"UnhealthyRules"' in line)
    assert metric["UnhealthyRules"] == [2.0]  # rules, not what each of them found


def test_what_is_over_is_mailed_and_what_comes_back_is_mailed_again(run: Any, lake: Lake, ledger_table: Ledger, topic: Any) -> None:
    ledger_table.open_decision(DECISION)
    ledger_table.put_snapshot(closed("2019-12-31"))
    lake.write({quotes_key(datetime(2020, 1, 2, 20, 59, tzinfo=UTC)): [{"symbol": "SPY"}]})
    begun = {"max_drawdown": "equity fell"}
    subjects = []
    for hour in range(9):
        tripped = begun if hour % 2 == 0 else {}
        ledger_table.change_breakers(lambda now, tripped=tripped: now.model_copy(update={"tripped": tripped}))
        run(f"2020-01-02T21:0{hour}:00Z")
        subjects += [mail["Subject"] for mail in topic()]
    name = "breaker-tripped"
    assert subjects == [f"papertape: {name}", f"papertape: over: {name}:max_drawdown"] * 3, "what flaps is mailed three times"


def test_an_id_of_another_client_is_mailed_once_whatever_it_holds(run: Any, lake: Lake, ledger_table: Ledger, topic: Any) -> None:
    ledger_table.put_alert(AlertRecord(rule="external-order:a~b~1", session="2020-01-02", subject="s", detail="d", time="t"))
    run("2020-01-02T13:00:00Z")
    assert len(topic()) == 1
    run("2020-01-02T13:15:00Z")
    assert topic() == []


def test_what_was_wrong_yesterday_is_told_over_in_the_morning(run: Any, lake: Lake, ledger_table: Ledger, topic: Any) -> None:
    ledger_table.open_decision(DECISION)
    run("2020-01-02T21:15:00Z")
    (mail,) = topic()
    assert mail["Subject"] == "papertape: snapshot-missing"
    ledger_table.put_snapshot(closed("2020-01-02"))
    fill_raw(lake, symbols=["SPY"], start="2019-01-02", end="2020-01-02")
    run("2020-01-03T13:00:00Z")
    (mail,) = topic()
    assert mail["Subject"] == "papertape: over: snapshot-missing"
    assert "Over, nothing to do: snapshot-missing\n" in mail["Message"]
    run("2020-01-03T13:15:00Z")
    assert topic() == []


def test_the_first_orders_and_what_people_do_are_mailed_once(run: Any, lake: Lake, ledger_table: Ledger, topic: Any) -> None:
    lake.write({quotes_key(datetime(2020, 1, 2, 15, 59, tzinfo=UTC)): [{"symbol": "SPY"}]})
    planned = PlannedOrder(symbol="SPY", side="buy", quantity=Decimal(1), price=300.0, client_order_id="pt1-x")
    ledger_table.open_decision(DECISION.model_copy(update={"plan": (planned,), "verdict": "accepted"}))
    for state, reason in (("halted", "odd fills"), ("active", "understood")):
        ledger_table.set_trading_state(state, reason=reason, time="2020-01-02T15:30:00Z", by="arn:aws:iam::1:user/me")
    ledger_table.set_trading_state("active", reason="none", time="2020-01-02T15:31:00Z", by="the app", automatic=True)
    run("2020-01-02T16:00:00Z")
    (mail,) = topic()
    assert mail["Subject"] == "papertape: the first orders, trading is halted, trading is active"
    for words in (
        "agent:2020-01-02/open+5 sent the first 1 orders: accepted, done.",
        "arn:aws:iam::1:user/me set trading from active to halted: odd fills.",
        "arn:aws:iam::1:user/me set trading from halted to active: understood.",
    ):
        assert words in mail["Message"]
    run("2020-01-02T16:05:00Z")
    assert topic() == []


def test_while_a_refused_model_trades_a_health_mail_begins_with_it(
    run: Any, lake: Lake, ledger_table: Ledger, topic: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger_table.put_model(MODEL.model_copy(update={"role": "shadow", "refused": ("2 seeds, 10 are needed",)}))
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings.model_copy(update={"gate": GateSettings(refused="trade")})))
    run("2020-01-02T21:15:00Z")
    (mail,) = topic()
    assert mail["Message"].startswith("The gate refused the model that trades here, on paper only: 2 seeds, 10 are needed.\n")


def test_an_empty_lake_is_unhealthy_not_healthy(run: Any, topic: Any) -> None:
    assert "calendar-missing" in run("2020-01-02T16:00:00Z")["unhealthy"]
    assert len(topic()) == 1


def beat(ago: float, **more: Any) -> RunnerState:
    """The runner's beat of `ago` seconds before now, on this machine's clock."""
    return BEAT.model_copy(update={"beat_at": (datetime.now(UTC) - timedelta(seconds=ago)).isoformat(), **more})


def test_a_dead_runner_is_mailed_within_two_minutes_and_its_return_too(
    every_minute: Any, run: Any, lake: Lake, ledger_table: Ledger, topic: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger_table.put_runner_state(beat(55))
    assert every_minute("2020-01-02T15:00:00Z") == {"unhealthy": [], "mailed": []}
    ledger_table.put_runner_state(beat(65))
    assert every_minute("2020-01-02T15:01:00Z") == {"unhealthy": ["runner-silent"], "mailed": ["runner-silent"]}
    assert every_minute("2020-01-02T15:02:00Z") == {"unhealthy": ["runner-silent"], "mailed": []}
    assert "runner-silent" in run("2020-01-02T15:15:00Z")["unhealthy"], "the whole run sees it as well, and mails the rest"
    ledger_table.put_runner_state(beat(1))
    assert every_minute("2020-01-02T15:16:00Z") == {"unhealthy": [], "mailed": []}
    assert every_minute("2020-01-02T23:00:00Z") == {"unhealthy": [], "mailed": []}, "the market is closed"
    mails = [message for message in topic() if "runner-silent" in message["Subject"]]
    assert [mail["Subject"] for mail in mails] == ["papertape: runner-silent", "papertape: over: runner-silent"]
    assert "the runner's last beat is 65 s old" in mails[0]["Message"]
    assert "update-service --region us-east-1 --desired-count 1" in mails[0]["Message"]
    assert "Does it still trade? Yes" in mails[0]["Message"]
    counted = [line for line in capsys.readouterr().out.splitlines() if '"UnhealthyRules"' in line]
    assert len(counted) == 1, "a run of one rule says nothing of the others"


def test_what_every_other_rule_found_is_not_over_for_the_minute_s_run(
    every_minute: Any, run: Any, ledger_table: Ledger, topic: Any
) -> None:
    assert "calendar-missing" in run("2020-01-02T15:00:00Z")["mailed"]
    every_minute("2020-01-02T15:01:00Z")
    assert not [message for message in topic() if "over:" in message["Subject"]]


def test_a_silent_feed_is_an_alert_that_the_same_run_mails(run: Any, lake: Lake, ledger_table: Ledger, topic: Any) -> None:
    at = datetime(2020, 1, 2, 15, tzinfo=UTC)
    silent = FeedSilent(at=at, received_at=at, feed="orders", seconds=61.0)
    envelope = {
        "source": SOURCE,
        "detail-type": silent.detail_type,
        "time": "2020-01-02T15:01:01Z",
        "detail": silent.model_dump(mode="json"),
    }
    watching.handler(envelope, None)
    watching.handler(envelope, None)
    (mail,) = [message for message in topic() if "feed-silent" in message["Message"]]
    assert "the runner's socket of orders said nothing for 61 s" in mail["Message"]
    other = {**envelope, "detail-type": "minute closed", "detail": {"at": "2020-01-02T15:00:00Z", "received_at": "2020-01-02T15:00:00Z",
             "minute": "2020-01-02T14:59:00Z", "symbols": [], "missing": []}}  # fmt: skip
    with pytest.raises(MarketEventError, match="health acts on 'feed silent' alone, was 'minute closed'"):
        watching.handler(other, None)
