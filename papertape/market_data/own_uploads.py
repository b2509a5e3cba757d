"""A stranger's file of bars, whole names at a time: what `own_bars` reads from one's own files, within `limited_tables`' limits.

Promise: what is held in memory is a few bytes per row of the file and one batch of names, so a file at the limits fits into 1 GB. The
numbers, the refusals and the remarks are those of `own_bars`. Failure: `OwnBarsError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from papertape.market_data.limited_tables import ReadingLimits, parts
from papertape.market_data.number_forms import PLAIN, NumberReadings, forms_of
from papertape.market_data.own_bars import BESIDE, NUMBERS, ROLES, OwnBars, dashes, own_bars_of, typed
from papertape.market_data.own_tables import OwnBarsError, claims, is_number, numbers, trimmed
from schema.runs.request import NumberForm

BATCH = 300_000  # rows
STANDARD_LIMITS = ReadingLimits()


@dataclass(frozen=True)
class ColumnMapping:
    """What a file's columns are taken for, by their names alone. `columns`: column -> role; `unmapped`: the others, those among them that
    two roles or two columns would claim; `doubts`: why these are not mapped, a line each."""

    columns: dict[str, str]
    unmapped: tuple[str, ...]
    doubts: tuple[str, ...]
    missing: tuple[str, ...]

    @classmethod
    def proposed(cls, columns: list[str]) -> ColumnMapping:
        claimed = claims(columns, {**ROLES, **BESIDE})
        sure = {own[0]: role for role, own in claimed.items() if len(own) == 1}
        doubts = tuple(f"{' and '.join(own)} may both be the {role}: choose one" for role, own in claimed.items() if len(own) > 1)
        ordered = {column: sure[column] for column in columns if column in sure}
        missing = tuple(role for role in ROLES if role not in sure.values())
        return cls(ordered, tuple(column for column in columns if column not in sure), doubts, missing)


@dataclass(frozen=True)
class NumbersWritten:
    """How a file's numbers are written, by its cells. `forms`: column -> form, of those that are not plain numbers; `doubtful`: columns
    that can be read in two ways, and only their owner knows which."""

    forms: dict[str, NumberForm]
    doubtful: tuple[str, ...]

    @classmethod
    def of(cls, file: Path, *, columns: Mapping[str, str], limits: ReadingLimits = STANDARD_LIMITS) -> NumbersWritten:
        """`columns`: column -> role. Raises `OwnBarsError` at the first cell of a column that is no number in the form of its others."""
        readings: dict[str, NumberReadings] = {}
        for part in parts(file, limits=limits):
            for column in (one for one in part.columns if columns.get(str(one)) in NUMBERS and not is_number(part[one])):
                readings.setdefault(str(column), NumberReadings()).add(trimmed(part[column]))
        found = forms_of(readings)
        odd = [column for column, form in found.items() if form is None and not readings[column].fitting]
        for part in parts(file, limits=limits) if odd else ():
            numbers(part[odd[0]], called=columns[odd[0]], source=file, form=readings[odd[0]].likeliest)
        return cls(
            {column: form for column, form in found.items() if form is not None and form != PLAIN},
            tuple(column for column, form in found.items() if form is None),
        )

    @property
    def question(self) -> str:
        """What the user is asked, in a line."""
        sure = ", ".join(f"{column} like {form}" for column, form in self.forms.items())
        doubts = f"choose how the numbers of {', '.join(self.doubtful)} are written, they can be read in two ways" if self.doubtful else ""
        return "; ".join(part for part in (doubts, f"confirm how numbers are written: {sure}" if sure else "") if part)


def batches(
    file: Path,
    *,
    columns: Mapping[str, str] | None,
    adjusted: bool | None,
    forms: Mapping[str, NumberForm] | None = None,
    limits: ReadingLimits = STANDARD_LIMITS,
) -> Iterator[OwnBars]:
    """The file's bars, some names at a time, each name whole."""
    names, held, remarks = _held(file, columns=columns, forms=forms or {}, limits=limits)
    rows = np.bincount(np.concatenate([part["code"].to_numpy() for part in held]) + 1, minlength=len(names) + 1)
    for codes in _dealt(rows):
        own = pd.concat([part[part["code"].isin(codes)] for part in held], ignore_index=True)
        symbols = pd.Series([*names, None], dtype="str")
        table = own.drop(columns="code").assign(symbol=symbols.iloc[own["code"].to_numpy()].to_numpy(), file=str(file))
        if "stamp" not in table.columns:
            table["stamp"] = table["session"]
        yield own_bars_of(table, adjusted=adjusted, actions=None, source=file, remarks=remarks)
        remarks = []


def _held(
    file: Path, *, columns: Mapping[str, str] | None, forms: Mapping[str, NumberForm], limits: ReadingLimits
) -> tuple[list[str], list[pd.DataFrame], list[str]]:
    """(names, rows with the `code` of their name, -1 where it has none, remarks)."""
    names: dict[str, int] = {}
    held: list[pd.DataFrame] = []
    dashed: set[str] = set()
    for raw in parts(file, limits=limits):
        part = typed(raw, file=file, columns=columns, forms=forms)
        dashed |= set(part.loc[part["written"] != part["symbol"], "written"].dropna().unique())
        local, own = pd.factorize(part["symbol"])
        codes = np.array([*(names.setdefault(str(name), len(names)) for name in own), -1])
        dropped = ["symbol", "written", "file", *(["stamp"] if part["stamp"].dtype == part["session"].dtype else [])]
        held.append(part.drop(columns=dropped).assign(code=codes[local].astype(np.int32), row=part["row"].astype(np.int32)))
    if len({"stamp" in part.columns for part in held}) > 1:
        raise OwnBarsError(f"{file}: dates have a time zone in some rows and none in others; write them one way in all rows")
    read = [f"{column}: numbers are read as written like {form}" for column, form in forms.items() if form != PLAIN]
    return list(names), held, [*dashes(dashed), *read]


def _dealt(rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[list[int]]:
    """Codes in batches of about `BATCH` rows; `rows[code + 1]` counts those of a code."""
    codes: list[int] = []
    taken = 0
    for place, count in enumerate(rows.tolist()):
        if not count:
            continue
        if codes and taken + count > BATCH:
            yield codes
            codes, taken = [], 0
        codes, taken = [*codes, place - 1], taken + count
    if codes:
        yield codes
