"""What a person should hear of once and is no fault: a verdict on a model, a change of the trading state, the first order.

Whoever does it writes a notice, once by its key; health mails those that wait, and then marks them.
"""

from __future__ import annotations

from typing import ClassVar

from lambdas.common.ledger.item import Record

WAITING = "notices"


class Notice(Record):
    """`key` names the event for good; `subject` is ASCII and short, `detail` a few sentences; `time` is ISO 8601 UTC."""

    kind: ClassVar[str] = "notice"
    key: str
    time: str
    subject: str
    detail: str
    mailed: bool = False

    def keys(self) -> dict[str, str]:
        index = {} if self.mailed else {"unsettled": WAITING, "unsettled_sk": self.key}
        return {"pk": "notice", "sk": self.key, **index}
