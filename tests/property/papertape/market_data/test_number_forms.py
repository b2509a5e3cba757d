"""Numbers written with separators come back as they were, or their column asks: never as another number."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from papertape.market_data.number_forms import FORMS, PLAIN, SIGNS, NumberReadings, forms_of, read_as
from papertape.market_data.own_tables import OwnBarsError, numbers
from schema.runs.request import NumberForm

ODD = ("=1+1", "1.2.3,4", "12,34,5", "x")
CELLS = st.decimals(min_value=0, max_value=10**12, allow_nan=False, allow_infinity=False, places=2) | st.integers(0, 10**12).map(Decimal)
COLUMNS = st.lists(CELLS | st.none(), min_size=1, max_size=12)
SPACES = (" ", "\u00a0", "\u2009", "\u202f")


def written(value: Decimal | None, form: NumberForm, *, space: str = " ") -> str | None:
    """As people and spreadsheets write it."""
    if value is None or form == PLAIN:
        return None if value is None else f"{value:f}"
    thousands, decimals = SIGNS[form]
    whole, _, rest = f"{value:,f}".partition(".")
    return whole.replace(",", space if thousands == " " else thousands) + (decimals + rest if rest else "")


@given(values=COLUMNS, form=st.sampled_from(FORMS), space=st.sampled_from(SPACES))
def test_a_column_written_with_separators_reads_back_exactly(values: list[Decimal | None], form: NumberForm, space: str) -> None:
    column = pd.Series([written(value, form, space=space) for value in values], dtype="str")
    read = numbers(column, called="close", source=Path("a.csv"), form=form)
    assert [None if pd.isna(one) else one for one in read] == [None if value is None else float(value) for value in values]


@given(values=COLUMNS, form=st.sampled_from(FORMS), parts=st.integers(1, 3))
def test_what_is_offered_is_what_was_meant_or_the_column_asks(values: list[Decimal | None], form: NumberForm, parts: int) -> None:
    column = pd.Series([written(value, form) for value in values], dtype="str")
    readings = NumberReadings()
    for start in range(parts):
        readings.add(column.iloc[start::parts])
    assert form in readings.fitting
    offered = forms_of({"Close": readings})["Close"]
    if offered is not None and not (offered == PLAIN and form != PLAIN):
        meant, _ = read_as(form, column)
        pd.testing.assert_series_equal(read_as(offered, column)[0], meant)


@given(
    values=st.lists(CELLS, min_size=1, max_size=8),
    form=st.sampled_from(FORMS[1:]),
    odd=st.sampled_from(ODD),
)
def test_a_cell_that_does_not_fit_its_form_is_never_a_number(values: list[Decimal], form: NumberForm, odd: str) -> None:
    column = pd.Series([*(written(value, form) for value in values), odd], dtype="str")
    with pytest.raises(OwnBarsError, match=f"a.csv line {len(values) + 2}: close must be a number such as"):
        numbers(column, called="close", source=Path("a.csv"), form=form)
