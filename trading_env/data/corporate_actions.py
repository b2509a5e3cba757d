"""Corporate actions: a rule for each kind, and which of them were known when.

Promise: an action is applied exactly, or it is a break: from its day on nothing of the name before compares with what follows, so
its series begins anew, as on a listing. The name is untradable until its features are complete again: it is not bought, what is held is
carried, and no fall that nobody suffered enters a feature. A kind that the table does not know is a break.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

Effect = Literal["split", "dividend", "break"]
#: The kind of a row whose action cannot be applied; its value is null.
BREAK: Effect = "break"


@dataclass(frozen=True)
class ActionRule:
    """What an action does to one who holds the name, and what a person should do; `means` goes on after "the name"."""

    effect: Effect
    means: str
    advice: str = ""


GONE = "Take the name out of settings.toml and deploy; sell or keep by hand what the broker still shows."
ONCE = "Nothing must be done: compare the position with the broker's page. To trade on without the name, take it out of settings.toml."
ACTION_RULES: Mapping[str, ActionRule] = {
    "forward_split": ActionRule("split", "splits: new shares for each old one"),
    "reverse_split": ActionRule("split", "merges its shares: new shares for each old one"),
    "stock_dividend": ActionRule("split", "pays in its own shares: 1 + rate new shares for each old one"),
    "cash_dividend": ActionRule("dividend", "pays cash for each share held at the close before"),
    "unit_split": ActionRule("break", "is split into shares and warrants of other names", GONE),
    "spin_off": ActionRule("break", "gives its holders shares of another company, and is worth less by them", ONCE),
    "cash_merger": ActionRule("break", "is bought for cash", GONE),
    "stock_merger": ActionRule("break", "is merged into another company's shares", GONE),
    "stock_and_cash_merger": ActionRule("break", "is merged into another company's shares and cash", GONE),
    "redemption": ActionRule("break", "is redeemed for cash", GONE),
    "name_change": ActionRule(
        "break", "trades under another symbol", "Put the new symbol into settings.toml in place of the old and deploy."
    ),
    "worthless_removal": ActionRule("break", "is removed as worthless", GONE),
    "rights_distribution": ActionRule("break", "gives its holders rights, and is worth less by them", ONCE),
    "partial_call": ActionRule("break", "is called back in part, by lot", ONCE),
    "reorganization": ActionRule("break", "is exchanged for cash and other shares", GONE),
}
UNKNOWN = ActionRule("break", "has an action of a kind that nothing here knows", ONCE)


def rule_of(action: str) -> ActionRule:
    return ACTION_RULES.get(action, UNKNOWN)


def known_by(lines: Iterable[Mapping[str, Any]], day: date) -> list[Mapping[str, Any]]:
    """The lake's lines that a decision on the close of `day` could know: a late one carries the first session that knew it, `known`."""
    return [line for line in lines if line.get("known", "") <= day.isoformat()]


def markdown() -> str:
    """The table in docs/operate.md."""
    rows = [f"| {action.replace('_', ' ')} | {rule.means} | {_applied(rule)} |" for action, rule in ACTION_RULES.items()]
    return "\n".join(["| action | the name | applied |", "|--|--|--|", *rows]) + "\n"


def _applied(rule: ActionRule) -> str:
    return {"split": "exactly, as a split", "dividend": "exactly, as a dividend", "break": "no: its series begins anew"}[rule.effect]
