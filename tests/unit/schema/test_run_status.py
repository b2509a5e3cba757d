"""What a run's events come to: half a line is no event, silence is loss, and a chart gets few points."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from schema.exchange_time import iso
from schema.lake_layout import run_events_key
from schema.runs.events import Alive, AnyRunEvent, FoldTrained, Progressed, ResultMade, RunState, StateChanged
from schema.runs.request import RunRequest, new_run_id
from schema.runs.status import CURVE_POINTS, RunEventsError, events_of, later, line_of, objects_after, state_of, thinned

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def state(sequence: int, word: RunState, *, ago: float = 0, message: str = "") -> StateChanged:
    return StateChanged(sequence=sequence, at=iso(NOW - timedelta(seconds=ago)), state=word, message=message)


def progress(sequence: int, timesteps: int, *, seed: int = 0, fold: int = 0, left: float | None = None) -> Progressed:
    return Progressed(
        sequence=sequence, at=iso(NOW), phase="ppo", seed=seed, fold=fold, folds=2, timesteps=timesteps, of=1000, seconds_left=left
    )


def test_a_line_that_was_cut_off_is_not_there_yet() -> None:
    body = line_of(state(0, "running")) + line_of(Alive(sequence=1, at=iso(NOW)))
    assert [event.sequence for event in events_of(body + b'{"kind":"ali', source="x")] == [0, 1]
    assert [event.sequence for event in events_of(body[:-1], source="x")] == [0]
    assert events_of(b"", source="x") == ()


def test_a_whole_line_that_is_no_event_is_refused_with_its_object() -> None:
    with pytest.raises(RunEventsError, match=r"runs/a/events/0\.jsonl: holds a line that is no event"):
        events_of(b'{"kind":"dance","sequence":0}\n', source="runs/a/events/0.jsonl")


def test_a_reader_opens_only_the_objects_that_may_hold_what_it_has_not_seen() -> None:
    keys = [run_events_key("20261122t120000-ab", first) for first in (0, 256, 300)]
    assert objects_after(keys, -1) == keys
    assert objects_after(keys, 254) == keys
    assert objects_after(keys, 255) == keys[1:]
    assert objects_after(keys[::-1], 9999) == keys[2:]
    assert objects_after([], -1) == []


def test_a_run_without_a_word_is_queued_and_one_that_fell_silent_is_lost() -> None:
    assert state_of([], now=NOW).state == "queued"
    assert state_of([state(0, "running", ago=59)], now=NOW).state == "running"
    lost = state_of([state(0, "running", ago=61)], now=NOW)
    assert (lost.state, lost.ended) == ("lost", True)
    assert "it can be started again" in lost.message
    assert state_of([state(0, "running", ago=61), Alive(sequence=1, at=iso(NOW))], now=NOW).state == "running"
    assert state_of([state(0, "finished", ago=9999)], now=NOW).state == "finished"


def test_the_status_holds_the_newest_of_each_and_what_failed() -> None:
    events: list[AnyRunEvent] = [state(0, "running"), progress(1, 100), progress(2, 100, seed=1, left=9.0), progress(3, 200, left=7.0)]
    found = state_of(events, now=NOW, stop_asked=True)
    assert [(point.seed, point.timesteps) for point in found.latest] == [(0, 200), (1, 100)]
    assert (found.sequence, found.seconds_left, found.stopping) == (3, 7.0, True)
    made = ResultMade(sequence=5, at=iso(NOW), name="page.html", bytes=3)
    events += [FoldTrained(sequence=4, at=iso(NOW), seed=0, fold=0, folds=2), made, made.model_copy(update={"sequence": 6, "bytes": 4})]
    ended = state_of([*events, state(7, "failed", message="no bars")], now=NOW)
    assert (ended.state, ended.message, len(ended.trained)) == ("failed", "no bars", 1)
    assert [result.bytes for result in ended.results] == [4]
    assert [event.sequence for event in later(events, 4)] == [5, 6]


def test_a_fold_that_began_again_begins_its_curve_again() -> None:
    steps = [100, 200, 300, 200, 300, 400]
    found = state_of([progress(number, of) for number, of in enumerate(steps)], now=NOW)
    assert [point.timesteps for point in found.curve] == [100, 200, 300, 400]
    assert [point.sequence for point in found.curve] == [0, 3, 4, 5]


def test_a_chart_gets_few_points_and_always_the_last() -> None:
    points = [progress(number, number) for number in range(1, 1001)]
    few = thinned(points)
    assert len(few) == CURVE_POINTS
    assert few[-1] is points[-1]
    assert thinned(points[:5]) == points[:5]


def test_ids_sort_by_time() -> None:
    first, second = new_run_id(NOW, token="zz9"), new_run_id(NOW + timedelta(seconds=1), token="aa0")
    assert first < second
    request = {"kind": "inspect", "by": "ann", "requested_at": iso(NOW), "bars": {"source": "bundled"}}
    assert RunRequest.model_validate({"id": first, **request}).id == first
