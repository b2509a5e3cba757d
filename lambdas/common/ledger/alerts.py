"""Say once per session what a person should know.

An alert is an item in the ledger and a line in the log; the second of the same rule in the same session is neither. The health function
mails what it finds there, so that one place decides how often a person is mailed.
"""

from __future__ import annotations

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import AlertRecord
from lambdas.common.telemetry import logger


def raise_alert(*, ledger: Ledger, rule: str, session: str, detail: str, time: str, subject: str | None = None) -> bool:
    """Raise `rule` once in `session` (ISO date) and return whether this call was the first.

    `rule` may name its subject ("drift:AAPL") where one session can have several; `time` is ISO 8601 UTC, of the event or the broker's
    clock; `subject` is one line (default: the rule and the session).
    """
    heading = subject or f"{rule} in session {session}"
    first = ledger.put_alert(AlertRecord(rule=rule, session=session, subject=heading, detail=detail, time=time))
    if first:
        logger.warning("alert", extra={"rule": rule, "detail": detail})
    return first
