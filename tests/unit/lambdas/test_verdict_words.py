"""The refusal that a page leads with."""

from __future__ import annotations

import pytest

from lambdas.dashboard.views.gate import shortly
from schema.evaluation_document import GateCheck


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"reality_check_p": 0.137, "reality_check_p_at_kappa": 0.312}, "luck is not ruled out (p = .31)"),
        ({"reality_check_p": 0.137}, "luck is not ruled out (p = .14)"),
        ({"reality_check_p": None}, "luck is not ruled out"),
    ],
)
def test_the_larger_probability_of_luck_is_told(numbers: dict[str, float | None], words: str) -> None:
    """The gate asks for both: the smaller one alone would flatter the model."""
    luck = GateCheck(name="luck", passed=False, sentence="it is not", numbers=numbers)
    assert shortly([luck]) == words
