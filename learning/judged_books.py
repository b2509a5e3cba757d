"""The books of a judgement, kept one by one, so that a judgement that was stopped goes on where it was.

Promise: a book is in the folder whole or not at all, and what is read again is what was traded, to the bit; books of other models, data,
settings or code are never read, for their folder has another name. Stopped is stopped between two books, before anything is logged.
Failure: `JudgingStopped`, which is none; OSError where the folder cannot be written.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_env.evaluation.backtest import BacktestResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on


class JudgingStopped(Exception):  # noqa: N818 -- it was asked for
    """The stop file is there."""


class BookKeeper:
    """`folder` None: nothing is kept. `stop_file`: while it is there, no further book is traded. `about`: files and words that say what is
    judged."""

    def __init__(self, folder: Path | None, *, stop_file: Path | None = None, about: Iterable[Path | str] = ()) -> None:
        self._stop_file, self._folder = stop_file, folder
        if folder is not None:
            identity = hashlib.sha256()
            for one in about:
                identity.update(hashlib.sha256(one.encode() if isinstance(one, str) else one.read_bytes()).digest())
            self._folder = folder / identity.hexdigest()[:24]
            self._folder.mkdir(parents=True, exist_ok=True)

    def check(self) -> None:
        """Raises `JudgingStopped` when it was asked for."""
        if self._stop_file is not None and self._stop_file.exists():
            raise JudgingStopped

    def books(self, name: str, trade: Callable[[], Sequence[BacktestResult]]) -> list[BacktestResult]:
        """Those called `name`: as kept, or traded now and kept."""
        if self._folder is None:
            return list(trade())
        kept = self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.npz"
        if kept.is_file():
            return _read(kept)
        self.check()
        made = list(trade())
        scratch = kept.with_suffix(".new")
        with scratch.open("wb") as file:
            arrays: dict[str, Any] = {f"{place} {key}": value for place, one in enumerate(made) for key, value in asdict(one).items()}
            np.savez(file, **arrays)
        scratch.replace(kept)
        return made


def _read(kept: Path) -> list[BacktestResult]:
    with np.load(kept, allow_pickle=False) as held:
        count = 1 + max(int(key.partition(" ")[0]) for key in held.files)
        return [_book({field.name: held[f"{place} {field.name}"] for field in fields(BacktestResult)}) for place in range(count)]


def _book(arrays: dict[str, Any]) -> BacktestResult:
    words = {"policy": str(arrays["policy"]), "initial_cash": float(arrays["initial_cash"])}
    lists = {name: tuple(map(str, arrays[name])) for name in ("symbols", "denied")}
    return BacktestResult(**{**arrays, **words, **lists})
