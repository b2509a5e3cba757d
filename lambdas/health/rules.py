"""What can go wrong, as a table of pure rules: each with its threshold, the reason for it, and what to do.

Promises: `evaluate` needs nothing but `Facts` and the settings, and tells every rule that is broken, in the table's order; a fact that is
unknown breaks the rule that needs it, or is said to be no concern, never silently passed. `docs/alarms.md` is `markdown()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from lambdas.common.records import AlertRecord, Decision, OrderRecord, ServedModel
from settings import Settings

QUOTES_GRACE = timedelta(minutes=10)
UNKNOWN_LIMIT = timedelta(minutes=15)
BATCH_GRACE = timedelta(minutes=15)
SNAPSHOT_GRACE = timedelta(minutes=10)
FEATURES_LIMIT = 21
MODEL_WARNING_DAYS = 14


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The state of the agent at `now` (UTC). `opens`/`closes` are None on a day without a session; `earlier` are the sessions before it."""

    now: datetime
    day: date
    calendar_reaches: date | None
    opens: datetime | None
    closes: datetime | None
    earlier: tuple[date, ...]
    last_quotes: datetime | None
    decision: Decision | None
    working: tuple[Decision, ...]
    unknown: tuple[OrderRecord, ...]
    alerts: tuple[AlertRecord, ...]
    tripped: Mapping[str, str]
    state: str
    state_reason: str
    incumbent: ServedModel | None
    features_end: date | None
    newest_bar: date | None
    last_snapshot: date | None


Check = Callable[[Facts, Settings], str | Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`broken` answers a sentence with the numbers when the rule is broken, else an empty text.

    A rule that can be broken by several things at once answers a sentence for each, by its name: each is mailed once.
    """

    name: str
    threshold: str
    reason: str
    runbook: str
    broken: Check


@dataclass(frozen=True)
class Finding:
    rule: Rule
    detail: str
    subject: str = ""

    @property
    def key(self) -> str:
        """What is mailed once a session."""
        return f"{self.rule.name}:{self.subject}" if self.subject else self.rule.name


def names(findings: Iterable[Finding]) -> list[str]:
    """The rules of `findings`, each once."""
    return list(dict.fromkeys(finding.rule.name for finding in findings))


def evaluate(facts: Facts, settings: Settings) -> tuple[Finding, ...]:
    told = ((rule, rule.broken(facts, settings)) for rule in RULES)
    each = ((rule, {"": answer} if isinstance(answer, str) else answer) for rule, answer in told)
    return tuple(Finding(rule, detail, subject) for rule, details in each for subject, detail in details.items() if detail)


def _calendar(facts: Facts, _settings: Settings) -> str:
    if facts.calendar_reaches is not None and facts.calendar_reaches >= facts.day:
        return ""
    return f"the lake's calendar ends at {facts.calendar_reaches or 'nothing'}, today is {facts.day}"


def _quotes(facts: Facts, settings: Settings) -> str:
    if facts.opens is None or facts.closes is None:
        return ""
    limit = max(QUOTES_GRACE, timedelta(minutes=5 * settings.schedule.quotes_every_minutes))
    if not facts.opens + limit <= facts.now <= facts.closes or facts.now - (facts.last_quotes or facts.opens) <= limit:
        return ""
    return f"the newest raw quotes are of {_time(facts.last_quotes)}, now is {_time(facts.now)}"


def _slot(facts: Facts, settings: Settings) -> str:
    if facts.opens is None or facts.decision is not None:
        return ""
    ends = facts.opens + timedelta(minutes=settings.schedule.slot_minutes + settings.schedule.slot_window_minutes)
    return f"no decision in slot {facts.day}/{settings.schedule.slot}, its window ended at {_time(ends)}" if facts.now > ends else ""


def _unknown(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    late = [o for o in facts.unknown if o.unknown_since and facts.now - datetime.fromisoformat(o.unknown_since) > UNKNOWN_LIMIT]
    return {order.client_order_id: f"{order.symbol} {order.client_order_id} since {order.unknown_since}" for order in late}


def _batch(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    late = [d for d in facts.working if d.window_ends and facts.now - datetime.fromisoformat(d.window_ends) > BATCH_GRACE]
    return {d.decision_id: f"{d.decision_id} still works, its window ended at {d.window_ends}" for d in late}


def _alerts(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    return {alert.rule: f"{alert.rule}: {alert.subject}. {alert.detail}" for alert in facts.alerts}


def _breaker(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    return {name: f"{name}: {detail}" for name, detail in facts.tripped.items()}


def _state(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    return {} if facts.state == "active" else {facts.state: f"trading is {facts.state}: {facts.state_reason}"}


def _model(facts: Facts, settings: Settings) -> str:
    model = facts.incumbent
    if model is None or model.policy != "endpoint":
        return ""
    age = (facts.day - date.fromisoformat((model.trained_until or model.since)[:10])).days
    limit = settings.risk.max_model_age_days
    return f"model {model.model_version[:12]} is {age} days old, at {limit} it stops trading" if age > limit - MODEL_WARNING_DAYS else ""


def _features(facts: Facts, _settings: Settings) -> str:
    behind = [day for day in facts.earlier if facts.features_end is None or day > facts.features_end]
    return f"features end at {facts.features_end or 'nothing'}, {len(behind)} sessions ago" if len(behind) > FEATURES_LIMIT else ""


def _bars(facts: Facts, settings: Settings) -> str:
    if not facts.earlier or (facts.newest_bar is not None and facts.newest_bar >= facts.earlier[-1]):
        return ""
    name = settings.universe.required_benchmark
    return f"the newest daily bar of {name} is of {facts.newest_bar or 'never'}, the last session was {facts.earlier[-1]}"


def _snapshot(facts: Facts, _settings: Settings) -> str:
    if facts.last_snapshot is None and facts.decision is None:
        return ""
    ended = facts.closes is not None and facts.now >= facts.closes + SNAPSHOT_GRACE
    due = facts.day if ended else max(facts.earlier, default=None)
    if due is None or (facts.last_snapshot is None and not ended) or (facts.last_snapshot is not None and facts.last_snapshot >= due):
        return ""
    return f"the newest closing snapshot is of {facts.last_snapshot or 'never'}, one of {due} is due"


def _time(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"


RULES = (
    Rule(
        name="calendar-missing",
        threshold="the lake's calendar ends before today",
        reason="no rule about sessions can be judged without it, and decide refuses to trade",
        runbook="Invoke backfill_bars; it writes the broker's calendar to the end of the next year.",
        broken=_calendar,
    ),
    Rule(
        name="bars-late",
        threshold="no daily bar of the session before today",
        reason="decide observes the last close and makes no decision on an older one",
        runbook="Invoke backfill_bars before the slot. If the vendor has no bar either, the slot passes without orders.",
        broken=_bars,
    ),
    Rule(
        name="quotes-stale",
        threshold="during a session: no raw quotes for 10 minutes, or five scheduled runs if those take longer",
        reason="one missed minute is the feed, ten are a broken key, feed or schedule; quotes cannot be fetched later",
        runbook="Read ingest_quotes' log. Trading does not need these quotes: the executor asks the broker itself.",
        broken=_quotes,
    ),
    Rule(
        name="slot-missed",
        threshold="no decision when the slot's window has ended",
        reason="the book drifts from its target; nothing is sent for a slot that has passed",
        runbook="Read decide's log and this session's alerts. Leave the slot: the next decision starts from the book as it is.",
        broken=_slot,
    ),
    Rule(
        name="order-unknown",
        threshold="an order UNKNOWN for 15 minutes",
        reason="reconcile asks the broker every five minutes: after three times a person should look",
        runbook="Look the client order id up at the broker. Never send it again by hand; reconcile adopts or resubmits it.",
        broken=_unknown,
    ),
    Rule(
        name="batch-unfinished",
        threshold="a batch still working 15 minutes after its window",
        reason="after the window only reconcile may end it, and it had three runs",
        runbook="Read reconcile's log. Halt if orders at the broker are not what the ledger says.",
        broken=_batch,
    ),
    Rule(
        name="breaker-tripped",
        threshold="a drawdown or daily-loss breaker has latched",
        reason="losses passed the limit in settings.toml; it stays until a person decides",
        runbook="Understand the loss first. Then set the trading state to active with a reason, which resets the breaker.",
        broken=_breaker,
    ),
    Rule(
        name="not-active",
        threshold="the trading state is not active",
        reason="a forgotten halt looks like a quiet market",
        runbook="If the reason no longer holds: PUT /trading-state with `active` and why.",
        broken=_state,
    ),
    Rule(
        name="alert-raised",
        threshold="any alert of this session in the ledger",
        reason="functions write there what they refused or found to differ (drift, stale data, no model), and do not mail",
        runbook="Each alert names its cause. For drift: compare GET /portfolio with the broker's page before anything else.",
        broken=_alerts,
    ),
    Rule(
        name="model-old",
        threshold=f"{MODEL_WARNING_DAYS} days before max_model_age_days",
        reason="at the limit decide stops trading; the days before it are for training",
        runbook="Move live_start in settings.toml forward, deploy, start the training pipeline.",
        broken=_model,
    ),
    Rule(
        name="features-late",
        threshold=f"the feature table ends more than {FEATURES_LIMIT} sessions ago",
        reason="only training reads it, and a failed run has its own alarm: a month is what training may miss",
        runbook="Look at the last runs of the Glue job and at its schedule, then start it once by hand.",
        broken=_features,
    ),
    Rule(
        name="snapshot-missing",
        threshold="no closing snapshot 10 minutes after a session's close",
        reason="the next decision observes the book from it, and is refused without it",
        runbook="Invoke reconcile after the close; it reads the broker and writes the snapshot.",
        broken=_snapshot,
    ),
)


def markdown() -> str:
    """The page docs/alarms.md."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "# What health watches"
    yield ""
    yield "Written from the table in `lambdas/health/rules.py`, by `python -m lambdas.health.rules > docs/alarms.md`; a test compares them."
    yield ""
    yield "Health evaluates these rules over the ledger and the lake, writes the number of broken ones as the metric"
    yield "`Papertape/UnhealthyRules`, and mails what is new: each rule, and each alert, order or breaker that it names, once a session."
    yield "What it cannot see (its own silence, errors, dead letters, failed jobs) is watched by the alarms in `stacks/monitoring.py`."
    for rule in RULES:
        yield ""
        yield f"## {rule.name}"
        yield ""
        yield f"- **Threshold:** {rule.threshold}."
        yield f"- **Reason:** {rule.reason}."
        yield f"- **What to do:** {rule.runbook}"


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201 -- the page goes to standard output
