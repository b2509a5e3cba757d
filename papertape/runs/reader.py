"""The process that opens strangers' files: `python -m papertape.runs.reader`, one JSON line in, one JSON line out, and then it ends.

Promise: the process limits its own memory and time before it opens anything, knows neither torch nor a network, and writes nothing but the
cleaned bars and actions as Parquet, in the folder that it is given. What it cannot read it answers with `problem`, one line; a file that
breaks the process breaks nothing else, and a disk that takes no more ends it with status `DISK_FULL`.
The line in: `file`, `columns`, `forms` (of their numbers), `adjusted`, `out` (None: only look).
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from papertape.runs.full_disk import is_full

MEMORY_BYTES = 1_000_000_000
CPU_SECONDS = 600
PREVIEW_ROWS, PREVIEW_COLUMNS, CELL = 12, 24, 60
MOST_SHOWN = 1000  # names
DISK_FULL = 28  # the process's status


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from papertape.market_data import own_uploads  # a reader that waits for its file has its libraries loaded

    del own_uploads
    line = sys.stdin.readline()
    if line:
        try:
            said = answer(json.loads(line))
        except OSError as error:
            if is_full(error):
                sys.exit(DISK_FULL)
            raise
        print(json.dumps(said, allow_nan=False), flush=True)


def answer(job: Mapping[str, Any]) -> dict[str, Any]:
    """What `Inspected` says of the file, as a document; with `out`, the cleaned bars lie there when `problem` is None."""
    from papertape.market_data.limited_tables import parts
    from papertape.market_data.own_tables import NumberFormError, OwnBarsError
    from papertape.market_data.own_uploads import STANDARD_LIMITS, ColumnMapping

    path = Path(job["file"])
    os.chdir(path.parent)  # so that messages name the upload, not where it lies
    file = Path(path.name)
    forms = dict(job.get("forms") or {})
    found: dict[str, Any] = {"columns": {}, "unmapped": [], "forms": forms, "doubtful": [], "preview": [], "remarks": [], "problem": None}
    try:
        head = next(parts(file, limits=STANDARD_LIMITS))
        names = [str(column) for column in head.columns]
        found["preview"] = [_cells(names), *(_cells(row) for row in head.head(PREVIEW_ROWS).itertuples(index=False))]
        proposed = ColumnMapping.proposed(names)
        given: dict[str, str] = dict(job.get("columns") or {})
        chosen = given or proposed.columns
        found["columns"], found["unmapped"] = chosen, [name for name in names if name not in chosen]
        if not given and (proposed.missing or proposed.doubts):
            missing = f"no column is called like {', '.join(proposed.missing)}" if proposed.missing else ""
            found["problem"] = "; ".join(part for part in (f"{file}: choose what the columns mean", *proposed.doubts, missing) if part)
            return found
        del head
        out = Path(job["out"]) if job.get("out") else None
        try:
            found |= _read(file, columns=chosen, forms=forms, adjusted=job.get("adjusted"), out=out)
        except NumberFormError:
            found |= _question(file, columns=chosen, forms=forms)
    except OwnBarsError as error:
        found["problem"] = str(error)
    except MemoryError:
        found["problem"] = f"{file}: takes more than {MEMORY_BYTES // 1_000_000:,} MB to read; choose fewer names or years"
    return found


def _question(file: Path, *, columns: Mapping[str, str], forms: Mapping[str, Any]) -> dict[str, Any]:
    """How the numbers seem to be written, for the user to confirm; `forms` are those that they have said."""
    from papertape.market_data.own_uploads import NumbersWritten

    written = NumbersWritten.of(file, columns=columns)
    asked = NumbersWritten(
        {column: form for column, form in written.forms.items() if column not in forms},
        tuple(column for column in written.doubtful if column not in forms),
    )
    return {"forms": {**written.forms, **forms}, "doubtful": asked.doubtful, "problem": f"{file}: {asked.question}"}


def _read(file: Path, *, columns: Mapping[str, str], forms: Mapping[str, Any], adjusted: bool | None, out: Path | None) -> dict[str, Any]:
    import pandas as pd

    from papertape.market_data.own_uploads import batches

    rows = repeats = bars = missing = 0
    symbols: list[str] = []
    remarks: list[str] = []
    days: list[Any] = []
    aside: Counter[str] = Counter()
    gaps: dict[str, int] = {}
    actions = []
    writer = _Writer(out)
    with writer:
        for own in batches(file, columns=columns, forms=forms, adjusted=adjusted):
            rows, repeats, bars = rows + own.rows, repeats + own.repeats, bars + len(own.bars)
            symbols += own.symbols
            days += [own.bars["session"].min(), own.bars["session"].max()]
            aside.update(own.set_aside)
            gaps |= own.gaps
            missing += sum(own.gaps.values())
            remarks += [remark for remark in own.remarks if remark not in remarks]
            actions.append(own.actions)
            writer.add(own.bars)
    found = pd.concat(actions, ignore_index=True)
    if out is not None and len(found):
        found.to_parquet(out / "actions.parquet", index=False)
    said = [f"{count:,} rows set aside: {reason}" for reason, count in aside.most_common()]
    if repeats:
        said.append(f"{repeats:,} rows left out that repeat an identical bar")
    if missing:
        most = max(gaps, key=lambda name: gaps[name])
        said.append(f"{missing:,} sessions missing in {len(gaps):,} names, most of {most} ({gaps[most]:,}); nothing is filled in")
    return {
        "symbols": sorted(symbols)[:MOST_SHOWN],
        "rows": rows,
        "bars": bars,
        "first": f"{min(days):%Y-%m-%d}",
        "last": f"{max(days):%Y-%m-%d}",
        "remarks": [*said, *remarks][:50],
    }


class _Writer:
    """The cleaned bars, some names after the other, in one file that appears when it is whole."""

    def __init__(self, out: Path | None) -> None:
        self._out = out
        self._writer: Any = None

    def __enter__(self) -> None:
        if self._out is not None:
            self._out.mkdir(parents=True, exist_ok=True)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is not None and self._out is not None:
            self._writer.close()
            if kind is None:
                (self._out / "bars.parquet.new").replace(self._out / "bars.parquet")

    def add(self, bars: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._out is None:
            return
        table = pa.Table.from_pandas(bars, preserve_index=False)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._out / "bars.parquet.new", table.schema)
        self._writer.write_table(table)


def _cells(row: Any) -> list[str]:
    return ["" if value is None or value != value else str(value)[:CELL] for value in list(row)[:PREVIEW_COLUMNS]]


if __name__ == "__main__":
    main()
