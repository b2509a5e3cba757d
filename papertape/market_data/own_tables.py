"""A user's table read cell by cell: CSV or Parquet, names, dates and numbers as people write them.

Promise: a cell is what it says or the file is refused; an empty cell is missing, never zero. Everything a column may hold is tried on the
whole column, so one odd row among a million is found and named with its line. Failure: `OwnBarsError`.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from papertape.market_data.number_forms import PLAIN, read_as
from schema.runs.request import NumberForm
from trading_env.errors import PapertapeError

MISSING = ("", "nan", "na", "n/a", "null", "none", "-")
SEPARATORS = ",;\t|"
SYMBOL = re.compile(r"[A-Z][A-Z0-9.]{0,9}")
DAY, COMPACT_DAY = r"\d{4}-\d{2}-\d{2}", r"\d{8}"
CLOCK, ZONE = r"[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?", r" ?(?:Z|[+-]\d{2}:?\d{2})"
NEW_YORK = "America/New_York"


class OwnBarsError(PapertapeError, ValueError):
    """A user's file cannot be used; the message names it, the place, the value and what is allowed."""


class NumberFormError(OwnBarsError):
    """A number is not plain; the user may say how it is written."""


def is_table(file: Path) -> bool:
    return file.is_file() and file.name.lower().endswith((".csv", ".csv.gz", ".parquet"))


def place(file: Path, row: object) -> str:
    """A row in words: the line of a CSV file, whose header is line 1; the row of a Parquet file, counted from 0."""
    is_csv = ".csv" in file.name.lower()
    return f"{file} line {int(str(row)) + 2}" if is_csv else f"{file} row {row}"


def shown(words: Sequence[str], *, most: int = 8) -> str:
    return ", ".join(map(str, words[:most])) + (f" and {len(words) - most} more" if len(words) > most else "")


def read_table(file: Path) -> pd.DataFrame:
    """The file as it is: text from CSV, typed columns from Parquet, with an index that has names as columns."""
    if not is_table(file):
        wanted = "a .csv, .csv.gz or .parquet file, or a folder of them"
        raise OwnBarsError(f"{file}: must be {wanted}{'' if file.exists() else '; there is nothing of that name'}")
    try:
        table = _csv(file) if ".csv" in file.name.lower() else _parquet(file)
    except (OSError, EOFError, zlib.error, pa.ArrowException, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise OwnBarsError(f"{file}: cannot be read, {' '.join(str(error).split())}") from error
    if table.empty:
        raise OwnBarsError(f"{file}: has no row")
    return table


def _csv(file: Path) -> pd.DataFrame:
    with gzip.open(file, "rt", encoding="utf-8-sig") if file.suffix.lower() == ".gz" else file.open(encoding="utf-8-sig") as opened:
        header = opened.readline()
    separator = max(SEPARATORS, key=header.count)
    table = pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False)
    if not isinstance(table.index, pd.RangeIndex):
        raise OwnBarsError(f"{file} line 2: has more fields than the header, {header.strip()!r}")
    return table[(table.fillna("") != "").any(axis=1)]


def _parquet(file: Path) -> pd.DataFrame:
    table = pd.read_parquet(file)
    if any(name is not None for name in table.index.names):
        return table.reset_index()
    return table.reset_index(names="date") if isinstance(table.index, pd.DatetimeIndex) else table


def recognised(table: pd.DataFrame, roles: Mapping[str, Sequence[str]], *, source: Path) -> pd.DataFrame:
    """The columns that have one of the roles, renamed to it; raises when two claim the same."""
    by_role = claims([str(column) for column in table.columns], roles)
    for role, columns in by_role.items():
        if len(columns) > 1:
            raise OwnBarsError(f"{source}: columns {' and '.join(columns)} may both be the {role}; drop or rename all but one")
    return table[[columns[0] for columns in by_role.values()]].set_axis(list(by_role), axis=1)


def claims(columns: Sequence[str], roles: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Role -> the columns that are called as it may be, in the order of the table; pandas calls the second `close` of a file `close.1`."""
    found: dict[str, list[str]] = {}
    for column in columns:
        word = re.sub(r"^\d+_", "", re.sub(r"[^a-z0-9]+", "_", re.sub(r"\.\d+$", "", column).lower()).strip("_"))
        for role, words in roles.items():
            if word in words:
                found.setdefault(role, []).append(column)
    return found


def mapped(table: pd.DataFrame, columns: Mapping[str, str], *, roles: Collection[str], source: Path) -> pd.DataFrame:
    """The columns with the roles that the user gave them, renamed to these; each role is one column's."""
    there = [str(column) for column in table.columns]
    absent = [column for column in columns if column not in there]
    if absent:
        raise OwnBarsError(f"{source}: has no column {absent[0]!r}, there are {shown(there)}")
    for column, role in columns.items():
        if role not in roles:
            raise OwnBarsError(f"{source}: column {column!r} must be one of {', '.join(roles)}, was {role!r}")
    for role in dict.fromkeys(columns.values()):
        claimed = [column for column in columns if columns[column] == role]
        if len(claimed) > 1:
            raise OwnBarsError(f"{source}: columns {' and '.join(claimed)} may both be the {role}; choose one of them")
    chosen = table[[table.columns[there.index(column)] for column in columns]]
    return chosen.set_axis(list(columns.values()), axis=1)


def names(column: pd.Series, *, source: Path) -> tuple[pd.Series, pd.Series]:
    """(as written, in capitals; as the exchanges write it); missing where empty."""
    written = trimmed(column).str.upper()
    symbol = written.str.replace(r"[-/]", ".", regex=True)
    distinct = pd.Series(symbol.unique()).dropna()
    wrong = distinct[~distinct.map(lambda name: SYMBOL.fullmatch(name) is not None)]
    if not wrong.empty:
        row = symbol.index[symbol.eq(wrong.iloc[0])][0]
        raise OwnBarsError(f"{place(source, row)}: symbol must be up to ten capitals, digits or dots such as BRK.B, was {column[row]!r}")
    return written, symbol


def is_number(column: pd.Series) -> bool:
    """Whether it holds numbers, and not texts of them."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def numbers(
    column: pd.Series, *, called: str, source: Path, form: NumberForm | None = None, others: Collection[NumberForm] = ()
) -> pd.Series:
    """float64, NaN where empty. `form`: as the user has said that the column is written; without it, plain numbers alone are read, and none
    that the file's `others` would read as another: `NumberFormError`."""
    if is_number(column):
        return column.astype("float64")
    text = trimmed(column)
    if form is not None and form != PLAIN:
        values, fits = read_as(form, text)
        if fits.all():
            return values
        row = fits.index[~fits][0]
        raise OwnBarsError(f"{place(source, row)}: {called} must be a number such as {form}, was {column[row]!r}")
    if form is None:
        _refuse_doubts(text, called=called, source=source, others=others)
    try:
        return text.astype("float64")
    except ValueError:
        row = text.index[text.notna() & pd.to_numeric(text, errors="coerce").isna()][0]
    refused = NumberFormError if form is None else OwnBarsError
    raise refused(f"{place(source, row)}: {called} must be a number such as 1234.5, was {column[row]!r}")


def _refuse_doubts(text: pd.Series, *, called: str, source: Path, others: Collection[NumberForm]) -> None:
    plain, _ = read_as(PLAIN, text)
    for other in others:
        values, fits = read_as(other, text)
        differs = plain.notna() & values.notna() & plain.ne(values)
        if differs.any() and fits.all():
            row = differs.index[differs][0]
            raise NumberFormError(
                f"{place(source, row)}: {called} {text[row]} may be written like {PLAIN} or like {other}, as other columns are; say which"
            )


def dates(column: pd.Series, *, called: str, source: Path) -> tuple[pd.Series, pd.Series]:
    """(the moment as it stands, the session in datetime64[us]): a plain date is its session, a time with a zone the New York date of it."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column, _in_new_york(column, column.dt.tz_localize(None), written=column, called=called, source=source)
    if pd.api.types.is_datetime64_dtype(column):
        return column, _without_time(column, written=column, called=called, source=source)
    text = trimmed(column).str.replace(r" ?UTC$", "Z", regex=True)
    forms = {"day": DAY, "compact": COMPACT_DAY, "clock": DAY + CLOCK, "zoned": DAY + CLOCK + ZONE}
    present, matches = text.notna(), {}
    for form, pattern in forms.items():
        matches[form] = text.str.fullmatch(pattern).fillna(value=False).astype(bool)
        if matches[form][present].all():
            break
    else:
        counted = {form: match for form, match in matches.items() if match.any()}
        usual = max(counted.values(), key=lambda match: match.sum(), default=~present)
        row = text.index[present & ~usual][0]
        like = "2020-01-02, 20200102 or 2020-01-02T16:00:00-05:00, one way in all rows"
        raise OwnBarsError(f"{place(source, row)}: {called} must be written like {like}, was {column[row]!r}")
    moments = pd.to_datetime(text, format="%Y%m%d" if form == "compact" else "ISO8601", utc=form == "zoned", errors="coerce")
    if (moments.isna() & present).any():
        row = text.index[moments.isna() & present][0]
        raise OwnBarsError(f"{place(source, row)}: {called} must be a day of the calendar, was {column[row]!r}")
    if form == "zoned":
        clock = pd.to_datetime(text.str.extract(f"({DAY}{CLOCK})")[0], format="ISO8601")
        return moments, _in_new_york(moments, clock, written=text, called=called, source=source)
    return moments, _without_time(moments, written=text, called=called, source=source)


def _in_new_york(moments: pd.Series, clock: pd.Series, *, written: pd.Series, called: str, source: Path) -> pd.Series:
    """The New York dates; `clock` is the time as it reads in its own zone. Midnight elsewhere is most likely meant as a date."""
    there = moments.dt.tz_convert(NEW_YORK).dt.tz_localize(None)
    elsewhere = clock.eq(clock.dt.normalize()) & there.ne(there.dt.normalize())
    if elsewhere.any():
        row = elsewhere.index[elsewhere][0]
        raise OwnBarsError(
            f"{place(source, row)}: {called} {written[row]} is {there[row]:%Y-%m-%d %H:%M} in New York; if it means the session of "
            f"{clock[row]:%Y-%m-%d}, write the date alone"
        )
    return pd.Series(there.dt.normalize().astype("datetime64[us]"))


def _without_time(moments: pd.Series, *, written: pd.Series, called: str, source: Path) -> pd.Series:
    timed = moments.notna() & moments.ne(moments.dt.normalize())
    if timed.any():
        row = timed.index[timed][0]
        raise OwnBarsError(
            f"{place(source, row)}: {called} {written[row]} has a time and no time zone; write the date alone, or the time with its zone"
        )
    return moments.astype("datetime64[us]")


def trimmed(column: pd.Series) -> pd.Series:
    """Trimmed text, missing where there is nothing; whole numbers without a decimal point."""
    text = column.astype("str").str.strip()
    return text.mask(text.str.lower().isin(MISSING) | column.isna())
