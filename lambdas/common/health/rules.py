"""What can go wrong, as a table of pure rules: each with its threshold, the reason for it, and what to do.

Promises: `evaluate` needs nothing but `Facts` and the settings, and tells every rule that is broken, in the table's order; a fact that is
unknown breaks the rule that needs it, or is declared to be no concern, never silently passed. `docs/alarms.md` is `markdown()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from lambdas.common.health import checks
from lambdas.common.health.checks import Facts
from lambdas.common.health.remedies import AppAddress, command_for
from lambdas.common.health.runbooks import RUNBOOKS, runbook_for
from schema.settings import Settings

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
        """What is mailed once per session."""
        return f"{self.rule.name}:{self.subject}" if self.subject else self.rule.name

    @property
    def about(self) -> tuple[str, str]:
        """The rule or, of an alert that a function raised, the alert; and what it names."""
        if self.rule.name != ALERT_RAISED:
            return self.rule.name, self.subject
        alert, _, subject = self.subject.partition(":")
        return alert, subject

    @property
    def runbook(self) -> str:
        """What to do: of an alert, what its own table says."""
        alert = runbook_for(self.subject) if self.rule.name == ALERT_RAISED else None
        return alert.runbook if alert is not None else self.rule.runbook


ALERT_RAISED = "alert-raised"
EXAMPLE = AppAddress("papertape", "us-east-1")
#: Rules about a state that can end, whose end is mailed too; the others are about what a session has seen.
ENDING = frozenset(
    {
        *("calendar-missing", "bars-late", "minutes-late", "order-unknown", "order-open", "batch-unfinished", "breaker-tripped"),
        "position-drift",
        *("model-old", "policy-constant", "features-late", "snapshot-missing", "news-stale", "sentiment-behind", "sentiment-budget"),
        "runner-silent",
    }
)
#: While one of these is broken, decide refuses the next decision or risk its buys.
STOPPING = frozenset({"calendar-missing", "bars-late", "minutes-late", "snapshot-missing", "breaker-tripped"})


def names(findings: Iterable[Finding]) -> list[str]:
    """The rules of `findings`, each once."""
    return list(dict.fromkeys(finding.rule.name for finding in findings))


def evaluate(facts: Facts, settings: Settings) -> tuple[Finding, ...]:
    judged = ((rule, rule.broken(facts, settings)) for rule in RULES)
    each = ((rule, {"": answer} if isinstance(answer, str) else answer) for rule, answer in judged)
    return tuple(Finding(rule, detail, subject) for rule, details in each for subject, detail in details.items() if detail)


RULES = (
    Rule(
        name="calendar-missing",
        threshold="the lake's calendar ends before today",
        reason="no rule about sessions can be judged without it, and decide refuses to trade",
        runbook="Invoke backfill_bars; it writes the broker's calendar to the end of the next year.",
        broken=checks.calendar,
    ),
    Rule(
        name="bars-late",
        threshold="no daily bar of the session before today",
        reason="decide observes the last close and makes no decision on an older one",
        runbook="Invoke backfill_bars before the slot. If the vendor has no bar either, the slot passes without orders.",
        broken=checks.bars,
    ),
    Rule(
        name="minutes-late",
        threshold='with [training] timeframe = "1Min": a daily bar of the session before today, and no slot row of it',
        reason="decide observes the slot rows before its slot and makes no decision on older ones",
        runbook="backfill_bars' log says what the vendor answered. For a plan that refuses the feed set another [data] minutes_feed and "
        "deploy. Then invoke backfill_bars before the slot, with a start date if more than a week is missing.",
        broken=checks.minutes,
    ),
    Rule(
        name="closes-disagree",
        threshold="a source of [data] check_closes is more than 0.5 % from the lake's last close, or could not be asked",
        reason="two vendors' closes differ by the auction's prints, a few basis points; more is a split, another share, or a wrong bar",
        runbook="Compare with a third. A bar that the lake's vendor restates comes by itself; what is traded on stays the lake's.",
        broken=checks.closes,
    ),
    Rule(
        name="quotes-stale",
        threshold="during a session: no raw quotes for 10 minutes, or five scheduled runs if those take longer; with a stream, for 20",
        reason="one missed minute is the feed, ten are a broken key, feed or schedule; quotes cannot be fetched later",
        runbook="Read ingest_quotes' log; with a stream the runner's, then consume_stream's. "
        "Trading does not need these quotes: the executor asks the broker itself.",
        broken=checks.quotes,
    ),
    Rule(
        name="slot-missed",
        threshold="no decision when the slot's window has ended",
        reason="the book drifts from its target; nothing is sent for a slot that has passed",
        runbook="Read decide's log and this session's alerts. Leave the slot: the next decision starts from the book as it is.",
        broken=checks.slot,
    ),
    Rule(
        name="order-unknown",
        threshold="an order UNKNOWN for 15 minutes",
        reason="reconcile asks the broker every five minutes: after three times a person should look",
        runbook="Look the client order id up at the broker. Never send it again by hand; reconcile finds or resubmits it.",
        broken=checks.unknown,
    ),
    Rule(
        name="order-open",
        threshold="an order that has not ended 15 minutes after its session's close",
        reason="every order is for one day, so nobody asks for it any more, or the broker does not have it any more",
        runbook="Look the client order id up at the broker. Reconcile records what the broker shows; see its log for why it did not.",
        broken=checks.order,
    ),
    Rule(
        name="name-refused",
        threshold="a name that the session's decision could not trade",
        reason="a halt, a delisting, a missing quote or the broker's no: the position is carried and drifts from its target",
        runbook="The reason is the broker's or ours. Take a name that is gone out of settings.toml; anything else is tried again tomorrow.",
        broken=checks.refused,
    ),
    Rule(
        name="batch-unfinished",
        threshold="a batch still working 15 minutes after its window",
        reason="after the window only reconcile may end it, and it had three runs",
        runbook="Read reconcile's log. Halt if orders at the broker are not what the ledger says.",
        broken=checks.batch,
    ),
    Rule(
        name="breaker-tripped",
        threshold="a drawdown or daily-loss breaker has latched",
        reason="losses passed the limit in settings.toml; it stays until a person decides",
        runbook="Understand the loss first. Then set the trading state to active with a reason, which resets the breaker.",
        broken=checks.breaker,
    ),
    Rule(
        name="position-drift",
        threshold="the last snapshot's book holds what no fill or split explains, until a later snapshot does",
        reason="an alert of yesterday is forgotten today, and the book is still another than ours",
        runbook="Compare GET /portfolio with the broker's page. The next decision starts from the broker's positions.",
        broken=checks.drift,
    ),
    Rule(
        name="live-differs",
        threshold=f"the last session's book differs from its ideal execution by more than {checks.DIFFERENCE_LIMIT:.1%} of equity",
        reason="the backtest that the model was judged by is no picture of what is traded",
        runbook="Price and missed are the market's, sizing is ours, cash and foreign are the account's. See GET /decisions/{id}.",
        broken=checks.difference,
    ),
    Rule(
        name="not-active",
        threshold="the trading state is not active",
        reason="a forgotten halt looks like a quiet market",
        runbook="If the reason no longer holds: PUT /trading-state with `active` and why.",
        broken=checks.state,
    ),
    Rule(
        name=ALERT_RAISED,
        threshold="any alert of this session in the ledger",
        reason="functions write there what they refused or found to differ (drift, stale data, no model), and do not mail",
        runbook="Each alert names its cause; what to do about it is in the table of alerts.",
        broken=checks.alerts,
    ),
    Rule(
        name="model-old",
        threshold=f"{checks.MODEL_WARNING_DAYS} days before max_model_age_days",
        reason="at the limit decide stops trading; the days before it are for training",
        runbook="The newest package, or the log of step Due, says why no newer model trades. A pinned live_start must be moved forward.",
        broken=checks.model,
    ),
    Rule(
        name="policy-constant",
        threshold=f"a model whose scores have not changed in its last {checks.CONSTANT_DECISIONS} decisions",
        reason="a policy that does not look at the market trades on nothing; most often its inputs or its artifact are broken",
        runbook="Compare two observations in the audit bucket. If they differ, the artifact is at fault: approve the package before it.",
        broken=checks.constant,
    ),
    Rule(
        name="features-late",
        threshold=f"the feature table ends more than {checks.FEATURES_LIMIT} sessions ago",
        reason="only training reads it, and a failed run has its own alarm: a month is what training may miss",
        runbook="Look at the last runs of the Glue job and at its schedule, then start it once by hand.",
        broken=checks.features,
    ),
    Rule(
        name="snapshot-missing",
        threshold="no closing snapshot 10 minutes after a session's close",
        reason="the next decision observes the book from it, and is refused without it",
        runbook="Invoke reconcile after the close; it reads the broker and writes the snapshot.",
        broken=checks.snapshot,
    ),
    Rule(
        name="news-stale",
        threshold=f"a configured source of news has not answered in {checks.NEWS_RUNS} runs in a row",
        reason="one failed run is the vendor, six are a key, a plan or an address; what a vendor drops meanwhile is lost",
        runbook="The detail is the vendor's answer. Trading goes on without it: a source that is down is neutral and flagged.",
        broken=checks.news,
    ),
    Rule(
        name="sentiment-behind",
        threshold="news collected more than 2 hours ago without scores",
        reason="every run scores what earlier ones left behind, so more than a few were not enough, or did not end",
        runbook="Read collect_news' log. After three days nobody looks for it any more; invoke the function by hand before.",
        broken=checks.scores,
    ),
    Rule(
        name="sentiment-budget",
        threshold="the month's [sentiment] monthly_budget_usd is spent, and texts were left unscored",
        reason="they count as neutral and flagged until the next month, so sentiment slowly says less",
        runbook="Nothing is at risk. Raise the budget in settings.toml and deploy, choose a free scorer, or wait for the month's end.",
        broken=checks.scoring_budget,
    ),
    Rule(
        name="runner-silent",
        threshold=f"with [runner] enabled, while the market is open: no beat of the runner for {checks.RUNNER_LIMIT.seconds} s",
        reason="looked at every minute: without it fills reach the ledger with reconcile's schedule, and a fall between slots is seen then",
        runbook="Trading goes on by its schedules. ECS starts a dead task anew; if it does not, the runner's log says why. Then start it.",
        broken=checks.runner,
    ),
)

#: The rule that is looked at every minute of a session, alone.
EVERY_MINUTE = next(rule for rule in RULES if rule.name == "runner-silent")


def markdown() -> str:
    """The page docs/alarms.md."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "# What health watches"
    yield ""
    yield (
        "Written from the tables in `lambdas/common/health/` by `python -m lambdas.common.health.rules > docs/alarms.md`; "
        "a test compares them."
    )
    yield ""
    yield "Health evaluates these rules over the ledger and the lake, writes the number of broken ones as the metric"
    yield "`<name>/UnhealthyRules`, and mails what is new: each rule, and each alert, order or breaker that it names, once per session,"
    yield "and when it is over, if it can be. The commands are for an account; the mail has them for the deployment that it is from."
    yield "It also mails, once, what is no fault: a model that passed, was refused or waits for approval, a change of the trading state and"
    yield "who made it, the first orders."
    yield "What it cannot see (its own silence, errors, dead letters, failed jobs) is watched by the alarms in `stacks/monitoring.py`."
    for rule in RULES:
        yield ""
        yield f"## {rule.name}"
        yield ""
        yield f"- **Threshold:** {rule.threshold}."
        yield f"- **Reason:** {rule.reason}."
        yield f"- **What to do:** {rule.runbook}"
        yield f"- **Type:** `{command_for(rule.name, '<id>', EXAMPLE)}`"
    yield ""
    yield "# Alerts"
    yield ""
    yield "What the functions write into the ledger and `alert-raised` mails, by what stands before the colon."
    yield ""
    yield "| alert | raised by | it means | what to do |"
    yield "|--|--|--|--|"
    for name, alert in RUNBOOKS.items():
        yield f"| {name} | {alert.raised_by} | {alert.means} | {alert.runbook} |"


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201 -- the page goes to standard output
