"""What every benchmark shares: contenders, the workers they run in, and the table.

A contender is built once, in a worker process of its side (`ours` in .venv, `peers` in .venv-peers), and then asked for its numbers, a
round after the other, taking turns with the others: never two at once, one thread each. Times are of the processor, which for one thread is
the wall's on a quiet machine and stays honest on a busy one. A ratio says how many times better ours is: the median of the rounds' ratios.
A worker that fails ends the run with its name; a missed goal is a fact in the table, not a failure.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

ROOT = Path(__file__).resolve().parents[1]
PYTHON = {"ours": ROOT / ".venv" / "bin" / "python", "peers": ROOT / ".venv-peers" / "bin" / "python"}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
MORE_IS_BETTER = ("rate",)

Numbers = dict[str, Any]  # and under "same", if it is there, values that both sides compute
Measure = Callable[[], Numbers]
Side = Literal["ours", "peers"]


@dataclass(frozen=True)
class Contender:
    """`make` builds it, in its side's environment; what that returns gives the numbers of one round. `once`: asked in one round only."""

    side: Side
    make: Callable[[], Measure]
    once: bool = False


@dataclass(frozen=True)
class Row:
    """A line of the table: `number` of contender `ours` beside that of `peer`, and the goal.

    `goal` is a ratio to reach, or None for a fact without a goal; `at_most` is a limit for our number itself, whatever the peer's.
    """

    work: str
    ours: str
    peer: str
    number: str
    unit: str
    goal: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Field:
    """Contenders that take turns, and the rows that compare them."""

    contenders: Mapping[str, Contender]
    rows: Sequence[Row]
    rounds: int


Rounds = dict[str, list[Numbers]]


def line(row: Row, measured: Rounds) -> dict[str, Any]:
    """The row as `out/bench.json` has it: work, ours, peer, ratio, goal; beside them unit and whether the goal is met."""
    ours, peer = ([numbers[row.number] for numbers in measured[name]] for name in (row.ours, row.peer))
    sign = 1 if row.number in MORE_IS_BETTER else -1
    ratios = [(a / b) ** sign for a, b in zip(ours, peer, strict=False) if a > 0 and b > 0]
    ratio = statistics.median(ratios) if ratios else None
    mine, theirs = statistics.median(ours), statistics.median(peer)
    if row.at_most is not None:
        goal, met = f"<= {row.at_most:g} {row.unit}", mine <= row.at_most
    else:
        goal, met = row.goal, None if row.goal is None else ratio is not None and ratio >= row.goal
    return {
        "work": row.work,
        "ours": significant(mine),
        "peer": significant(theirs),
        "ratio": None if ratio is None else significant(ratio),
        "goal": goal,
        "unit": row.unit,
        "met": met,
    }


def significant(value: float) -> float:
    return float(f"{value:.4g}")


class Stopwatch:
    """Seconds of this process's processor time since it was made, or since `lap` was last asked."""

    def __init__(self) -> None:
        self._since = time.process_time()

    def lap(self) -> float:
        now = time.process_time()
        passed, self._since = now - self._since, now
        return passed


def resident() -> float:
    """Bytes of this process."""
    return float(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))


def serve(field: Field) -> None:
    """A worker: a contender's name a line in, its numbers a line out, on a stdout that the libraries cannot print to."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    made: dict[str, Measure] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in made:
            made[name] = field.contenders[name].make()
        print(json.dumps(made[name]()), file=answers, flush=True)


class Worker:
    """A process of one side that serves a field of the benchmarks, until the end of the `with`."""

    def __init__(self, field: str, side: Side) -> None:
        if not PYTHON[side].exists():
            raise SystemExit(f"bench: {PYTHON[side].relative_to(ROOT)} is missing; `make bench` makes it")
        self._process = subprocess.Popen(
            [str(PYTHON[side]), "-m", "benchmarks.run", "--worker", field],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(THREADS, "1")},
            cwd=ROOT,
        )

    def ask(self, name: str) -> Numbers:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(name, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"bench: {name!r} ended its worker with code {self._process.wait()}")
        numbers: Numbers = json.loads(answer)
        return numbers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@contextmanager
def workers(field: str) -> Iterator[dict[Side, Worker]]:
    with ExitStack() as stack:
        yield {"ours": stack.enter_context(Worker(field, "ours")), "peers": stack.enter_context(Worker(field, "peers"))}


def take_turns(name: str, field: Field, *, rounds: int | None = None) -> Rounds:
    """Every contender's numbers of each round. What is measured more than once first has a round that does not count."""
    measured: Rounds = {contender: [] for contender in field.contenders}
    with workers(name) as ask:
        for turn in range((rounds or field.rounds) + 1):
            for contender, spec in field.contenders.items():
                if spec.once and turn != 1:
                    continue
                numbers = ask[spec.side].ask(contender)
                if turn:
                    measured[contender].append(numbers)
    return measured
