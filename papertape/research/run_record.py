"""`run.json`: what a run's folder holds, and which of its folds trades which sessions.

Promise: written before the first training starts; a fold counts as trained only when its own record names the run's configuration, bars,
seed and number, so what another run left in the folder is never taken for this one's. Failure: `RunRecordError` on a file that cannot
be read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Self

from trading_env.errors import PapertapeError

NAME = "run.json"


class RunRecordError(PapertapeError, ValueError):
    """A run's folder cannot be understood; the message names the file."""


class JudgedFold(NamedTuple):
    """ISO dates, each bound included: what a fold trains on, and the sessions that judge it. `test_end`: None where nothing ends it."""

    number: int
    train_start: str
    train_end: str
    test_start: str
    test_end: str | None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """`holdout`: the number of the holdout's fold, None in a run that trains on everything."""

    configuration_of_one_seed: str
    manifest_sha256: str
    seeds: tuple[int, ...]
    folds: tuple[JudgedFold, ...]
    holdout: int | None

    def write(self, folder: Path) -> None:
        (folder / NAME).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        try:
            document = json.loads((folder / NAME).read_text(encoding="utf-8"))
            folds = tuple(JudgedFold(*fold) for fold in document.pop("folds"))
            return cls(**{**document, "seeds": tuple(document["seeds"])}, folds=folds)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunRecordError(f"{folder / NAME} cannot be read ({error}); train again") from error

    def finished(self, folder: Path, *, seed: int, fold: int) -> bool:
        """Whether this run's training of `seed` on `fold` is done; its record is the last file that it writes."""
        path = folder / "seeds" / str(seed) / f"fold-{fold}" / "training.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        recorded = (record.get("configuration_of_one_seed"), record.get("manifest_sha256"), record.get("seed"), record.get("fold"))
        return recorded == (self.configuration_of_one_seed, self.manifest_sha256, seed, fold)
