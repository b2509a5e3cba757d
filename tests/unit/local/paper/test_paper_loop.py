"""The loop that fires the deployed schedules by a clock: slots within their windows, absences accounted for, retries as on AWS."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from local.paper.loop import LastAlive, PaperLoop
from local.paper.mailbox import Mailbox
from local.paper.schedules import deployed_schedules
from schema.settings import load

NEW_YORK = ZoneInfo("America/New_York")
ROOT = Path(__file__).parents[4]
SETTINGS = load(ROOT / "settings.toml")
#: As the stacks deploy them: expression, greatest age of the event in seconds, retries.
DEPLOYED = {
    "decide": ("cron(35 9 ? * MON-FRI *)", 300, 2),
    "reconcile": ("cron(0/5 9-16 ? * MON-FRI *)", 300, 2),
    "ingest_quotes": ("cron(0/1 9-15 ? * MON-FRI *)", 60, 0),
    "backfill_bars": ("cron(0 18 ? * MON-FRI *)", 3600, 2),
    "build_features": ("cron(30 18 ? * MON-FRI *)", 3600, 2),
    "train": ("cron(0 6 ? * SAT *)", 3600, 2),
}
RUNNER = {
    "start_runner": ("cron(20 9 ? * MON-FRI *)", 600, 5),
    "keep_runner-first-hour": ("cron(25/5 9 ? * MON-FRI *)", 60, 0),
    "keep_runner": ("cron(0/5 10-15 ? * MON-FRI *)", 60, 0),
    "stop_runner": ("cron(10 16 ? * MON-FRI *)", 600, 5),
}
SWITCHED = {**RUNNER, "reconcile": DEPLOYED["reconcile"]}
MONDAY, HOLIDAY = "2026-11-23", "2026-11-26"


def at(text: str) -> datetime:
    """A New York time as UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).astimezone(UTC)


@dataclass
class Machine:
    """A clock that a test moves: `asleep` until a moment, once, at the first wait that reaches into it."""

    time: datetime
    naps: list[tuple[datetime, datetime]] = field(default_factory=list)

    def now(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        wake = self.time + timedelta(seconds=seconds)
        if self.naps and self.naps[0][0] < wake:
            wake = max(wake, self.naps.pop(0)[1])
        self.time = wake


@dataclass
class Cloud:
    """Records what was fired, as (schedule, New York time of the event, at which New York time); some of it fails."""

    machine: Machine
    fired: list[tuple[str, str, str]] = field(default_factory=list)
    finals: list[bool] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    mails: list[dict[str, Any]] = field(default_factory=list)
    failing: dict[str, int] = field(default_factory=dict)
    taking: dict[str, timedelta] = field(default_factory=dict)
    interrupted: bool = False
    saves: int = 0

    def fire(self, schedule: str, time: str, *, final: bool) -> Mapping[str, Any]:
        self.fired.append((schedule, shown(datetime.fromisoformat(time)), shown(self.machine.time)))
        self.finals.append(final)
        self.machine.time += self.taking.get(schedule, timedelta())
        if self.failing.get(schedule, 0):
            self.failing[schedule] -= 1
            return {"status": "failed", "error": "no network"}
        return {"status": "succeeded", "payload": {"outcome": "decided", "orders": 8} if schedule == "decide" else {}}

    def backfill(self, *, start: str) -> Mapping[str, Any]:
        self.filled.append(start)
        return {"status": "succeeded", "payload": {"bars": 80}}

    def training_interrupted(self) -> bool:
        return self.interrupted

    def undecided(self, moment: datetime, slot: str) -> bool:
        assert slot == "open+5"
        return moment.astimezone(NEW_YORK).date().isoformat() != HOLIDAY

    def publish(self, *, subject: str, message: str) -> None:
        self.mails.append({"id": f"m{len(self.mails)}", "subject": subject, "message": message, "mails": []})

    def published(self) -> Sequence[Mapping[str, Any]]:
        return self.mails

    def save(self) -> None:
        self.saves += 1


def shown(moment: datetime) -> str:
    return moment.astimezone(NEW_YORK).strftime("%d %H:%M")


class Run:
    """A loop in `folder` over the deployed schedules, at `begins`."""

    def __init__(self, folder: Path, begins: str, *, deployed: Mapping[str, tuple[str, int, int]] = DEPLOYED, **cloud: Any) -> None:
        self.machine = Machine(at(begins))
        self.cloud = Cloud(self.machine, **cloud)
        self.folder, self.said = folder, list[str]()
        documents = [
            {
                "Name": f"papertape-{name}",
                "State": "ENABLED",
                "ScheduleExpression": expression,
                "ScheduleExpressionTimezone": "America/New_York",
                "Target": {"RetryPolicy": {"MaximumEventAgeInSeconds": age, "MaximumRetryAttempts": attempts}},
            }
            for name, (expression, age, attempts) in deployed.items()
        ]
        schedules = deployed_schedules(documents, prefix="papertape", schedule=SETTINGS.schedule)
        self.loop = PaperLoop(
            cloud=self.cloud,
            clock=self.machine,
            schedules=schedules,
            alive=LastAlive(folder / "alive.json"),
            mailbox=Mailbox(folder / "mail"),
            say=self.said.append,
        )

    def until(self, moment: str) -> Run:
        self.loop.start()
        while self.machine.time < at(moment):
            self.loop.step()
        return self

    def of(self, *names: str) -> list[tuple[str, str, str]]:
        return [one for one in self.cloud.fired if one[0] in names]

    def mail(self) -> str:
        (file,) = sorted((self.folder / "mail").glob("*.txt"))
        return file.read_text(encoding="utf-8")


def test_a_day_fires_what_is_deployed_when_new_york_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path, f"{MONDAY}T09:30").until(f"{MONDAY}T09:46")
    assert run.of("decide", "reconcile") == [(name, f"23 {time}", f"23 {time}") for name, time in (
        ("decide", "09:35"), ("reconcile", "09:35"), ("reconcile", "09:40"), ("reconcile", "09:45")
    )]  # fmt: skip
    assert [when for _, _, when in run.of("ingest_quotes")] == [f"23 09:{minute}" for minute in range(31, 47)]
    assert run.said == ["Mon 2026-11-23 09:35 New York decide: decided, 8 orders"]
    assert (run.cloud.mails, run.cloud.saves) == ([], 17)
    evening = Run(tmp_path / "evening", "2026-11-27T17:55").until("2026-11-28T06:01")
    assert evening.of("backfill_bars", "build_features", "train", "decide") == [
        ("backfill_bars", "27 18:00", "27 18:00"), ("build_features", "27 18:30", "27 18:30"), ("train", "28 06:00", "28 06:00")
    ]  # fmt: skip


def test_a_slot_slept_through_is_missed_and_said_and_not_traded_late(tmp_path: Path) -> None:
    run = Run(tmp_path, f"{MONDAY}T09:15")
    run.machine.naps = [(at(f"{MONDAY}T09:20"), at(f"{MONDAY}T10:06"))]
    run.until(f"{MONDAY}T10:10")
    assert run.of("decide") == []
    first = next(number for number, (_, _, when) in enumerate(run.cloud.fired) if when >= "23 10:06")
    assert run.cloud.fired[first] == ("reconcile", "23 10:06", "23 10:06"), "before anything else"
    assert "Subject: slot 2026-11-23/open+5 missed" in run.mail()
    assert "slot 2026-11-23/open+5 at Mon 2026-11-23 09:35 New York was missed and is not traded late" in run.mail()
    assert "reconcile: 9 of Mon 2026-11-23 09:25" in run.mail()
    assert any("asleep since about Mon 2026-11-23 09:1" in line or "09:20" in line for line in run.said)


def test_a_slot_that_is_still_within_its_window_on_waking_is_decided(tmp_path: Path) -> None:
    run = Run(tmp_path, f"{MONDAY}T09:15")
    run.machine.naps = [(at(f"{MONDAY}T09:20"), at(f"{MONDAY}T10:04"))]
    run.until(f"{MONDAY}T10:08")
    assert run.of("decide") == [("decide", "23 09:35", "23 10:04")]
    assert not run.cloud.mails


def test_after_a_night_switched_off_bars_and_features_are_caught_up_before_the_slot_is_decided(tmp_path: Path) -> None:
    Run(tmp_path, f"{MONDAY}T17:00").until(f"{MONDAY}T17:04")
    run = Run(tmp_path, "2026-11-24T09:40").until("2026-11-24T09:41")
    assert [name for name, _, _ in run.cloud.fired if name != "ingest_quotes"] == [
        "reconcile", "backfill_bars", "decide", "build_features", "reconcile"
    ][:4]  # fmt: skip
    assert run.of("backfill_bars") == [("backfill_bars", "23 18:00", "24 09:40")]
    assert run.said[0] == "back at Tue 2026-11-24 09:40 New York, not running since Mon 2026-11-23 17:00 New York"


def test_an_absence_of_days_names_each_missed_slot_but_no_holiday_and_fills_the_gap(tmp_path: Path) -> None:
    Run(tmp_path, "2026-11-24T20:00").until("2026-11-24T20:05")
    run = Run(tmp_path, "2026-11-29T12:00", interrupted=True).until("2026-11-29T12:01")
    missed = [line for line in run.said if "was missed" in line]
    assert [line.split()[1] for line in missed] == ["2026-11-25/open+5", "2026-11-27/open+5"]
    assert run.cloud.filled == ["2026-11-17"]
    assert run.of("decide", "train", "build_features") == [("build_features", "27 18:30", "29 12:00"), ("train", "28 06:00", "29 12:00")]
    assert "Subject: slot 2026-11-25/open+5 and 1 more missed" in run.mail()


def test_a_training_that_was_cut_off_begins_again(tmp_path: Path) -> None:
    Run(tmp_path, "2026-11-28T06:30").until("2026-11-28T06:31")
    run = Run(tmp_path, "2026-11-28T07:00", interrupted=True).until("2026-11-28T07:01")
    assert run.of("train") == [("train", "28 07:00", "28 07:00")]


def test_a_failed_decision_is_tried_again_after_one_and_two_minutes_and_then_given_up(tmp_path: Path) -> None:
    run = Run(tmp_path, f"{MONDAY}T09:30", failing={"decide": 9}).until(f"{MONDAY}T10:00")
    assert [when for _, _, when in run.of("decide")] == ["23 09:35", "23 09:36", "23 09:38"]
    finals = [final for (name, _, _), final in zip(run.cloud.fired, run.cloud.finals, strict=True) if name == "decide"]
    assert finals == [False, False, True], "only the last is a dead letter"
    healed = Run(tmp_path / "healed", f"{MONDAY}T09:30", failing={"decide": 1}).until(f"{MONDAY}T10:00")
    assert [when for _, _, when in healed.of("decide")] == ["23 09:35", "23 09:36"]


def test_bars_that_failed_are_owed_until_they_are_there_across_a_restart_too(tmp_path: Path) -> None:
    run = Run(tmp_path, f"{MONDAY}T17:58", failing={"backfill_bars": 99}).until(f"{MONDAY}T18:25")
    assert [when for _, _, when in run.of("backfill_bars")] == [f"23 18:{minute:02d}" for minute in (0, 1, 3, 13, 23)]
    finals = [final for (name, _, _), final in zip(run.cloud.fired, run.cloud.finals, strict=True) if name == "backfill_bars"]
    assert finals == [False, False, True, False, False], "one dead letter"
    later = Run(tmp_path, "2026-11-24T09:20").until("2026-11-24T09:36")
    assert later.of("backfill_bars", "decide") == [("backfill_bars", "23 18:00", "24 09:20"), ("decide", "24 09:35", "24 09:35")]
    assert Run(tmp_path, "2026-11-24T09:40").until("2026-11-24T09:41").of("backfill_bars") == [], "and no longer"


def test_without_the_last_bars_the_slot_waits_for_them(tmp_path: Path) -> None:
    Run(tmp_path, f"{MONDAY}T17:00").until(f"{MONDAY}T17:10")
    run = Run(tmp_path, "2026-11-24T09:40", failing={"backfill_bars": 1}).until("2026-11-24T09:45")
    order = [(name, when) for name, _, when in run.of("backfill_bars", "decide")]
    assert order == [("backfill_bars", "24 09:40"), ("backfill_bars", "24 09:41"), ("decide", "24 09:41")]


def test_what_takes_long_makes_no_slot_late_beyond_its_window(tmp_path: Path) -> None:
    run = Run(tmp_path, f"{MONDAY}T09:29", taking={"reconcile": timedelta(minutes=40)}).until(f"{MONDAY}T10:12")
    assert run.of("decide") == []
    assert "Subject: slot 2026-11-23/open+5 missed" in run.mail()


def test_the_time_accounted_for_is_on_the_disk_after_each_pass(tmp_path: Path) -> None:
    run = Run(tmp_path, f"{MONDAY}T08:00").until(f"{MONDAY}T08:10")
    said = json.loads((tmp_path / "alive.json").read_text(encoding="utf-8"))
    assert timedelta() <= run.machine.time - datetime.fromisoformat(said["accounted_until"]) < timedelta(minutes=5)


def test_mails_are_numbered_on_and_written_once(tmp_path: Path) -> None:
    messages = [{"id": "a", "subject": "No decision in slot 2026-11-23/open+5", "message": "Why.\n", "mails": ["me@example.org"]}]
    (first,) = Mailbox(tmp_path).keep(messages, time="2026-11-23T14:35:00Z")
    assert first.name == "0001-No-decision-in-slot-2026-11-23-open-5.txt"
    assert first.read_text(encoding="utf-8") == (
        "Subject: No decision in slot 2026-11-23/open+5\nDate: 2026-11-23T14:35:00Z\nTo: me@example.org\nMessage: a\n\nWhy.\n"
    )
    again = Mailbox(tmp_path)
    written = again.keep([*messages, {"id": "b", "subject": "", "message": "x", "mails": []}], time="2026-11-23T15:00:00Z")
    assert [file.name for file in written] == ["0002-Message.txt"]


@pytest.mark.parametrize("state", ["DISABLED"])
def test_a_disabled_schedule_does_not_fire(state: str) -> None:
    document = {"Name": "papertape-decide", "State": state, "ScheduleExpression": "cron(35 9 ? * MON-FRI *)", "Target": {}}
    assert deployed_schedules([document], prefix="papertape", schedule=SETTINGS.schedule) == ()


@pytest.mark.parametrize(
    ("back", "fired"),
    [
        ("2026-11-24T10:58", [("start_runner", "24 09:20", "24 10:58")]),
        ("2026-11-24T20:00", [("stop_runner", "24 16:10", "24 20:00")]),
        ("2026-11-24T08:00", [("stop_runner", "23 16:10", "24 08:00")]),
    ],
)
def test_the_runner_runs_after_an_absence_where_it_would_have_run_without_one(
    tmp_path: Path, back: str, fired: list[tuple[str, str, str]]
) -> None:
    before = Run(tmp_path, f"{MONDAY}T12:00", deployed=SWITCHED)
    before.loop.start()
    after = Run(tmp_path, back, deployed=SWITCHED)
    after.loop.start()
    assert [one for one in after.cloud.fired if one[0] in RUNNER] == fired
