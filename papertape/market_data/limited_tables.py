"""A stranger's table, read in parts and never further than its limits: what a file claims or hides decides no memory.

Promise: a compressed file is read up to `most_bytes` of what it holds, a line, a header and a cell have their length, a Parquet file's own
account of itself is looked at before a column is, and only flat columns of numbers, texts and times are read. Nothing in a file is
evaluated: a formula is a text that is no number. Failure: `OwnBarsError` with what is beyond which limit.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from papertape.market_data.own_tables import SEPARATORS, OwnBarsError, is_table, shown

PART = 131_072  # rows
INDEX = "__index_level_0__"  # how pandas writes an index without a name


@dataclass(frozen=True, kw_only=True)
class ReadingLimits:
    """`most_bytes`: of a file, unpacked; `most_line`: of one line of CSV."""

    most_bytes: int = 256 << 20
    most_rows: int = 5_000_000
    most_columns: int = 100
    most_line: int = 64 << 10


def parts(file: Path, *, limits: ReadingLimits) -> Iterator[pd.DataFrame]:
    """The table as `own_tables.read_table` gives it, some rows at a time, each under its number in the file."""
    if not is_table(file):
        raise OwnBarsError(f"{file}: must be a .csv, .csv.gz or .parquet file{'' if file.exists() else '; there is nothing of that name'}")
    rows = 0
    try:
        for part in _csv(file, limits) if ".csv" in file.name.lower() else _parquet(file, limits):
            rows += len(part)
            if rows > limits.most_rows:
                raise OwnBarsError(f"{file}: has more than {limits.most_rows:,} rows, the most that are read; choose fewer names or years")
            if len(part):
                yield part
    except (OSError, EOFError, zlib.error, pa.ArrowException, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise OwnBarsError(f"{file}: cannot be read, {' '.join(str(error).split())[:300]}") from error
    if not rows:
        raise OwnBarsError(f"{file}: has no row")


def _csv(file: Path, limits: ReadingLimits) -> Iterator[pd.DataFrame]:
    with file.open("rb") as stored, gzip.open(stored) if file.suffix.lower() == ".gz" else stored as plain:
        measured = _Measured(plain, file=file, limits=limits)
        header = measured.first_line().decode("utf-8-sig")
        separator = max(SEPARATORS, key=header.count)
        if header.count(separator) >= limits.most_columns:
            raise OwnBarsError(f"{file} line 1: has {header.count(separator) + 1:,} columns, {limits.most_columns} are the most")
        text = io.TextIOWrapper(io.BufferedReader(measured, 1 << 20), encoding="utf-8-sig", newline="")
        options: dict[str, Any] = {"sep": separator, "dtype": str, "keep_default_na": False, "skip_blank_lines": False}
        with pd.read_csv(text, chunksize=PART, **options) as reader:
            for part in reader:
                if not pd.api.types.is_integer_dtype(part.index.dtype):
                    raise OwnBarsError(f"{file} line 2: has more fields than the header, {header.strip()[:200]!r}")
                yield part[(part.fillna("") != "").any(axis=1)]


class _Measured(io.RawIOBase):
    """A stream of bytes that ends with an error where it grows beyond the limits."""

    def __init__(self, source: IO[bytes] | gzip.GzipFile, *, file: Path, limits: ReadingLimits) -> None:
        self._source, self._file, self._limits = source, file, limits
        self._read, self._line, self._ahead = 0, 0, b""

    def first_line(self) -> bytes:
        """The header, which the stream gives again."""
        self._ahead = self._source.read(self._limits.most_line + 1)
        line, newline, _ = self._ahead.partition(b"\n")
        if len(self._ahead) > self._limits.most_line and not newline:
            raise self._too_long()
        return line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = self._ahead[: len(buffer)] or self._source.read(len(buffer))
        self._ahead = self._ahead[len(buffer) :]
        buffer[: len(got)] = got
        self._read += len(got)
        if self._read > self._limits.most_bytes:
            raise OwnBarsError(f"{self._file}: holds more than {self._limits.most_bytes >> 20} MB when unpacked; reading stopped there")
        lines = got.split(b"\n")
        lengths = [self._line + len(lines[0]), *map(len, lines[1:])]
        if max(lengths) > self._limits.most_line:
            raise self._too_long()
        self._line = lengths[-1]
        return len(got)

    def _too_long(self) -> OwnBarsError:
        return OwnBarsError(f"{self._file}: has a line of more than {self._limits.most_line >> 10} kB, so it is no table of bars")


def _parquet(file: Path, limits: ReadingLimits) -> Iterator[pd.DataFrame]:
    with pq.ParquetFile(
        file, thrift_string_size_limit=limits.most_line, thrift_container_size_limit=limits.most_rows, arrow_extensions_enabled=False
    ) as table:
        _refuse_claims(table, file=file, limits=limits)
        _refuse_types(table.schema_arrow, file=file)
        row = 0
        for batch in table.iter_batches(batch_size=PART // 4):
            part = batch.to_pandas(ignore_metadata=True)
            part.index = pd.RangeIndex(row, row + len(part))
            row += len(part)
            if INDEX in part.columns:
                part = part.rename(columns={INDEX: "date"} if pd.api.types.is_datetime64_any_dtype(part[INDEX]) else {INDEX: "index"})
            yield part


def _refuse_claims(table: pq.ParquetFile, *, file: Path, limits: ReadingLimits) -> None:
    """What the file says of itself must be within the limits, and add up."""
    about = table.metadata
    if about.num_columns > limits.most_columns:
        raise OwnBarsError(f"{file}: has {about.num_columns:,} columns, {limits.most_columns} are the most")
    if about.num_rows > limits.most_rows:
        raise OwnBarsError(f"{file}: has {about.num_rows:,} rows, {limits.most_rows:,} are the most that are read")
    groups = [about.row_group(place) for place in range(about.num_row_groups)]
    size = sum(
        max(group.total_byte_size, sum(group.column(k).total_uncompressed_size for k in range(group.num_columns))) for group in groups
    )
    if size > limits.most_bytes or any(group.total_byte_size < 0 or group.num_rows < 0 for group in groups):
        raise OwnBarsError(f"{file}: holds {size >> 20:,} MB when unpacked, {limits.most_bytes >> 20} MB are the most")
    if sum(group.num_rows for group in groups) != about.num_rows:
        raise OwnBarsError(f"{file}: says that it has {about.num_rows:,} rows and that its parts have another number of them")


def _refuse_types(schema: pa.Schema, *, file: Path) -> None:
    allowed = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_string, pa.types.is_large_string,
               pa.types.is_timestamp, pa.types.is_date, pa.types.is_boolean, pa.types.is_null)  # fmt: skip
    for column in schema:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if not any(is_one(kind) for is_one in allowed):
            raise OwnBarsError(f"{file}: column {str(column.name)[:80]!r} is {str(column.type)[:80]}; numbers, texts and times are read")
    doubled = [name for name in schema.names if schema.names.count(name) > 1]
    if doubled:
        raise OwnBarsError(f"{file}: has two columns called {shown(doubled[:1])}")
