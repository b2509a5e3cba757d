"""Every few minutes: evaluate the rules, write how many are broken and what the dashboard shows, mail what is new.

Event: {"schedule": "health", "time": "<scheduled time>"}, which is "now"; with {"only": "runner-silent"} that rule alone is evaluated,
every minute of the session. The runner's "feed silent" is an alert, and a whole run. What a rule finds is mailed once per session, its end
too, and with it the notices that others have left in the ledger. The mail goes out before the ledger remembers it: after a failure in
between, the next run mails again, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

import boto3

from lambdas.common import environment
from lambdas.common.health.checks import Facts
from lambdas.common.health.facts import gather, runner_alone
from lambdas.common.health.remedies import AppAddress
from lambdas.common.health.rules import ENDING, EVERY_MINUTE, Finding, evaluate, names
from lambdas.common.lake import lake
from lambdas.common.ledger.alerts import raise_alert
from lambdas.common.ledger.ledger import Ledger, ledger_from_environment
from lambdas.common.ledger.notices import Notice
from lambdas.common.ledger.records import AlertRecord
from lambdas.common.ledger.roles import roles_now
from lambdas.common.market_events import MarketEventError, market_event_of
from lambdas.common.telemetry import MetricUnit, entry, logger, metrics
from lambdas.health.mail import News, compose
from lambdas.health.mailed import Mailed
from lambdas.health.measures import measured
from schema.exchange_time import iso, new_york_date, parse_utc
from schema.realtime.events import FeedSilent, MarketEvent
from schema.settings import Settings, deployed

#: So long after it was mailed the end of a finding is still looked for.
LOOK_BACK = timedelta(days=5)


class HealthVariables(environment.LakeVariables, environment.AlertVariables):
    """An endpoint of our own means that this is a laptop, where commands have no account to name."""

    aws_endpoint_url: str = ""


@entry
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    variables, settings, ledger, now = (
        environment.read(HealthVariables),
        deployed(),
        ledger_from_environment(),
        parse_utc(event["time"]),
    )
    if (raised := market_event_of(event)) is not None:
        _tell_of_silence(raised, ledger)
    store = lake.lake(raw_bucket=variables.raw_bucket, processed_bucket=variables.processed_bucket)
    mailing = _Mailing(ledger=ledger, settings=settings, variables=variables, now=now)
    match event.get("only"):
        case None:
            result = _evaluate_all(mailing, store)
        case EVERY_MINUTE.name:
            detail = runner_alone(now=now, ledger=ledger, lake=store, asked_at=datetime.now(UTC))
            findings = (Finding(EVERY_MINUTE, detail),) if detail else ()
            result = mailing.send(findings, about=lambda rule: rule == EVERY_MINUTE.name, notices=())
        case other:
            raise ValueError(f"only must be {EVERY_MINUTE.name}, was {other!r}")
    logger.info("evaluated", extra=result)
    return result


def _evaluate_all(mailing: _Mailing, store: lake.Lake) -> dict[str, Any]:
    ledger, settings = mailing.ledger, mailing.settings
    facts = gather(now=mailing.now, ledger=ledger, lake=store, settings=settings, asked_at=datetime.now(UTC))
    findings = evaluate(facts, settings)
    for name, (unit, value) in {"UnhealthyRules": (MetricUnit.Count, len(names(findings))), **measured(facts)}.items():
        metrics.add_metric(name=name, unit=unit, value=value)
    _notice_the_first_order(ledger, facts)
    # What is looked at every minute is mailed by those runs alone: two that begin in the same second would both mail it
    return mailing.send(findings, about=lambda rule: rule != EVERY_MINUTE.name, notices=ledger.waiting_notices())


@dataclass(frozen=True, kw_only=True)
class _Mailing:
    """What is mailed of findings at `now`: each once, its end too."""

    ledger: Ledger
    settings: Settings
    variables: HealthVariables
    now: datetime

    def send(self, findings: Sequence[Finding], *, about: Callable[[str], bool], notices: Sequence[Notice]) -> dict[str, Any]:
        """Mail what is new and what is over of the rules that this run is `about`, and the `notices`; then remember that it was."""
        ledger, now, day = self.ledger, self.now, new_york_date(self.now)
        session = day.isoformat()
        today, earlier = _mailed(ledger, day)
        keys = [finding.key for finding in findings]
        new = [finding for finding in findings if about(finding.rule.name) and today.is_news(finding.key)]
        ending = {rule for rule in ENDING if about(rule)}
        over = {day: sorted(key for key in mailed.over_since(keys) if key.partition(":")[0] in ending) for day, mailed in earlier.items()}
        state, _ = ledger.switches()
        news = News(
            new=new,
            mailed=[finding for finding in findings if finding not in new],
            over=sorted({key for ended in over.values() for key in ended}),
            notices=notices,
            state=state.state,
            state_reason=state.reason,
            warning=roles_now(ledger, self.settings).warning,
        )
        if not news.empty:
            deployment = AppAddress(
                self.settings.name,
                self.settings.region,
                local=bool(self.variables.aws_endpoint_url),
                streamed=self.settings.stream.kind != "none",
            )
            subject, body = compose(news, deployment=deployment, now=now)
            _sns().publish(TopicArn=self.variables.alert_topic_arn, Subject=subject, Message=body)
        for finding in new:
            rule = today.rule_begun(finding.key)
            ledger.put_alert(AlertRecord(rule=rule, session=session, subject=finding.rule.threshold, detail=finding.detail, time=iso(now)))
        for day_of_mail, ended in over.items():
            for key in ended:
                rule = earlier[day_of_mail].rule_over(key)
                ledger.put_alert(AlertRecord(rule=rule, session=day_of_mail, subject=f"{key} is over", detail="", time=iso(now)))
        for notice in news.notices:
            ledger.mark_mailed(notice)
        return {"unhealthy": names(findings), "mailed": names(new)}


def _tell_of_silence(event: MarketEvent, ledger: Ledger) -> None:
    """The runner's socket was silent: an alert of the session, which this very run mails."""
    if not isinstance(event, FeedSilent):
        raise MarketEventError(f"health acts on {FeedSilent.detail_type!r} alone, was {event.detail_type!r}")
    raise_alert(
        ledger=ledger,
        rule=f"feed-silent:{event.feed}",
        session=new_york_date(event.at).isoformat(),
        detail=f"the runner's socket of {event.feed} said nothing for {event.seconds:.0f} s after {iso(event.at)}, and was opened anew",
        time=iso(event.at),
    )


def _mailed(ledger: Ledger, day: date) -> tuple[Mailed, dict[str, Mailed]]:
    """What was mailed today, and in each of the last days, today among them."""
    first = day - LOOK_BACK
    alerts = [alert for month in sorted({first.isoformat()[:7], day.isoformat()[:7]}) for alert in ledger.alerts(month)]
    days = sorted({alert.session for alert in alerts if first.isoformat() <= alert.session <= day.isoformat()} | {day.isoformat()})
    found = {one: Mailed.of(alert for alert in alerts if alert.session == one) for one in days}
    return found[day.isoformat()], found


def _notice_the_first_order(ledger: Ledger, facts: Facts) -> None:
    """Once in the life of a ledger: before the first close, a decision has planned an order."""
    ordered = next((decision for decision in facts.decisions if decision.plan), None)
    if ordered is None or ledger.latest_snapshot(before=facts.day.isoformat()) is not None:
        return
    detail = f"{ordered.decision_id} sent the first {len(ordered.plan or ())} orders: {ordered.verdict}, {ordered.state}."
    ledger.put_notice(Notice(key="first-order", time=ordered.received_at, subject="the first orders", detail=detail))


@lru_cache(maxsize=1)
def _sns() -> Any:
    return boto3.client("sns")
