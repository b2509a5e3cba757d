"""The mail that a person reads on a phone: what is wrong, why it matters, what to do, what is over. Plain text, a short subject."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from lambdas.common.health.checks import both_times
from lambdas.common.health.remedies import AppAddress, command_for
from lambdas.common.health.rules import STOPPING, Finding, names
from lambdas.common.ledger.notices import Notice
from schema.exchange_time import parse_utc

SUBJECT_LIMIT = 100


@dataclass(frozen=True, kw_only=True)
class News:
    """What a run of health has to say: `new` findings in full, `mailed` ones that are still so, keys that are `over`, and notices.

    `state` is the trading state, with its reason; `warning` what every mail begins with while a refused model trades.
    """

    new: Sequence[Finding] = ()
    mailed: Sequence[Finding] = ()
    over: Sequence[str] = ()
    notices: Sequence[Notice] = ()
    state: str = "active"
    state_reason: str = ""
    warning: str | None = None

    @property
    def empty(self) -> bool:
        return not (self.new or self.over or self.notices)


def compose(news: News, *, deployment: AppAddress, now: datetime) -> tuple[str, str]:
    """Subject and body."""
    said = [*names(news.new), *(notice.subject for notice in news.notices), *(f"over: {key}" for key in news.over)]
    subject = f"{deployment.name}: {', '.join(said)}"
    if len(subject) > SUBJECT_LIMIT:
        what = "things need a look" if news.new else "things to know"
        subject = f"{deployment.name}: {len(news.new) or len(said)} {what}"
    return subject, "\n".join(_lines(news, deployment=deployment, now=now))


def _lines(news: News, *, deployment: AppAddress, now: datetime) -> Iterator[str]:
    if news.warning is not None:
        yield f"{news.warning}."
        yield ""
    yield f"At {both_times(now)}:"
    for finding in news.new:
        yield ""
        yield finding.rule.name.upper()
        yield f"  What:  {finding.detail}"
        yield f"  Why:   {finding.rule.reason}"
        yield f"  To do: {finding.runbook}"
        if command := command_for(*finding.about, deployment):
            yield f"  Type:  {command}"
    for notice in news.notices:
        yield ""
        yield notice.subject.upper()
        yield f"  {notice.detail}"
        yield f"  That was at {both_times(parse_utc(notice.time))}."
    if news.over:
        yield ""
        yield f"Over, nothing to do: {', '.join(news.over)}"
    if news.mailed:
        yield ""
        yield f"Still so, mailed before: {', '.join(names(news.mailed))}"
    yield ""
    yield f"Does it still trade? {_trades(news)}"


def _trades(news: News) -> str:
    match news.state:
        case "halted":
            return f"No: trading is halted ({news.state_reason})."
        case "reduce_only":
            return f"It only sells: trading is reduce_only ({news.state_reason})."
    stopping = [name for name in names([*news.new, *news.mailed]) if name in STOPPING]
    return f"Not until this is mended: {', '.join(stopping)}." if stopping else "Yes, it goes on at the next slot."
