"""What an upload holds, before anything is done with it: the fields of `Inspected`.

Promise: columns are proposed, never decided; a file that cannot be used is a `problem` with place and reason, not a failure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from papertape.runs.bars import UploadError, UploadReader
from schema.runs.request import UploadedBars

NOTHING: dict[str, Any] = {"columns": {}, "unmapped": (), "preview": ()}


def looked_at(file: Path, bars: UploadedBars, *, reader: UploadReader) -> dict[str, Any]:
    """Read the file by `bars.columns`, or by what its columns are called where none are given. `preview`: the header, then rows."""
    try:
        found = reader.read(file, columns=bars.columns, adjusted=bars.adjusted, out=None)
    except UploadError as error:
        return {**NOTHING, "problem": str(error)}
    found.pop("bars", None)
    return found
