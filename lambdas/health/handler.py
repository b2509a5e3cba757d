"""Every few minutes: evaluate the rules, write how many are broken and what the dashboard shows, mail what is new.

Event: {"schedule": "health", "time": "<scheduled time>"}, which is "now". What a rule finds is mailed once per session. The mail goes out
before the ledger remembers it: after a failure in between, the next run mails again, and nothing is lost.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import boto3

from lambdas.common import environment
from lambdas.common.lake import lake
from lambdas.common.ledger.ledger import ledger_from_environment
from lambdas.common.ledger.records import AlertRecord
from lambdas.common.telemetry import MetricUnit, entry, logger, metrics
from lambdas.health.facts import MAILED, gather
from lambdas.health.mail import compose
from lambdas.health.measures import measured
from lambdas.health.rules import evaluate, names
from schema.exchange_time import iso, parse_utc
from schema.settings import deployed


class HealthVariables(environment.LakeVariables, environment.AlertVariables):
    pass


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
    mailed = {alert.rule for alert in ledger.alerts(session[:7]) if alert.session == session}
    new = [finding for finding in findings if MAILED + finding.key not in mailed]
    if new:
        subject, body = compose(name=settings.name, now=now, new=new, mailed=[finding for finding in findings if finding not in new])
        _sns().publish(TopicArn=variables.alert_topic_arn, Subject=subject, Message=body)
    for finding in new:
        record = AlertRecord(
            rule=MAILED + finding.key, session=session, subject=finding.rule.threshold, detail=finding.detail, time=iso(now)
        )
        ledger.put_alert(record)
    result = {"unhealthy": names(findings), "mailed": names(new)}
    logger.info("evaluated", extra=result)
    return result


@lru_cache(maxsize=1)
def _sns() -> Any:
    return boto3.client("sns")
