"""What a person reads of a decision's reasons: held, wanted, changed, and what spoke for and against each name."""

from __future__ import annotations

from typing import Any

import pytest

from lambdas.common.lake.explanation import explained
from lambdas.common.ledger.explanation import Cause, Explanation
from lambdas.common.ledger.records import Decision

CAUSES = (
    Cause(input="momentum", gradient=0.2, value=1.8, contribution=0.36),
    Cause(input="volatility", gradient=-0.1, value=2.0, contribution=-0.2),
    Cause(input="cash_weight", gradient=0.0, value=1.0, contribution=0.0),
)
REASONS = Explanation(kind="gradient", says="the gradient", inputs=("momentum",), top={"AAA": CAUSES})


def decision(**changes: Any) -> Decision:
    fields: dict[str, Any] = {
        "decision_id": "agent:2020-01-02/open+5", "strategy": "agent", "slot": "2020-01-02/open+5", "body_sha256": "0",
        "received_at": "2020-01-02T14:35:00Z", "model_version": "m1", "weights": {"AAA": 0.7, "BBB": 0.2},
        "scores": {"AAA": 0.5, "BBB": -1.0},
    }  # fmt: skip
    return Decision(**(fields | changes))


def test_each_name_says_what_was_held_what_is_wanted_and_why() -> None:
    record = {"held": {"AAA": 0.3, "BBB": 0.2, "CCC": 0.3}, "explanation": REASONS.model_dump(mode="json")}
    told = explained(decision(), record)
    assert (told.kind, told.says, told.model_version) == ("gradient", "the gradient", "m1")
    assert [name.symbol for name in told.names] == ["AAA", "BBB", "CCC"], "the largest change first"
    assert [name.words for name in told.names] == [
        "AAA: 37.5% held, target 70.0% (+32.5 points). For it: momentum is 1.8 deviations above its mean (+0.360 to the score); "
        "against it: volatility is 2.0 deviations above its mean (-0.200 to the score)",
        "BBB: 25.0% held, target 20.0% (-5.0 points)",
        "CCC: 37.5% held, left as it is: it could not be traded",
    ]
    first, _, last = told.names
    assert (first.score, first.target, first.causes) == (0.5, 0.7, CAUSES)
    assert (first.held, first.change) == pytest.approx((0.375, 0.325))
    assert (last.score, last.target, last.change) == (None, None, None)
    assert [name.symbol for name in told.of("BBB").names] == ["BBB"]


@pytest.mark.parametrize(
    ("changes", "record", "kind", "says"),
    [
        ({}, None, "missing", "s3://audit/x is not there"),
        ({}, {"held": {}}, "missing", "the decision was recorded without its reasons"),
        ({}, {"held": {}, "explanation": {"kind": "guess"}}, "missing", "the decision was recorded without its reasons"),
        ({"strategy": "manual"}, None, "none", "a person's order: no model scored it, so there is nothing to explain"),
    ],
)
def test_what_cannot_be_explained_says_why(changes: dict[str, Any], record: Any, kind: str, says: str) -> None:
    told = explained(decision(**changes), record, problem="s3://audit/x is not there")
    assert (told.kind, told.says) == (kind, says)
    assert [name.causes for name in told.names] == [(), ()]


def test_the_first_decision_of_an_account_held_nothing() -> None:
    told = explained(decision(), {"held": {"AAA": 0.0, "BBB": 0.0}})
    assert told.names[0].words == "AAA: 0.0% held, target 70.0% (+70.0 points)"
