"""What a run says of itself: one JSON object per line, in order, in `lake_layout.run_events_key`. Pages, API and command line read these
and nothing else, on AWS and on the laptop alike.

`at` is the wall clock of the machine that ran, for people; nothing is computed from it but whether a run is still alive. Numbers that a
rollout did not have yet are None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from schema.news import Moment
from schema.runs.request import NumberForm, RunDocument

#: A run is queued until it is running; it ends stopped (resumable), failed, or finished. `lost` is never written: it is what a reader calls
#: a run whose last sign of life is older than `LOST_AFTER_SECONDS`; it can be resumed as a stopped one.
RunState = Literal["queued", "running", "stopped", "failed", "finished"]
ALIVE_EVERY_SECONDS = 5.0
LOST_AFTER_SECONDS = 60.0


class RunEvent(RunDocument):
    """`sequence` counts from 0 over the whole run, resumptions included."""

    sequence: Annotated[int, Field(ge=0)]
    at: Moment


class StateChanged(RunEvent):
    """`message`: for a failed run what was wrong and what to do, one line."""

    kind: Literal["state"] = "state"
    state: RunState
    message: str = ""


class Alive(RunEvent):
    """A sign of life between others."""

    kind: Literal["alive"] = "alive"


class Progressed(RunEvent):
    """Where one seed is in one fold: `timesteps` of `of`, and what its last rollout measured. `phase`: "ppo", "direct" or "q-learning"
    (what `timesteps` count). `reward`: of the rollout's episodes on average; `excess`: their log growth over equal weight per session."""

    kind: Literal["progress"] = "progress"
    phase: str
    seed: int
    fold: int
    folds: int
    timesteps: int
    of: int
    reward: float | None = None
    excess: float | None = None
    value_loss: float | None = None
    entropy: float | None = None
    explained_variance: float | None = None
    kl: float | None = None
    steps_per_second: float | None = None
    seconds_left: float | None = None


class FoldTrained(RunEvent):
    """A seed has finished a fold."""

    kind: Literal["fold"] = "fold"
    seed: int
    fold: int
    folds: int


class Judged(RunEvent):
    """The verdict of the gate over the whole evaluation, which is `results/evaluation.json`."""

    kind: Literal["verdict"] = "verdict"
    passed: bool
    reasons: tuple[str, ...]
    metrics: Mapping[str, float | None] = Field(default_factory=dict)


class Inspected(RunEvent):
    """What an uploaded file holds: `columns` as proposed (column -> role), what was read otherwise than written, and the first rows as
    text. `forms`: how the numbers of a column seem to be written, of those that are not plain; `doubtful`: columns whose numbers can be
    read in two ways. `problem`: why it cannot be used as it is, with row and reason; None if it can."""

    kind: Literal["inspected"] = "inspected"
    columns: Mapping[str, str]
    unmapped: tuple[str, ...] = ()
    forms: Mapping[str, NumberForm] = Field(default_factory=dict)
    doubtful: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    rows: int = 0
    first: str = ""
    last: str = ""
    remarks: tuple[str, ...] = ()
    preview: tuple[tuple[str, ...], ...] = ()
    problem: str | None = None


class ResultMade(RunEvent):
    """A file below `results/`: `evaluation.json`, `page.html`, `model.tar.gz`, `backtest.json`, `q-table.json`."""

    kind: Literal["result"] = "result"
    name: str
    bytes: int
    details: Mapping[str, Any] = Field(default_factory=dict)


AnyRunEvent = StateChanged | Alive | Progressed | FoldTrained | Judged | Inspected | ResultMade
RUN_EVENT: TypeAdapter[AnyRunEvent] = TypeAdapter(Annotated[AnyRunEvent, Field(discriminator="kind")])
