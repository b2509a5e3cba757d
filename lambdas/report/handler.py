"""The week (or, with {"period": "month"}, the month so far) in one mail, and as JSON in the lake.

Event: {"schedule": "report", "time": "<scheduled time>"}. The JSON is named after the day, so a retry overwrites it; the mail goes last.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import boto3

from lambdas.common import environment
from lambdas.common.lake import lake
from lambdas.common.ledger.ledger import Ledger, ledger_from_environment
from lambdas.common.ledger.roles import roles
from lambdas.common.telemetry import entry, logger
from lambdas.report.mail import compose
from lambdas.report.summary import Period, Records, summarise
from schema.exchange_time import new_york_date, parse_utc
from schema.lake_layout import report_key
from schema.settings import Settings, deployed

FIRST_SESSION = "2000-01-01"
DAYS_OF_A_WEEK = 7


class ReportVariables(environment.LakeVariables, environment.AlertVariables):
    pass


@entry
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    variables, settings = environment.read(ReportVariables), deployed()
    period = _period(event.get("period", "week"), end=new_york_date(parse_utc(event["time"])))
    summary = summarise(period, _records(ledger_from_environment(), period, settings))
    key = report_key(period.end)
    lake.lake(processed_bucket=variables.processed_bucket).put_processed(key, summary.document())
    subject, body = compose(summary, name=settings.name)
    _sns().publish(TopicArn=variables.alert_topic_arn, Subject=subject, Message=body)
    logger.info("reported", extra={"key": key, "subject": subject})
    return {"key": key, "subject": subject}


def _period(kind: str, *, end: date) -> Period:
    match kind:
        case "week":
            return Period(start=end - timedelta(days=DAYS_OF_A_WEEK - 1), end=end)
        case "month":
            return Period(start=end.replace(day=1), end=end)
    raise ValueError(f"period must be week or month, was {kind!r}")


def _records(ledger: Ledger, period: Period, settings: Settings) -> Records:
    incumbent, shadow = ledger.incumbent(), ledger.shadow()
    return Records(
        snapshots=ledger.snapshots(FIRST_SESSION, period.end.isoformat()),
        decisions=[one for month in period.months for one in ledger.decisions(month)],
        orders=[one for month in period.months for one in ledger.orders(month)],
        fills=[one for month in period.months for one in ledger.fills(month)],
        alerts=[one for month in period.months for one in ledger.alerts(month)],
        attributions=ledger.attributions(period.explained.start.isoformat(), period.explained.end.isoformat()),
        shadow_decisions=[one for month in period.months for one in ledger.shadow_decisions(month)],
        incumbent=incumbent,
        shadow=shadow,
        roles=roles(incumbent, shadow, settings),
        benchmark=settings.universe.required_benchmark,
        account=ledger.breakers().account_id,
        state=ledger.trading_state().state,
    )


@lru_cache(maxsize=1)
def _sns() -> Any:
    return boto3.client("sns")
