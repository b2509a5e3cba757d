"""Runs as the training room and the simulation show them: view models, the words for a state, and what may be asked for.

Promise: the state is what the run's own events come to (`schema.runs.status`), with one exception: a run that was asked to go on is queued
until its worker says more. Failure: pydantic's `ValidationError`, which names the field, for what cannot be asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

import boto3
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from botocore.config import Config
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from lambdas.common.lake.lake import LakeError
from lambdas.common.lake.runs import RunFolder
from lambdas.common.telemetry import logger
from lambdas.dashboard.request import PageRequest
from schema.exchange_time import parse_utc
from schema.runs.events import AnyRunEvent, StateChanged
from schema.runs.request import (
    RUN_ID,
    BacktestOf,
    BundledBars,
    RunDocument,
    RunId,
    RunKind,
    RunRequest,
    UploadedBars,
)
from schema.runs.status import RunEventsError, RunStatus, state_of
from schema.settings import Settings, Symbol

#: What a request may change, and the sections that it may change it in.
SECTIONS = ("universe", "training", "reward", "costs", "portfolio", "features")
PAGE = 20
MOST_TEXT = 100_000  # characters; an item of the ledger holds 400 kB
WORDS = {
    "queued": "waits to be started",
    "running": "",
    "stopped": "can go on where it was",
    "lost": "can go on where it was",
    "failed": "can be tried again",
    "finished": "",
}
RESUMABLE = ("stopped", "lost", "failed")


class InspectedBars(RunDocument):
    """The upload that an inspection has read, with the columns as it shows them."""

    source: Literal["inspection"] = "inspection"
    run: RunId
    adjusted: bool = False


def _listed_names(value: object) -> object:
    """A form has them in one field, with commas."""
    return [one.strip().upper() for one in value.split(",") if one.strip()] if isinstance(value, str) else value


class RunOrder(RunDocument):
    """What is asked for. `seeds`: how many, 0, 1, 2, ...; `settings`: what differs from the deployed ones, section by section."""

    kind: RunKind
    title: Annotated[str, Field(max_length=120)] = ""
    bars: Annotated[BundledBars | UploadedBars | InspectedBars, Field(discriminator="source")] = BundledBars()
    settings: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    seeds: Annotated[int, Field(ge=1, le=32)] | None = None
    symbols: Annotated[tuple[Symbol, ...], Field(max_length=500), BeforeValidator(_listed_names)] = ()
    backtest: BacktestOf | None = None

    @model_validator(mode="after")
    def _fits_the_ledger(self) -> Self:
        size = len(json.dumps(self.model_dump(mode="json")))
        if size > MOST_TEXT:
            raise ValueError(f"a request may have {MOST_TEXT:,} characters, had {size:,}")
        return self


class RunView(BaseModel):
    """A line of the list. `state_words`: the state for people; `timesteps` of `of`: the newest progress."""

    id: str
    kind: RunKind
    title: str
    by: str
    requested_at: str
    bars: str
    algorithm: str
    state: str
    state_words: str
    message: str = ""
    share: float | None = None


class RunsView(BaseModel):
    """Newest first; `cursor` continues the list, None at its end."""

    runs: tuple[RunView, ...]
    cursor: str | None


class RunDetail(BaseModel):
    """`events_after`: the sequence number from which `events` continue what `status` holds."""

    run: RunView
    request: RunRequest
    status: RunStatus
    events_after: int


class EventsView(BaseModel):
    """Events later than what was asked for, in order; ask again from `last`, unless the run has `ended`."""

    events: tuple[dict[str, Any], ...]
    last: int
    state: str
    message: str
    ended: bool


@lru_cache(maxsize=4)
def folder_of(bucket: str) -> RunFolder:
    """The runs in `bucket`; one per process, which remembers what changes no more. Its links are signed by version 4, which binds the size
    of an upload and which every region takes."""
    config = Config(signature_version="s3v4", connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    return RunFolder(s3=boto3.client("s3", config=config), bucket=bucket)


def folder(request: PageRequest) -> RunFolder:
    return folder_of(request.variables.processed_bucket)


def refuse(field: str, value: Any, allowed: str) -> ValidationError:
    """What a 422 says of one field of a body."""
    problem = InitErrorDetails(
        type=PydanticCustomError("not_allowed", "{allowed}", {"allowed": allowed}), loc=tuple(field.split(".")), input=value
    )
    return ValidationError.from_exception_data("RunOrder", [problem])


def request_of(runs: RunFolder, run_id: str) -> RunRequest:
    """Raises NotFoundError for a run that nobody has asked for."""
    found = runs.request(run_id) if RUN_ID.fullmatch(run_id) else None
    if found is None:
        raise NotFoundError(f"there is no run {run_id}")
    return found


def detail(request: PageRequest, run_id: str) -> RunDetail:
    runs = folder(request)
    asked = request_of(runs, run_id)
    status = status_of(runs, run_id, now=parse_utc(request.now))
    return RunDetail(run=view_of(asked, status, request.settings), request=asked, status=status, events_after=status.sequence)


def listed(
    request: PageRequest, *, before: str = "", kinds: Sequence[RunKind] = ("train", "backtest", "inspect"), limit: int = PAGE
) -> RunsView:
    """A page of the list: of each run its request and the newest of its events. One that cannot be read is logged, and left out."""
    runs, now = folder(request), parse_utc(request.now)
    found: list[RunView] = []
    ids = runs.runs(limit=200, before=before)
    for place, run_id in enumerate(ids):
        try:
            asked = runs.request(run_id)
            if asked is None or asked.kind not in kinds:
                continue
            found.append(view_of(asked, newest_status(runs, run_id, now=now), request.settings))
        except (LakeError, RunEventsError) as error:
            logger.error("a run cannot be read", extra={"run": run_id, "error": str(error)})
            continue
        if len(found) == limit:
            return RunsView(runs=tuple(found), cursor=run_id if place + 1 < len(ids) else None)
    return RunsView(runs=tuple(found), cursor=ids[-1] if len(ids) == 200 else None)


def status_of(runs: RunFolder, run_id: str, *, now: datetime) -> RunStatus:
    """Of all the run's events."""
    return _asked_again(runs, run_id, runs.status(run_id, now=now))


def newest_status(runs: RunFolder, run_id: str, *, now: datetime) -> RunStatus:
    """As `status_of`, of the newest object of events only: state, message and progress are the run's, the rest is not told."""
    events = runs.newest(run_id)
    if events and not any(isinstance(event, StateChanged) for event in events):
        # What ends a run is its last event: who has said more since runs
        events = [StateChanged(sequence=max(events[0].sequence - 1, 0), at=events[0].at, state="running"), *events]
    return _asked_again(runs, run_id, state_of(events, now=now, stop_asked=runs.stop_asked(run_id)))


def _asked_again(runs: RunFolder, run_id: str, status: RunStatus) -> RunStatus:
    if status.state not in RESUMABLE or runs.resumed_after(run_id) != status.sequence:
        return status
    return status.model_copy(update={"state": "queued", "message": "waits to go on where it was"})


def view_of(asked: RunRequest, status: RunStatus, settings: Settings) -> RunView:
    return RunView(
        id=asked.id,
        kind=asked.kind,
        title=asked.title or asked.id,
        by=asked.by,
        requested_at=asked.requested_at,
        bars="bundled" if isinstance(asked.bars, BundledBars) else asked.bars.name,
        algorithm=str(asked.settings.get("training", {}).get("algorithm", settings.training.algorithm)) if asked.kind == "train" else "",
        state="stopping" if status.stopping else status.state,
        state_words="stops where it can go on" if status.stopping else WORDS[status.state],
        message=status.message,
        share=_share(asked, status, settings),
    )


def _share(asked: RunRequest, status: RunStatus, settings: Settings) -> float | None:
    """How much of a training is done, by what its folds and seeds have counted; None before the first word."""
    if status.state == "finished":
        return 1.0
    if asked.kind != "train" or not status.latest:
        return None
    seeds = len(asked.settings.get("training", {}).get("seeds", settings.training.seeds))
    whole = max(status.latest[-1].folds * seeds, 1)
    done = {(one.seed, one.fold) for one in status.trained}
    begun = sum(one.timesteps / one.of for one in status.latest if (one.seed, one.fold) not in done and one.of)
    return min((len(done) + begun) / whole, 1.0)


def later_events(request: PageRequest, run_id: str, *, after: int) -> EventsView:
    runs = folder(request)
    request_of(runs, run_id)
    events: list[AnyRunEvent] = runs.events(run_id, after=after)
    status = newest_status(runs, run_id, now=parse_utc(request.now))
    return EventsView(
        events=tuple(event.model_dump(mode="json") for event in events if event.kind != "alive"),
        last=events[-1].sequence if events else after,
        state="stopping" if status.stopping else status.state,
        message=status.message,
        ended=status.ended,
    )
