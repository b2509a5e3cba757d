"""The mail that a person reads on a phone: what is wrong, why it matters, what to do. Plain text; the subject is ASCII and short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from lambdas.health.rules import Finding, names

SUBJECT_LIMIT = 100


def compose(*, name: str, now: datetime, new: Sequence[Finding], mailed: Sequence[Finding]) -> tuple[str, str]:
    """Subject and body; `new` findings in full, those mailed before in this session by rule."""
    subject = f"{name}: {', '.join(names(new))}"
    if len(subject) > SUBJECT_LIMIT:
        subject = f"{name}: {len(new)} things need a look"
    return subject, "\n".join(_lines(now=now, new=new, mailed=mailed))


def _lines(*, now: datetime, new: Sequence[Finding], mailed: Sequence[Finding]) -> Iterator[str]:
    yield f"At {now:%Y-%m-%d %H:%M} UTC:"
    for finding in new:
        yield ""
        yield finding.rule.name.upper()
        yield f"  What:  {finding.detail}"
        yield f"  Why:   {finding.rule.reason}"
        yield f"  To do: {finding.runbook}"
    if mailed:
        yield ""
        yield f"Still so, mailed before: {', '.join(names(mailed))}"
