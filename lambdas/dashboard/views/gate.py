"""The gate's verdict on a model in plain words: each check as a question, with its sentence and its numbers.

Promise: what the evaluation says, nothing else; a model without one, or with one that cannot be read, has the reason in its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

from pydantic import BaseModel

from lambdas.common.lake.lake import LakeError
from lambdas.common.lake.provenance import Registry
from schema.evaluation_document import Evaluation, EvaluationFileError, GateCheck, Number, read

#: What each check of the gate asks, by its name.
QUESTIONS: Mapping[str, str] = {
    "logged": "Is it the result that was logged first?",
    "evidence": "Is there enough evidence?",
    "power": "Could an edge of this size be found at all?",
    "luck": "Is luck ruled out?",
    "overfitting": "Is it more than the best of many tries?",
    "stressed costs": "Is it ahead of equal weight at twice the cost?",
    "slow equal weight": "Is it more than trading slowly?",
    "folds": "Is it ahead in most periods?",
    "seeds": "Does it hold for most seeds?",
    "holdout": "Does it hold on data that nobody has looked at?",
    "incumbent": "Is it no worse than what trades now?",
    "pace": "Does it trade at the pace that it was judged at?",
    "turnover": "Does it trade little enough?",
    "concentration": "Is it spread over enough names?",
    "constant": "Does it look at the market?",
    "finite": "Are all of its numbers finite?",
    "distance": "Is it close to the model before it?",
    "recent": "Has it held lately?",
}
#: What its failure means, in half a sentence.
SHORT: Mapping[str, str] = {
    "luck": "luck is not ruled out",
    "evidence": "the evidence is too thin",
    "power": "an edge of this size could not be found",
    "overfitting": "it may be the best of many tries",
    "stressed costs": "it is not ahead of equal weight at twice the cost",
    "slow equal weight": "it is no more than trading slowly",
    "folds": "it is not ahead in most periods",
    "seeds": "it does not hold for most seeds",
    "holdout": "the data kept back have not confirmed it",
    "incumbent": "it may be worse than what trades now",
    "turnover": "it trades too much",
    "concentration": "it holds too few names",
    "constant": "it does not look at the market",
}
LUCK, P_VALUE = "luck", "reality_check_p"


class CheckView(BaseModel):
    """One check: `question` in plain words, `sentence` and `numbers` as the gate wrote them."""

    name: str
    question: str
    passed: bool
    sentence: str
    numbers: dict[str, Number]


class VerdictView(BaseModel):
    """`passed` None: not known, and `problem` says why. `short` is the most telling refusal in half a sentence; `answer` the evaluation's
    own conclusion."""

    package: str
    passed: bool | None
    short: str | None = None
    answer: str | None = None
    checks: tuple[CheckView, ...] = ()
    problem: str | None = None


def verdict_of(registry: Registry, arn: str) -> VerdictView:
    """What the gate said of a package. Raises botocore's errors for what cannot be asked now."""
    uri = registry.package(arn).evaluation_uri
    if uri is None:
        return VerdictView(package=arn, passed=None, problem="the package was registered without an evaluation")
    try:
        found = evaluation_at(registry, uri)
    except (LakeError, EvaluationFileError) as error:
        return VerdictView(package=arn, passed=None, problem=str(error))
    if found is None:
        return VerdictView(package=arn, passed=None, problem=f"{uri} is not there any more")
    checks = sorted(found.gate.checks, key=lambda one: one.passed)
    return VerdictView(
        package=arn,
        passed=found.gate.passed,
        short=shortly(found.gate.refusals),
        answer=found.answer,
        checks=tuple(_shown(check) for check in checks),
    )


@lru_cache(maxsize=8)
def evaluation_at(registry: Registry, uri: str) -> Evaluation | None:
    """The evaluation at `uri`, which is written once; raises `LakeError` or `EvaluationFileError` for one that cannot be read."""
    body = registry.content(uri)
    if body is None:
        return None
    try:
        document = json.loads(body)
    except ValueError as error:
        raise LakeError(f"{uri}: is not JSON ({error})") from error
    return read(document)


def shortly(refusals: Sequence[GateCheck]) -> str | None:
    """The most telling refusal: luck with its probability, else the first."""
    if not refusals:
        return None
    first = next((check for check in refusals if check.name == LUCK), refusals[0])
    words = SHORT.get(first.name, first.sentence)
    # Against equal weight daily, and at the policy's own kappa: the gate asks for both, so the larger one speaks
    p = max((float(value) for name, value in first.numbers.items() if name.startswith(P_VALUE) and value is not None), default=None)
    return f"{words} (p = {f'{p:.2f}'.removeprefix('0')})" if p is not None else words


def _shown(check: GateCheck) -> CheckView:
    question = QUESTIONS.get(check.name, check.name)
    return CheckView(name=check.name, question=question, passed=check.passed, sentence=check.sentence, numbers=dict(check.numbers))
