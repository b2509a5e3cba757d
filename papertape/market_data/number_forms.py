"""How people write the numbers of a column: with which sign for thousands, and which for decimals.

Promise: a cell is read as the form says or not at all; a column whose cells can be read in two ways that differ is nobody's guess
(`NumberReadings.sure` is None). A plain number, 1234.5, is what it is unless the file's other columns are written in a form by which it
would be another. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from schema.runs.request import NumberForm

PLAIN: NumberForm = "1234.56"
FORMS: tuple[NumberForm, ...] = get_args(NumberForm)
#: (thousands, decimals); a space is any of those that keep a number on one line too.
SIGNS: dict[NumberForm, tuple[str, str]] = {"1,234.56": (",", "."), "1.234,56": (".", ","), "1 234.56": (" ", "."), "1 234,56": (" ", ",")}
SPACES = "[\u00a0\u2009\u202f]"


def pattern(form: NumberForm) -> str:
    """Groups of three, or none at all."""
    thousands, decimals = ("\\" + sign for sign in SIGNS[form])
    return rf"^[+-]?([0-9]+|[0-9]{{1,3}}({thousands}[0-9]{{3}})+)({decimals}[0-9]+)?$"


def read_as(form: NumberForm, text: pd.Series) -> tuple[pd.Series, pd.Series]:
    """(float64, NaN where it does not fit or is missing; whether it fits, a missing cell does)."""
    if form == PLAIN:
        values = pd.to_numeric(text, errors="coerce").astype("float64")
        return values, values.notna() | text.isna()
    thousands, decimals = SIGNS[form]
    plain = text.str.replace(SPACES, " ", regex=True) if thousands == " " else text
    matches = pc.fill_null(pc.match_substring_regex(pa.array(plain, pa.string(), from_pandas=True), pattern(form)), False)
    fits = pd.Series(matches.to_numpy(zero_copy_only=False), index=text.index) | text.isna()
    digits = plain.where(fits).str.replace(thousands, "", regex=False).str.replace(decimals, ".", regex=False)
    return pd.to_numeric(digits, errors="coerce").astype("float64"), fits


@dataclass
class NumberReadings:
    """What a column's cells allow, part by part. `fitting`: the forms that fit every cell so far, in the order of `FORMS`; `differing`:
    pairs of them that read a cell as two numbers; `cells`: how many fit each form."""

    fitting: list[NumberForm] = field(default_factory=lambda: list(FORMS))
    differing: set[frozenset[NumberForm]] = field(default_factory=set)
    cells: dict[NumberForm, int] = field(default_factory=lambda: dict.fromkeys(FORMS, 0))

    def add(self, text: pd.Series) -> None:
        """`text`: trimmed cells, missing where there is nothing."""
        readings = {form: read_as(form, text) for form in FORMS}
        for form, (_, fits) in readings.items():
            self.cells[form] += int(fits.sum())
        self.fitting = [form for form in self.fitting if bool(readings[form][1].all())]
        for place, one in enumerate(self.fitting):
            for other in self.fitting[place + 1 :]:
                if not np.array_equal(readings[one][0], readings[other][0], equal_nan=True):
                    self.differing.add(frozenset((one, other)))

    @property
    def likeliest(self) -> NumberForm:
        """The form that fits the most cells: where none fits all, the others are the odd ones."""
        return max(FORMS, key=lambda form: self.cells[form])

    def sure(self, others: Iterable[NumberForm] = ()) -> NumberForm | None:
        """The form of the column; None: two that differ, or none, fit. `others`: those of the file's other columns, which make a plain
        number doubtful; without them it is plain."""
        if PLAIN in self.fitting:
            doubted = [form for form in others if form in self.fitting and frozenset((PLAIN, form)) in self.differing]
            return None if doubted else PLAIN
        if not self.fitting or any(frozenset((self.fitting[0], form)) in self.differing for form in self.fitting[1:]):
            return None
        return self.fitting[0]


def forms_of(columns: Mapping[str, NumberReadings]) -> dict[str, NumberForm | None]:
    """Column -> its form; None: it can be read in two ways, or in none (`fitting` is empty)."""
    alone = {name: readings.sure() for name, readings in columns.items()}
    possible = {form for name, form in alone.items() for form in ([form] if form is not None else columns[name].fitting) if form != PLAIN}
    return {name: readings.sure(others=possible) for name, readings in columns.items()}
