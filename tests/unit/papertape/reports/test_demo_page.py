"""The demo's page says what was judged and what was traded, and refuses series that are not about its sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from papertape.reports import demo_page
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
    assert all(check["sentence"] in text for check in evaluation["gate"]["checks"])
    assert "Equal weight, the incumbent, traded the year" in text
    assert "&lt;too little&gt;" in text
    assert 'href="evaluation.html"' in text


def test_a_model_that_passed_traded_the_year_itself(tmp_path: Path) -> None:
    text = page(tmp_path, evaluation=evaluation_of(folds=3, seeds=2, sessions=60, passed=True), kind="agent")
    assert "The gate passed the challenger" in text
    assert "It traded the year." in text


def test_a_series_of_another_length_and_another_schema_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="series 'AAA' must have 3 values, one per session, was 1"):
        page(tmp_path, evaluation=evaluation_of(folds=3, seeds=2, sessions=60), weights={"AAA": [0.5]})
    with pytest.raises(EvaluationFileError, match="schema must be 3, was 1"):
        page(tmp_path, evaluation={"schema": 1})
    assert not list(tmp_path.iterdir())
