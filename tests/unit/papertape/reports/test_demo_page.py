"""The demo's page says what was judged and what was traded, and refuses series that are not about its sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from papertape.reports import demo_page, evaluation_page
from schema.evaluation_document import EvaluationFileError
from tests.evaluations import evaluation_of

SESSIONS = ["2020-01-02", "2020-01-03", "2020-01-06"]


def year(*, evaluation: dict[str, Any], kind: str = "equal-weight", **changes: Any) -> demo_page.YearInPictures:
    trading = {"sessions": 3, "final_equity": 101.0, "orders": 4, "fills": 4, "duplicates": 0, "ledger_matches_broker": True}
    summary = {
        "trading": trading,
        "model": {"kind": kind},
        "alerts": {"published": 0},
        "replay": {"fired": {"report": 1}},
        "seconds": 12.0,
    }
    values: dict[str, Any] = {
        "summary": summary,
        "sessions": SESSIONS,
        "initial_cash": 100.0,
        "equity": {"agent": [100.0, 100.5, 101.0], "equal weight": [100.0, 100.4, 100.9]},
        "weights": {"AAA": [0.5, 0.5, 0.5]},
        "months": [],
        "last_orders": [],
        "alerts": [],
        "replay": [],
        "facts": [],
        "evaluation": evaluation,
    }
    return demo_page.YearInPictures(**values | changes)


def page(folder: Path, **given: Any) -> str:
    demo_page.write(year(**given), folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_a_refusal_says_the_answer_each_check_and_who_traded(tmp_path: Path) -> None:
    evaluation = evaluation_of(folds=3, seeds=2, sessions=60)
    text = page(tmp_path, evaluation=evaluation, quick_note="<too little>", evaluation_page="evaluation.html")
    assert "The gate refused the challenger" in text
    assert evaluation["answer"] in text
    assert "3 walk-forward folds of 2 seeds" in text
    assert "<b>−81.9</b><span>bp per year over equal weight at kappa" in text
    assert "against equal weight at the policy&#39;s own kappa" in text
    assert all(check["sentence"] in text for check in evaluation["gate"]["checks"])
    assert "Equal weight, the incumbent, traded the year" in text
    assert "&lt;too little&gt;" in text
    assert 'href="evaluation.html"' in text


def test_a_model_that_passed_traded_the_year_itself(tmp_path: Path) -> None:
    text = page(tmp_path, evaluation=evaluation_of(folds=3, seeds=2, sessions=60, passed=True), kind="agent")
    assert "The gate passed the challenger" in text
    assert "It traded the year." in text


REFUSED = "The gate refused the model that trades here, on paper only: 2 seeds, 10 are needed"


def side(role: str, name: str, part: str, *equity: float) -> demo_page.Contender:
    return demo_page.Contender(role=role, name=name, verdict="refused it", part=part, through="the simulator", equity=equity)


def test_incumbent_and_challenger_stand_side_by_side(tmp_path: Path) -> None:
    sides = [side("incumbent", "equal weight", "traded", 100.0, 100.4, 101.0), side("challenger", "model 1", "watched", 100.0, 99.0, 98.0)]
    text = page(tmp_path, evaluation=evaluation_of(folds=3, seeds=2, sessions=60), contenders=sides, apart=0.0123)
    table = text.partition("side by side</h2>")[2].partition("</table>")[0]
    for words in ("incumbent: equal weight", "challenger: model 1", "traded", "watched", "$101.00", "$98.00", "-2.00%"):
        assert words in table
    assert "1.2% of equity would have had to move" in text
    assert REFUSED not in text


def test_two_targets_are_as_far_apart_as_equity_would_have_to_move() -> None:
    ours, theirs = {"a": {"X": 0.5, "Y": 0.5}, "b": {"X": 1.0}}, {"a": {"X": 0.4, "Y": 0.6}, "b": {"Y": 1.0}, "c": {"X": 1.0}}
    assert demo_page.apart(ours, theirs) == pytest.approx((0.1 + 1.0) / 2)
    assert demo_page.apart(ours, {}) is None


def test_a_refused_model_that_traded_is_the_first_thing_that_is_said(tmp_path: Path) -> None:
    evaluation = evaluation_of(folds=3, seeds=2, sessions=60)
    text = page(tmp_path, evaluation=evaluation, kind="agent", warning=REFUSED)
    body = text.partition("<main>")[2]
    assert body.index(REFUSED) < body.index("<h1>")
    assert "<h1>A model that the gate refused traded 2020: $100 became $101, $0 more than equal weight</h1>" in body
    assert "It traded the year all the same, on paper; equal weight, the incumbent, watched." in body
    evaluation_page.write(evaluation, tmp_path / "evaluation.html", warning=REFUSED)
    body = (tmp_path / "evaluation.html").read_text(encoding="utf-8").partition("<main>")[2]
    assert body.index(REFUSED) < body.index("<h1>")


def test_a_series_of_another_length_and_another_schema_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="series 'AAA' must have 3 values, one per session, was 1"):
        page(tmp_path, evaluation=evaluation_of(folds=3, seeds=2, sessions=60), weights={"AAA": [0.5]})
    with pytest.raises(EvaluationFileError, match="schema must be 3, was 1"):
        page(tmp_path, evaluation={"schema": 1})
    assert not list(tmp_path.iterdir())
