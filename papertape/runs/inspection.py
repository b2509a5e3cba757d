"""What an upload holds, before anything is done with it: the fields of `Inspected`.

Promise: columns are proposed, never decided; a file that cannot be used is a `problem` with place and reason, not a failure.
"""

from __future__ import annotations

from typing import Any

from papertape.runs.bars import UploadError
from papertape.runs.store import RunStore
from papertape.runs.studies import Studies
from schema.runs.request import UploadedBars


def looked_at(bars: UploadedBars, *, store: RunStore, studies: Studies) -> dict[str, Any]:
    """Read the file by `bars.columns`, or by what its columns are called where none are given. `preview`: the header, then rows."""
    try:
        found = studies.look(bars, store)
    except UploadError as error:
        return {"columns": {}, "problem": str(error)}
    return {name: value for name, value in found.items() if name != "bars"}
