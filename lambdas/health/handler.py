"""Every few minutes: evaluate the rules, write how many are broken and what the dashboard shows, mail what is new.

Event: {"schedule": "health", "time": "<scheduled time>"}, which is "now". What a rule finds is mailed once per session, its end too, and
with it the notices that others have left in the ledger. The mail goes out before the ledger remembers it: after a failure in between, the
next run mails again, and nothing is lost.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import boto3

from lambdas.common import environment
from lambdas.common.health.checks import Facts
from lambdas.common.health.facts import gather
from lambdas.common.health.remedies import AppAddress
from lambdas.common.health.rules import ENDING, evaluate, names
from lambdas.common.lake import lake
from lambdas.common.ledger.ledger import Ledger, ledger_from_environment
from lambdas.common.ledger.notices import Notice
from lambdas.common.ledger.records import AlertRecord
from lambdas.common.ledger.roles import roles_now
from lambdas.common.telemetry import MetricUnit, entry, logger, metrics
from lambdas.health.mail import News, compose
from lambdas.health.mailed import Mailed
from lambdas.health.measures import measured
from schema.exchange_time import iso, parse_utc
from schema.settings import deployed

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
    store = lake.lake(raw_bucket=variables.raw_bucket, processed_bucket=variables.processed_bucket)
    facts = gather(now=now, ledger=ledger, lake=store, settings=settings)
    findings = evaluate(facts, settings)
    for name, (unit, value) in {"UnhealthyRules": (MetricUnit.Count, len(names(findings))), **measured(facts)}.items():
        metrics.add_metric(name=name, unit=unit, value=value)

    session = facts.day.isoformat()
    _notice_the_first_order(ledger, facts)
    today, earlier = _mailed(ledger, facts.day)
    keys = [finding.key for finding in findings]
    new = [finding for finding in findings if today.is_news(finding.key)]
    over = {day: sorted(key for key in mailed.over_since(keys) if key.partition(":")[0] in ENDING) for day, mailed in earlier.items()}
    news = News(
        new=new,
        mailed=[finding for finding in findings if finding not in new],
        over=sorted({key for ended in over.values() for key in ended}),
        notices=ledger.waiting_notices(),
        state=facts.state,
        state_reason=facts.state_reason,
        warning=roles_now(ledger, settings).warning,
    )
    if not news.empty:
        deployment = AppAddress(settings.name, settings.region, local=bool(variables.aws_endpoint_url))
        subject, body = compose(news, deployment=deployment, now=now)
        _sns().publish(TopicArn=variables.alert_topic_arn, Subject=subject, Message=body)
    for finding in new:
        rule = today.rule_begun(finding.key)
        ledger.put_alert(AlertRecord(rule=rule, session=session, subject=finding.rule.threshold, detail=finding.detail, time=iso(now)))
    for day, ended in over.items():
        for key in ended:
            rule = earlier[day].rule_over(key)
            ledger.put_alert(AlertRecord(rule=rule, session=day, subject=f"{key} is over", detail="", time=iso(now)))
    for notice in news.notices:
        ledger.mark_mailed(notice)
    result = {"unhealthy": names(findings), "mailed": names(new)}
    logger.info("evaluated", extra=result)
    return result


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
