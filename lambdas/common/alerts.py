"""Say once, in one readable mail, what a person should know.

An alert is an item in the ledger and then one message on the topic; the second of the same rule in the same session is neither. The item
waits in the ledger until its message was taken: where a function has no topic (ALERT_TOPIC_ARN), or the topic refused, `mail_waiting` in
the health function sends it later.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import boto3

from lambdas.common.ledger import Ledger
from lambdas.common.records import AlertRecord
from lambdas.common.telemetry import logger

SUBJECT_LIMIT = 100


def raise_alert(*, ledger: Ledger, rule: str, session: str, detail: str, time: str, subject: str | None = None) -> bool:
    """Raise `rule` once in `session` (ISO date) and return whether this call was the first.

    `rule` may name its subject ("drift:AAPL") where one session can have several; `time` is ISO 8601 UTC, of the event or the broker's
    clock; `subject` is the mail's (default: the rule and the session). A topic that refuses raises botocore's `ClientError`.
    """
    alert = AlertRecord(rule=rule, session=session, subject=subject or f"{rule} in session {session}", detail=detail, time=time)
    if not ledger.put_alert(alert):
        return False
    logger.warning("alert", extra={"rule": rule, "detail": detail})
    if topic := os.environ.get("ALERT_TOPIC_ARN"):
        _mail(alert, ledger=ledger, topic=topic)
    return True


def mail_waiting(*, ledger: Ledger, topic: str) -> int:
    """Send what was raised and not mailed, oldest first; return how many."""
    waiting = ledger.alerts_to_mail()
    for alert in waiting:
        _mail(alert, ledger=ledger, topic=topic)
    return len(waiting)


def _mail(alert: AlertRecord, *, ledger: Ledger, topic: str) -> None:
    message = f"{alert.detail}\n\nRule {alert.rule}, session {alert.session}, {alert.time}."
    _sns().publish(TopicArn=topic, Subject=_mailable(f"Papertape: {alert.subject}"), Message=message)
    ledger.mark_mailed(alert)


def _mailable(subject: str) -> str:
    """SNS refuses subjects with line breaks, with characters beyond ASCII, or of more than 100."""
    return " ".join(subject.encode("ascii", "replace").decode().split())[:SUBJECT_LIMIT]


@lru_cache(maxsize=1)
def _sns() -> Any:
    return boto3.client("sns")
