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
from papertape.market_data.own_bars import BESIDE, ROLES, OwnBars, dashes, own_bars_of, typed
from papertape.market_data.own_tables import OwnBarsError, claims

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


def batches(
    file: Path, *, columns: Mapping[str, str] | None, adjusted: bool | None, limits: ReadingLimits = STANDARD_LIMITS
) -> Iterator[OwnBars]:
    """The file's bars, some names at a time, each name whole."""
    names, held, remarks = _held(file, columns=columns, limits=limits)
    rows = np.bincount(np.concatenate([part["code"].to_numpy() for part in held]) + 1, minlength=len(names) + 1)
    for codes in _dealt(rows):
        own = pd.concat([part[part["code"].isin(codes)] for part in held], ignore_index=True)
        symbols = pd.Series([*names, None], dtype="str")
        table = own.drop(columns="code").assign(symbol=symbols.iloc[own["code"].to_numpy()].to_numpy(), file=str(file))
        if "stamp" not in table.columns:
            table["stamp"] = table["session"]
        yield own_bars_of(table, adjusted=adjusted, actions=None, source=file, remarks=remarks)
        remarks = []


def _held(file: Path, *, columns: Mapping[str, str] | None, limits: ReadingLimits) -> tuple[list[str], list[pd.DataFrame], list[str]]:
    """(names, rows with the `code` of their name, -1 where it has none, remarks)."""
    names: dict[str, int] = {}
    held: list[pd.DataFrame] = []
    dashed: set[str] = set()
    for raw in parts(file, limits=limits):
        part = typed(raw, file=file, columns=columns)
        dashed |= set(part.loc[part["written"] != part["symbol"], "written"].dropna().unique())
        local, own = pd.factorize(part["symbol"])
        codes = np.array([*(names.setdefault(str(name), len(names)) for name in own), -1])
        dropped = ["symbol", "written", "file", *(["stamp"] if part["stamp"].dtype == part["session"].dtype else [])]
        held.append(part.drop(columns=dropped).assign(code=codes[local].astype(np.int32), row=part["row"].astype(np.int32)))
    if len({"stamp" in part.columns for part in held}) > 1:
        raise OwnBarsError(f"{file}: dates have a time zone in some rows and none in others; write them one way in all rows")
    return list(names), held, dashes(dashed)


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
