"""Gather what the rules need from the ledger and the lake; every read that fails raises, so that health itself alarms."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from lambdas.common.health.checks import Facts, NewsFacts, RunnerFacts, SlotRowFacts, runner_silent
from lambdas.common.health.closes import compared_closes
from lambdas.common.lake.lake import Lake
from lambdas.common.lake.news_state import NewsStateObject
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Decision
from lambdas.common.ledger.roles import trader_now
from schema.exchange_time import new_york_date, parse_utc
from schema.lake_layout import NEWS, SENTIMENT, bars_key, bars_prefix
from schema.settings import Settings
from schema.slot import AGENT, Slot, SlotRows, decision_id_of

MAILED = "health:"
#: How long a later run of the collection still looks for what has no scores.
SCORED_WITHIN = timedelta(days=3)
RUN = "date=%Y-%m-%d/%H%M.jsonl.gz"
#: Longer than the exchange is ever closed.
RECENT = timedelta(days=10)


def gather(*, now: datetime, ledger: Ledger, lake: Lake, settings: Settings, asked_at: datetime) -> Facts:
    """What is so at `now`; `asked_at` is the machine's own time."""
    day = new_york_date(now)
    calendar = lake.calendar(years=(day.year - 1, day.year))
    opens, closes = calendar.hours(day) or (None, None)
    manifest, (state, breakers), snapshot = lake.manifest(settings.training.timeframe), ledger.switches(), ledger.latest_snapshot()
    alerts = [alert for alert in ledger.alerts(day.isoformat()[:7]) if alert.session == day.isoformat()]
    return Facts(
        now=now,
        day=day,
        calendar_reaches=max(calendar.sessions, default=None),
        opens=opens,
        closes=closes,
        earlier=calendar.before(day),
        last_quotes=lake.last_quotes(day=now.date()) if opens and closes and opens <= now <= closes else None,
        decisions=_decisions(ledger, settings.schedule.slots_of(day)) if opens else (),
        working=tuple(ledger.working_decisions()),
        unsettled=tuple(ledger.unsettled_orders()),
        alerts=tuple(alert for alert in alerts if not alert.rule.startswith(MAILED)),
        tripped=breakers.tripped,
        state=state.state,
        state_reason=state.reason,
        trader=trader_now(ledger, settings),
        features_end=None if manifest is None else date.fromisoformat(manifest["end"]),
        newest_bar=_newest_bar(lake, symbol=settings.universe.required_benchmark, day=day),
        slot_rows=_slot_rows(lake, settings, day=day),
        compared=compared_closes(lake, settings.data.check_closes, calendar.before(day)),
        last_snapshot=snapshot,
        recent=_recent(ledger, day),
        attribution=max(ledger.attributions((day - RECENT).isoformat(), day.isoformat()), key=lambda one: one.session, default=None),
        orders=len(ledger.ids_of_day(day.isoformat())),
        peak_equity=breakers.peak_equity,
        news=_news(lake, settings, now=now) if settings.news.sources else None,
        runner=RunnerFacts(beat=ledger.runner_state(), asked_at=asked_at) if settings.runner.enabled else None,
    )


def runner_alone(*, now: datetime, ledger: Ledger, lake: Lake, asked_at: datetime) -> str:
    """What `runner-silent` has to say at `now`, read from the calendar and the runner's beat and nothing else."""
    day = new_york_date(now)
    opens, closes = lake.calendar(years=(day.year,)).hours(day) or (None, None)
    return runner_silent(RunnerFacts(beat=ledger.runner_state(), asked_at=asked_at), now=now, opens=opens, closes=closes)


def _news(lake: Lake, settings: Settings, *, now: datetime) -> NewsFacts:
    state = NewsStateObject(s3=lake.s3, bucket=lake.processed_bucket).read().of(now)
    oldest = ((source, _oldest_unscored(lake, source, since=now - SCORED_WITHIN)) for source in settings.news.sources)
    spent, budget = state.spent_usd, settings.sentiment.monthly_budget_usd
    return NewsFacts(
        down={source: down for source, down in state.down.items() if source in settings.news.sources},
        unscored={source: run for source, run in oldest if run is not None},
        stopped=f"{spent:.2f} of {budget:.2f} dollars are spent in {state.month}: texts are left unscored" if state.stopped else "",
    )


def _oldest_unscored(lake: Lake, source: str, *, since: datetime) -> datetime | None:
    """The oldest run since then whose object of news has no object of scores."""
    raw, scores = ((lake.raw_bucket, NEWS), (lake.processed_bucket, SENTIMENT))
    behind = _runs(lake.s3, *raw, source, since) - _runs(lake.s3, *scores, source, since)
    return min((datetime.strptime(run, RUN).replace(tzinfo=UTC) for run in behind), default=None)


def _runs(s3: Any, bucket: str, prefix: str, source: str, since: datetime) -> set[str]:
    """Day and minute of each object, as its key ends."""
    own = f"{prefix}source={source}/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=own, StartAfter=f"{own}{since:{RUN}}")
    return {item["Key"].removeprefix(own) for page in pages for item in page.get("Contents", ())}


def _decisions(ledger: Ledger, slots: Iterable[Slot]) -> tuple[Decision, ...]:
    found = (ledger.decision(decision_id_of(AGENT, slot)) for slot in slots)
    return tuple(decision for decision in found if decision is not None)


def _recent(ledger: Ledger, day: date) -> tuple[Decision, ...]:
    """The agent's decisions of this month and the one before, oldest first."""
    months = ((day.replace(day=1) - timedelta(days=1)).isoformat()[:7], day.isoformat()[:7])
    return tuple(decision for month in months for decision in ledger.decisions(month) if decision.strategy == AGENT)


def _slot_rows(lake: Lake, settings: Settings, *, day: date) -> SlotRowFacts | None:
    if (rows := settings.slot_rows) is None:
        return None
    return SlotRowFacts(newest=_newest_bar(lake, symbol=settings.universe.required_benchmark, day=day, rows=rows))


def _newest_bar(lake: Lake, *, symbol: str, day: date, rows: SlotRows | None = None) -> date | None:
    keys = [bars_key(symbol, year, rows) for year in (day.year - 1, day.year)]
    found = lake.read(keys, prefix=f"{bars_prefix(rows)}symbol={symbol}/")
    return max((new_york_date(parse_utc(lines[-1]["ts"])) for lines in found.values() if lines), default=None)
