"""What a run shows while it works, and how long each of its stages took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


@dataclass
class Timings:
    """Seconds of each stage, in order."""

    stages: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.stages.values())


class Show:
    """Progress on the terminal: a line per stage, with a bar where the length is known."""

    def __init__(self, console: Console) -> None:
        self.timings = Timings()
        columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description:<11}"), BarColumn(bar_width=24), TimeElapsedColumn())
        self.progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=console)

    @contextmanager
    def stage(self, name: str, *, total: int | None = None) -> Iterator[Stage]:
        task = self.progress.add_task(name, total=total, note="")
        started = time.monotonic()
        stage = Stage(self.progress, task)
        yield stage
        self.timings.stages[name] = time.monotonic() - started
        self.progress.update(task, total=total or 1, completed=total or 1)


@dataclass(frozen=True)
class Stage:
    progress: Progress
    task: TaskID

    def note(self, text: str) -> None:
        self.progress.update(self.task, note=text)

    def advance(self) -> None:
        self.progress.advance(self.task)
