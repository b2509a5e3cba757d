"""The replay plan: what each deployed schedule does while a year is replayed in minutes.

Every schedule that the templates deploy must be listed, either to `fire` as often as it would on AWS or to be `thin`ned, with the
reason. `check()` raises `PlanError` for a deployed schedule that the plan forgets and for a planned one that is not deployed, so a
replay never skips a schedule silently.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from papertape.market_data.sessions import TradingSession
from schema.settings import Settings
from schema.slot import minutes_of
from trading_env.errors import PapertapeError

RECONCILED_AFTER = 5  # minutes after a slot
PUBLISHED = timedelta(seconds=5)  # what a decision on a running session's minutes waits for the last of them
HOURS_OF_NEWS = 16  # of a day
THURSDAY = 3  # the weekday with the fewest holidays: in 2020 one
NEW_YORK = ZoneInfo("America/New_York")
START_RUNNER, STOP_RUNNER = "start_runner", "stop_runner"
KEEP_RUNNER = ("keep_runner-first-hour", "keep_runner")


class PlanError(PapertapeError, ValueError):
    """The plan and the deployed schedules disagree."""


@dataclass(frozen=True, kw_only=True)
class ScheduleEntry:
    """How often one schedule fires in a replay.

    `moments` are times of a session: "open+5" and "close-10" in minutes, "18:30" in New York. `every` thins to one session in so
    many; `weekday` (0 = Monday) is that of a weekly schedule. `reason` is empty exactly when the schedule fires as often as on AWS.
    `later`: how far behind a moment the exchange's clock stands when it is fired there, since it does not move while a function waits.
    """

    schedule: str
    moments: tuple[str, ...]
    every: int = 1
    weekday: int | None = None
    later: timedelta = timedelta(0)
    reason: str = ""

    @property
    def mode(self) -> Literal["fire", "thin"]:
        return "thin" if self.reason else "fire"

    def times(self, session: TradingSession) -> list[datetime]:
        if session.number % self.every:
            return []
        if self.weekday is not None and session.opens.astimezone(NEW_YORK).weekday() != self.weekday:
            return []
        return [_moment(text, session) for text in self.moments]


def _moment(text: str, session: TradingSession) -> datetime:
    for name, anchor in (("open", session.opens), ("close", session.closes)):
        if text.startswith(name):
            return anchor + timedelta(minutes=int(text.removeprefix(name)))
    hour, minute = text.split(":")
    return session.opens.astimezone(NEW_YORK).replace(hour=int(hour), minute=int(minute)).astimezone(session.opens.tzinfo)


def year(settings: Settings) -> tuple[ScheduleEntry, ...]:
    """The demo's plan: every decision, every nightly backfill; what repeats within a session is thinned."""
    schedule = settings.schedule
    slots = schedule.slots
    after = tuple(f"open+{minutes_of(slot) + RECONCILED_AFTER}" for slot in slots)
    return (
        *(
            ScheduleEntry(schedule=name, moments=(slot,), later=PUBLISHED if slot in settings.row_slots[1:] else timedelta(0))
            for name, slot in schedule.deciding.items()
        ),
        *_quotes(settings),
        ScheduleEntry(
            schedule="reconcile",
            moments=(*after, "close+5"),
            reason=f"{len(after) + 1} of 96 a session: orders fill at once here, so one pass after each slot and one after the close "
            "see everything",
        ),
        *_runner(settings),
        *_news(settings),
        ScheduleEntry(schedule="health", moments=("close+15",), reason="1 of 44 a session: its rules read what changes once a session"),
        ScheduleEntry(schedule="backfill_bars", moments=("18:00",)),
        ScheduleEntry(
            schedule="build_features",
            moments=("18:30",),
            every=20,
            reason="1 session in 20: a run starts a process for seconds, and decide computes its features from raw bars itself",
        ),
        ScheduleEntry(schedule="report", moments=("17:30",), weekday=4),
        ScheduleEntry(
            schedule="train",
            moments=(),
            reason="once before the year, never in it: a weekly refit takes a minute, and the model that was judged is the one that trades",
        ),
    )


def _runner(settings: Settings) -> tuple[ScheduleEntry, ...]:
    if not settings.runner.enabled:
        return ()
    return (
        ScheduleEntry(schedule=START_RUNNER, moments=("09:20",)),
        *(ScheduleEntry(schedule=name, moments=(), reason="a replay deploys nothing in a session") for name in KEEP_RUNNER),
        ScheduleEntry(schedule=STOP_RUNNER, moments=("16:10",)),
        ScheduleEntry(
            schedule="health-runner",
            moments=("close-5",),
            reason="1 of 480 a session: a beat is of the machine's clock, and a session lasts seconds of it",
        ),
    )


def _quotes(settings: Settings) -> tuple[ScheduleEntry, ...]:
    if settings.stream.kind != "none":  # the function is not there
        return ()
    slots = settings.schedule.slots
    reason = f"{len(slots)} of 391 a session: a year of minute quotes is 98,670 calls, and only daily bars were recorded for 2020"
    return (ScheduleEntry(schedule="ingest_quotes", moments=slots, reason=reason),)


def _news(settings: Settings) -> tuple[ScheduleEntry, ...]:
    if not settings.news.sources:
        return ()
    runs = HOURS_OF_NEWS * len(range(0, 60, settings.news.every_minutes))
    at_the_close = "at the close: by then, and no later, a text must be here to count for what the close shows"
    if settings.features.sentiment != "none":  # a policy observes every close
        return (ScheduleEntry(schedule="collect_news", moments=("close+0",), reason=f"1 of {runs} a session, {at_the_close}"),)
    reason = f"1 of {7 * runs} a week, {at_the_close}; a run takes a fifth of a second, and nothing that trades reads the scores"
    return (ScheduleEntry(schedule="collect_news", moments=("close+0",), weekday=THURSDAY, reason=reason),)


def decisions(plan: Iterable[ScheduleEntry]) -> int:
    """How many decisions a session has."""
    return sum(len(entry.moments) for entry in plan if entry.schedule.partition("-")[0] == "decide")


def parity(settings: Settings) -> tuple[ScheduleEntry, ...]:
    """What a parity run needs and no more: the decisions, the closing snapshots, and the bars of the next decision."""
    needed = {*settings.schedule.deciding, "reconcile", "backfill_bars", *_of_scores(settings)}
    reason = "not part of the comparison of two books"
    return tuple(
        entry if entry.schedule in needed else ScheduleEntry(schedule=entry.schedule, moments=(), reason=reason) for entry in year(settings)
    )


def _of_scores(settings: Settings) -> tuple[str, ...]:
    return () if settings.features.sentiment == "none" else ("collect_news",)


def require_daily_bars(settings: Settings, *, command: str) -> None:
    """Raise `PlanError` where a row is a slot bar: 15 years of made minutes take longer to fetch than the replay, and show nothing."""
    if settings.slot_rows is not None:
        raise PlanError(
            f'papertape {command} replays daily bars: training.timeframe must be "1Day", was "{settings.training.timeframe}"; '
            "papertape parity trades slot bars"
        )


def check(plan: Iterable[ScheduleEntry], deployed: Iterable[str]) -> None:
    """Raise `PlanError` unless the plan lists exactly the deployed schedules."""
    planned, present = {entry.schedule for entry in plan}, set(deployed)
    if forgotten := sorted(present - planned):
        raise PlanError(
            f"deployed but not in the replay plan: {', '.join(forgotten)}; add each to local/replay/schedule.py as fire or thin"
        )
    if absent := sorted(planned - present):
        raise PlanError(
            f"in the replay plan but not deployed: {', '.join(absent)}; remove it from local/replay/schedule.py or deploy its stack"
        )
