"""Why a decision wants what it wants, as a person reads it: what was held of each name, what is wanted, and what moved its score.

Promise: a record of any age is read and none fails: a decision without an explanation has the reason for that in its place. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lambdas.common.ledger.explanation import Cause, Explanation, Kind
from lambdas.common.ledger.records import Decision, ShadowDecision
from schema.slot import PERSONAL

NO_PERSON = "a person's order: no model scored it, so there is nothing to explain"
NOT_RECORDED = "the decision was recorded without its reasons"
SHOWN = 3  # reasons of a name in words


class ExplainedName(BaseModel):
    """A name of a decision. `held` and `target` are shares of the invested part of equity, None where it was not known or not wanted;
    `change` is their difference. `words` says all of it.
    """

    model_config = ConfigDict(frozen=True)
    symbol: str
    score: float | None
    held: float | None
    target: float | None
    change: float | None
    causes: tuple[Cause, ...]
    words: str


class ExplainedDecision(BaseModel):
    """A decision's names, the largest change first, and in `says` how they are explained or why they are not."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())
    kind: Kind
    says: str
    model_version: str
    names: tuple[ExplainedName, ...]

    def of(self, symbol: str) -> ExplainedDecision:
        """The same of one name alone."""
        return self.model_copy(update={"names": tuple(one for one in self.names if one.symbol == symbol)})


def explained(decision: Decision, record: Mapping[str, Any] | None, *, problem: str = "") -> ExplainedDecision:
    """`record` is the decision's of the audit bucket; None: it cannot be had, and `problem` says why."""
    return _explained(decision, _recorded(decision, record, problem=problem), record=record)


def watched(decision: ShadowDecision, record: Mapping[str, Any] | None) -> ExplainedDecision:
    """What a model that watches would have done in the same slot; `record` is that of the decision that was made."""
    return _explained(decision, decision.explanation or Explanation(kind="missing", says=NOT_RECORDED), record=record)


def _explained(decision: Decision | ShadowDecision, explanation: Explanation, *, record: Mapping[str, Any] | None) -> ExplainedDecision:
    held = {} if record is None else _of_the_invested(record.get("held") or {})
    names = sorted({*decision.weights, *held})
    found = [_name(symbol, decision, held=held.get(symbol), causes=explanation.top.get(symbol, ())) for symbol in names]
    return ExplainedDecision(
        kind=explanation.kind,
        says=explanation.says,
        model_version=decision.model_version,
        names=tuple(sorted(found, key=lambda one: (-abs(one.change or 0.0), one.symbol))),
    )


def _recorded(decision: Decision, record: Mapping[str, Any] | None, *, problem: str) -> Explanation:
    if decision.strategy in PERSONAL:
        return Explanation(kind="none", says=NO_PERSON)
    if record is None:
        return Explanation(kind="missing", says=problem)
    try:
        return Explanation.model_validate(record["explanation"])
    except (KeyError, ValidationError):
        return Explanation(kind="missing", says=NOT_RECORDED)


def _of_the_invested(held: Mapping[str, float]) -> dict[str, float]:
    total = sum(held.values())
    return {symbol: weight / total if total > 0 else 0.0 for symbol, weight in held.items()}


def _name(symbol: str, decision: Decision | ShadowDecision, *, held: float | None, causes: tuple[Cause, ...]) -> ExplainedName:
    target = decision.weights.get(symbol)
    change = None if target is None or held is None else target - held
    words = f"{symbol}: {_move(held, target)}"
    if told := _told(causes):
        words += f". {told}"
    return ExplainedName(
        symbol=symbol, score=decision.scores.get(symbol), held=held, target=target, change=change, causes=causes, words=words
    )


def _move(held: float | None, target: float | None) -> str:
    had = "what is held is not known" if held is None else f"{held:.1%} held"
    if target is None:
        return f"{had}, left as it is: it could not be traded"
    return f"{had}, target {target:.1%}" + ("" if held is None else f" ({100 * (target - held):+.1f} points)")


def _told(causes: Iterable[Cause]) -> str:
    """The largest contributions, first what speaks for the name."""
    largest = [cause for cause in causes if cause.contribution][:SHOWN]
    sides = (("For it", [one for one in largest if one.contribution > 0]), ("against it", [one for one in largest if one.contribution < 0]))
    told = "; ".join(f"{side}: {', '.join(map(_cause, some))}" for side, some in sides if some)
    return told[:1].upper() + told[1:]


def _cause(cause: Cause) -> str:
    where = "above" if cause.value > 0 else "below"
    return f"{cause.input} is {abs(cause.value):.1f} deviations {where} its mean ({cause.contribution:+.3f} to the score)"
