"""A run's events read back, and what they come to: the one fold that pages, API and command line share. Pure.

Promise: only complete lines are events, so what a writer was cut off in is not there yet. The state is what the run last said of itself,
and `lost` once a running one has been silent for `LOST_AFTER_SECONDS`; nothing else is read from a clock.
Failure: `RunEventsError` for a complete line that is no event, with the object that holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from pydantic import ValidationError

from schema.exchange_time import parse_utc
from schema.runs.events import (
    LOST_AFTER_SECONDS,
    RUN_EVENT,
    AnyRunEvent,
    FoldTrained,
    Inspected,
    Judged,
    Progressed,
    ResultMade,
    RunState,
    StateChanged,
)
from schema.runs.request import RunDocument
from trading_env.errors import PapertapeError

ReportedState = RunState | Literal["lost"]
#: Points of one seed's curve in one fold that a chart is given, the last one always among them.
CURVE_POINTS = 120


class RunEventsError(PapertapeError, ValueError):
    """An object of a run's events holds a line that is none."""


class RunStatus(RunDocument):
    """Where a run is.

    `sequence`: that of its last event, -1 before the first; what a reader that wants the later ones asks for. `started`: when it first ran,
    `heard`: its last sign of life. `latest`: of each seed and fold the newest progress; `trained`: the folds that are done. `curve`: the
    progress so far, thinned. `results`: the files below `results/`, the newest of each name.
    """

    state: ReportedState = "queued"
    message: str = ""
    stopping: bool = False
    sequence: int = -1
    started: str | None = None
    heard: str | None = None
    seconds_left: float | None = None
    latest: tuple[Progressed, ...] = ()
    trained: tuple[FoldTrained, ...] = ()
    verdict: Judged | None = None
    inspected: Inspected | None = None
    results: tuple[ResultMade, ...] = ()
    curve: tuple[Progressed, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing more comes unless it is started again."""
        return self.state not in ("queued", "running")


def events_of(body: bytes, *, source: str) -> tuple[AnyRunEvent, ...]:
    """The events of one object, whose name is `source`."""
    whole, newline, _ = body.rpartition(b"\n")
    lines = (line for line in (whole + newline).splitlines() if line.strip())
    try:
        return tuple(RUN_EVENT.validate_json(line) for line in lines)
    except ValidationError as error:
        raise RunEventsError(f"{source}: holds a line that is no event of a run ({error.errors()[0]['msg']})") from error


def line_of(event: AnyRunEvent) -> bytes:
    return event.model_dump_json().encode() + b"\n"


def first_of(key: str) -> int:
    """The sequence number that an object of events begins with. Raises ValueError for another key."""
    return int(key.rpartition("/")[2].removesuffix(".jsonl"))


def objects_after(keys: Iterable[str], after: int) -> list[str]:
    """Those objects of events, in order, that may hold one later than sequence number `after`: an object ends where the next begins."""
    ordered = sorted(keys)
    ends = [first_of(key) - 1 for key in ordered[1:]]
    return [key for key, end in zip(ordered, [*ends, None], strict=True) if end is None or end > after] if ordered else []


def later(events: Iterable[AnyRunEvent], after: int) -> list[AnyRunEvent]:
    return [event for event in events if event.sequence > after]


def state_of(events: Sequence[AnyRunEvent], *, now: datetime, stop_asked: bool = False) -> RunStatus:
    """The events of a whole run, in order, folded; `now` is aware."""
    if not events:
        return RunStatus(stopping=stop_asked)
    latest: dict[tuple[int, int], Progressed] = {}
    curves: dict[tuple[int, int], list[Progressed]] = {}
    trained: dict[tuple[int, int], FoldTrained] = {}
    results: dict[str, ResultMade] = {}
    said = StateChanged(sequence=0, at=events[0].at, state="queued")
    started = verdict = inspected = None
    for event in events:
        match event:
            case StateChanged():
                said = event
                started = started or (event.at if event.state == "running" else None)
            case Progressed():
                latest[event.seed, event.fold] = event
                _extend(curves.setdefault((event.seed, event.fold), []), event)
            case FoldTrained():
                trained[event.seed, event.fold] = event
            case ResultMade():
                results[event.name] = event
            case Judged():
                verdict = event
            case Inspected():
                inspected = event
            case _:
                pass
    last = events[-1]
    silent = (now - parse_utc(last.at)).total_seconds()
    running = said.state == "running"
    state: ReportedState = "lost" if running and silent > LOST_AFTER_SECONDS else said.state
    return RunStatus(
        state=state,
        message=f"no sign of life since {last.at}; it can be started again where it was" if state == "lost" else said.message,
        stopping=stop_asked and state in ("queued", "running"),
        sequence=last.sequence,
        started=started,
        heard=last.at,
        seconds_left=_seconds_left(latest.values()) if state == "running" else None,
        latest=tuple(latest.values()),
        trained=tuple(trained.values()),
        verdict=verdict,
        inspected=inspected,
        results=tuple(results.values()),
        curve=tuple(point for curve in curves.values() for point in thinned(curve)),
    )


def thinned(points: Sequence[Progressed], *, most: int = CURVE_POINTS) -> list[Progressed]:
    """At most `most` of them, evenly spaced, the last one among them."""
    if len(points) <= most:
        return list(points)
    step = len(points) / most
    return [points[int((place + 1) * step + 1e-9) - 1] for place in range(most)]


def _extend(curve: list[Progressed], point: Progressed) -> None:
    """A fold that began again after a loss begins its curve again from there."""
    if curve and (curve[-1].phase != point.phase or curve[-1].timesteps >= point.timesteps):
        again = (place for place, one in enumerate(curve) if one.phase == point.phase and one.timesteps >= point.timesteps)
        del curve[next(again, len(curve)) :]
    curve.append(point)


def _seconds_left(latest: Iterable[Progressed]) -> float | None:
    """The newest word on it."""
    said = [event for event in latest if event.seconds_left is not None]
    return max(said, key=lambda event: event.sequence).seconds_left if said else None
