"""Gather what the rules need from the ledger and the lake; every read that fails raises, so that health itself alarms."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta

from lambdas.common.lake.lake import Lake
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Decision
from lambdas.common.ledger.roles import trader_now
from lambdas.health.checks import Facts
from lambdas.health.closes import compared_closes
from schema.exchange_time import new_york_date, parse_utc
from schema.lake_layout import BARS, bars_key
from schema.settings import Settings
from schema.slot import AGENT, Slot, decision_id_of

MAILED = "health:"
#: Longer than the exchange is ever closed.
RECENT = timedelta(days=10)


def gather(*, now: datetime, ledger: Ledger, lake: Lake, settings: Settings) -> Facts:
    day = new_york_date(now)
    calendar = lake.calendar(years=(day.year - 1, day.year))
    opens, closes = calendar.hours(day) or (None, None)
    manifest, (state, breakers), snapshot = lake.manifest(), ledger.switches(), ledger.latest_snapshot()
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
        compared=compared_closes(lake, settings.data.check_closes, calendar.before(day)),
        last_snapshot=snapshot,
        recent=_recent(ledger, day),
        attribution=max(ledger.attributions((day - RECENT).isoformat(), day.isoformat()), key=lambda one: one.session, default=None),
        orders=len(ledger.ids_of_day(day.isoformat())),
        peak_equity=breakers.peak_equity,
    )


def _decisions(ledger: Ledger, slots: Iterable[Slot]) -> tuple[Decision, ...]:
    found = (ledger.decision(decision_id_of(AGENT, slot)) for slot in slots)
    return tuple(decision for decision in found if decision is not None)


def _recent(ledger: Ledger, day: date) -> tuple[Decision, ...]:
    """The agent's decisions of this month and the one before, oldest first."""
    months = ((day.replace(day=1) - timedelta(days=1)).isoformat()[:7], day.isoformat()[:7])
    return tuple(decision for month in months for decision in ledger.decisions(month) if decision.strategy == AGENT)


def _newest_bar(lake: Lake, *, symbol: str, day: date) -> date | None:
    found = lake.read([bars_key(symbol, day.year - 1), bars_key(symbol, day.year)], prefix=f"{BARS}symbol={symbol}/")
    return max((new_york_date(parse_utc(rows[-1]["ts"])) for rows in found.values() if rows), default=None)
