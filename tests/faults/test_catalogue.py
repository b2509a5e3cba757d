"""Each case of the catalogue is a test that names its id, or is listed with the reason why it cannot occur; docs/faults.md says
the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.faults.page import CASES, NOT_HERE, OPTION, PAGE, case_of, render

FOLDER = Path(__file__).parent


def told() -> list[tuple[str, str]]:
    """(case, what is injected) of each test, from the sources."""
    found = []
    for path in sorted(FOLDER.glob("test_[a-i]_*.py")):
        functions = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
        found += [(case, " ".join((ast.get_docstring(one) or "").split())) for one in functions if (case := case_of(one.name)) is not None]
    return found


def test_every_case_is_a_test_or_has_its_reason() -> None:
    catalogue = {f"{letter}{number}" for letter, count in CASES.items() for number in range(1, count + 1)}
    tested = {one for case, _ in told() for one in case.split(", ")}
    assert tested <= catalogue
    assert catalogue - tested <= set(NOT_HERE), "neither a test nor a reason"
    assert not tested & set(NOT_HERE), "what has a test does occur here"


def test_the_page_has_the_rows_of_these_tests_and_no_others(request: pytest.FixtureRequest) -> None:
    if request.config.getoption(OPTION, default=None) is not None:
        pytest.skip("the page is being written")
    page = PAGE.read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split(" | ")] for line in page.splitlines() if re.match(r"\| [A-I]\d", line)]
    shown = {(row[0].removeprefix("| "), re.sub(r" \[[^\]]*\]$", "", row[1])) for row in rows if len(row) > 2}
    assert shown == set(told())
    assert page.endswith(render([]).partition("## Not here")[2])
