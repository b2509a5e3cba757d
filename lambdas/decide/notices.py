"""What a person should know of the corporate actions that a decision rested on: names that are not bought any more, and late news.

Pure. A broken series is told in its first sessions, and as long as the name is held; a late action once, with the decisions it came after.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from lambdas.decide.data import MarketSnapshot
from trading_env.data.corporate_actions import rule_of

#: A broken series lasts a year, until its features are complete again: a mail each day would be read as none.
TOLD_SESSIONS = 5


@dataclass(frozen=True, kw_only=True)
class ActionNotice:
    """An alert's rule, its one line, and its detail."""

    rule: str
    subject: str
    detail: str


def notices(snapshot: MarketSnapshot, *, held: Collection[str]) -> Iterator[ActionNotice]:
    late = {action.symbol for action in snapshot.late}
    for symbol, action in snapshot.broken.items():
        if action.sessions <= TOLD_SESSIONS or symbol in held or symbol in late:
            yield ActionNotice(
                rule=f"series-broken:{symbol}",
                subject=f"{symbol} is not bought any more",
                detail=f"{action}: its prices of before compare with nothing since, so it is not traded until its features are complete "
                f"again{', and what is held is carried' if symbol in held else ''}. {rule_of(action.action).advice}",
            )
    if snapshot.late:
        yield ActionNotice(
            rule="action-late",
            subject=f"Corporate actions of {', '.join(sorted(late))} were told late",
            detail=f"{'; '.join(f'{action}, {action.sessions - 1} closes late' for action in snapshot.late)}. The decisions in between "
            "observed prices without it; from this one on nothing is missing",
        )
