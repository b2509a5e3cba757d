"""The loop from calendar to training, left to right: how fresh each step is against what the schedule promises. Pure but for `other_facts`.

Promise: a step is `late` where one of health's rules says so, `unknown` where its last time is not known, and `fresh` or `idle` (nothing
is due now) otherwise; nothing unknown is shown as fresh.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from pydantic import BaseModel

from lambdas.common.health.checks import Facts
from lambdas.common.lake.news_state import NewsStateObject
from lambdas.common.ledger.records import BrokerState
from lambdas.dashboard.request import PageRequest
from schema.exchange_time import iso, parse_utc
from schema.lake_layout import REPORTS, SLOT_MINUTES
from schema.settings import Settings

State = Literal["fresh", "late", "idle", "unknown"]
MISSED_RUNS = 3  # so many runs of reconcile in a row are more than a slow one
NEWS_LIMIT = timedelta(days=1)  # nights are shorter
REPORT_LIMIT = timedelta(days=15)  # one may fall on a holiday


class StepView(BaseModel):
    """`last`: an instant (ISO 8601 UTC) or a date; `promise`: what the schedule says; `rules`: those that are broken."""

    name: str
    state: State
    last: str | None
    says: str
    promise: str
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OtherFacts:
    """What health's rules do not ask for: the last run of the news, the last report, and what reconcile saw last."""

    news_run: str | None
    report: str | None
    broker: BrokerState | None
    quotes: datetime | None


def other_facts(request: PageRequest, *, now: datetime) -> OtherFacts:
    lake, names = request.lake, request.variables
    news = NewsStateObject(s3=lake.s3, bucket=names.processed_bucket).read() if request.settings.news.sources else None
    listed = lake.s3.list_objects_v2(Bucket=names.processed_bucket, Prefix=REPORTS).get("Contents", ())
    reports = sorted(item["Key"].removeprefix(REPORTS).removesuffix(".json") for item in listed)
    return OtherFacts(
        news_run=(news.last_run or None) if news else None,
        report=reports[-1] if reports else None,
        broker=request.ledger.broker_state(),
        quotes=lake.last_quotes(day=now.date()),
    )


def steps(facts: Facts, other: OtherFacts, settings: Settings, *, broken: Collection[str]) -> tuple[StepView, ...]:
    """In the order of the loop. `broken`: names of health's rules."""
    schedule, last = settings.schedule, facts.last_snapshot
    decided = facts.recent[-1].received_at if facts.recent else None
    slots = ", ".join(slot.name for slot in schedule.slots_of(facts.day))
    trained = facts.trader
    is_trained = trained is not None and trained.policy == "endpoint"
    quotes_every = schedule.quotes_every_minutes if settings.stream.kind == "none" else SLOT_MINUTES
    step = _Steps(broken)
    found = [
        step("calendar", _text(facts.calendar_reaches), "the last session that is known", "reaches today", "calendar-missing"),
        step(
            "bars", _text(facts.newest_observed), "the newest daily bar" if facts.slot_rows is None else "the newest slot row's session",
            "the last close, before the open", "bars-late", "minutes-late", "closes-disagree",
        ),
        step(
            "quotes", None if other.quotes is None else iso(other.quotes), "the newest quotes of today",
            f"every {_every(quotes_every)} while the market is open", "quotes-stale", idle=not _open(facts),
        ),
        _since(
            step(
                "news", other.news_run, "the last run", f"every {_every(settings.news.every_minutes)}, 04:00 to 20:00 New York",
                "news-stale", "sentiment-behind", "sentiment-budget",
            ),
            facts.now,
            limit=NEWS_LIMIT,
        )
        if settings.news.sources
        else StepView(name="news", state="idle", last=None, says="no source is configured", promise="none"),
        step("features", _text(facts.features_end), "the table's last session", "at most 21 sessions behind", "features-late"),
        step("decision", decided, "the last that was received", f"each session at {slots}", "slot-missed", "policy-constant"),
        step(
            "orders", decided if facts.orders or decided else None, f"{facts.orders} today, {len(facts.unsettled)} not ended",
            "ended 15 minutes after the close", "order-unknown", "order-open", "batch-unfinished", "name-refused",
        ),
        _reconciled(facts, other.broker, every=schedule.reconcile_every_minutes),
        step(
            "snapshot", None if last is None else last.session, "the last session that was closed", "five minutes after each close",
            "snapshot-missing", "position-drift", "live-differs",
        ),
        _since(step("report", other.report, "the last that was written", "Fridays, 17:30 New York"), facts.now, limit=REPORT_LIMIT),
        step(
            "training",
            trained.known_until.isoformat() if trained is not None and is_trained else None,
            "the last data of the model that trades" if is_trained else "no trained model trades",
            f"newer than {settings.risk.max_model_age_days} days",
            "model-old",
            idle=not is_trained,
        ),
    ]  # fmt: skip
    return tuple(found)


def _reconciled(facts: Facts, broker: BrokerState | None, *, every: int) -> StepView:
    promise = f"every {_every(every)} while the market is open, and after the close"
    if broker is None:
        return StepView(name="reconcile", state="unknown", last=None, says="it has never run", promise=promise)
    silent = facts.now - parse_utc(broker.now)
    late = _open(facts) and silent > timedelta(minutes=MISSED_RUNS * every)
    state: State = "late" if late else "fresh" if _open(facts) else "idle"
    return StepView(name="reconcile", state=state, last=broker.now, says="the last look at the broker", promise=promise)


def _since(step: StepView, now: datetime, *, limit: timedelta) -> StepView:
    """Late where the last time is further back than `limit`, too."""
    if step.last is None or now - parse_utc(f"{step.last}T21:30:00Z" if len(step.last) == len("2020-01-02") else step.last) <= limit:
        return step
    return step.model_copy(update={"state": "late"})


class _Steps:
    def __init__(self, broken: Collection[str]) -> None:
        self._broken = broken

    def __call__(self, name: str, last: str | None, says: str, promise: str, *rules: str, idle: bool = False) -> StepView:
        against = tuple(rule for rule in rules if rule in self._broken)
        state: State = "late" if against else "idle" if idle else "unknown" if last is None else "fresh"
        return StepView(name=name, state=state, last=last, says=says, promise=promise, rules=against)


def _open(facts: Facts) -> bool:
    return facts.opens is not None and facts.closes is not None and facts.opens <= facts.now <= facts.closes


def _text(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _every(minutes: int) -> str:
    return "minute" if minutes == 1 else f"{minutes} minutes"
