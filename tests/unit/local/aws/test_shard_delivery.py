"""A shard's delivery as Lambda promises it, case by case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from local.aws.services.shard_delivery import FOREVER, MappingRules, Record, deliver

NOW = 1_000_000.0


def records(count: int, *, age: float = 1.0, size: int = 10) -> list[Record]:
    return [{"SequenceNumber": f"{n:03d}", "ApproximateArrivalTimestamp": NOW - age, "Data": "x" * size} for n in range(1, count + 1)]


@dataclass
class Run:
    """One delivery, written down."""

    calls: list[str] = field(default_factory=list)
    given_up: list[tuple[str, str, int]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    pauses: list[int] = field(default_factory=list)


def span(batch: Sequence[Record]) -> str:
    return f"{batch[0]['SequenceNumber']}-{batch[-1]['SequenceNumber']}"


def run(batch: Sequence[Record], answer: Callable[[Sequence[Record]], Any], **rules: Any) -> Run:
    """Deliver `batch` to a function that answers `answer(records)`; the numbers below 100 that fail are its business."""
    found = Run()

    def invoke(part: Sequence[Record]) -> Any:
        found.calls.append(span(part))
        return answer(part)

    deliver(
        batch,
        rules=MappingRules(**{"reports_failures": True, **rules}),
        invoke=invoke,
        give_up=lambda part, condition, tried: found.given_up.append((span(part), condition, tried)),
        done=found.done.append,
        now=lambda: NOW,
        pause=found.pauses.append,
    )
    return found


def reporting(*numbers: str) -> Callable[[Sequence[Record]], Any]:
    """A function that reports these records whenever they come."""

    def answer(part: Sequence[Record]) -> Any:
        return {"batchItemFailures": [{"itemIdentifier": n} for one in part if (n := one["SequenceNumber"]) in numbers]}

    return answer


@pytest.mark.parametrize("answer", [{}, {"batchItemFailures": []}, {"batchItemFailures": None}])
def test_what_succeeds_is_done_in_one_call(answer: dict[str, Any]) -> None:
    found = run(records(5), lambda _: answer)
    assert (found.calls, found.done, found.given_up) == (["001-005"], ["005"], [])


def test_a_reported_failure_is_resumed_at_and_never_lost() -> None:
    tries = iter([reporting("003", "005"), reporting("003"), reporting()])
    found = run(records(5), lambda part: next(tries)(part))
    assert found.calls == ["001-005", "003-005", "003-005"]
    assert found.done == ["002", "005"]


def test_a_mapping_that_does_not_ask_for_reports_ignores_them() -> None:
    assert run(records(3), reporting("002"), reports_failures=False).calls == ["001-003"]


@pytest.mark.parametrize("strange", ["", "999", None])
def test_an_answer_that_names_no_record_fails_the_whole_batch(strange: str | None) -> None:
    tries = iter([{"batchItemFailures": [{"itemIdentifier": strange}]}, {}])
    assert run(records(3), lambda _: next(tries)).calls == ["001-003", "001-003"]


def test_halving_finds_the_poison_and_the_rest_arrive_in_order() -> None:
    def crashes(part: Sequence[Record]) -> Any:
        return None if any(one["SequenceNumber"] == "006" for one in part) else {}

    found = run(records(8), crashes, bisects=True, retries=1)
    assert found.calls == ["001-008", "001-004", "005-008", "005-006", "005-005", "006-006", "006-006", "007-008"]
    assert found.given_up == [("006-006", "RetryAttemptsExhausted", 2)]
    assert found.done == ["004", "005", "006", "008"]
    assert found.pauses == [1], "halving is no retry"


def test_without_halving_the_whole_batch_is_given_up() -> None:
    found = run(records(4), lambda _: None, retries=2)
    assert (len(found.calls), found.given_up, found.done) == (3, [("001-004", "RetryAttemptsExhausted", 3)], ["004"])


def test_what_is_too_old_is_given_up_without_a_call() -> None:
    old, young = records(2, age=100.0), records(4)[2:]
    found = run([*old, *young], lambda _: {}, max_age_seconds=60.0)
    assert (found.calls, found.given_up, found.done) == (["003-004"], [("001-002", "RecordAgeExceeded", 0)], ["002", "004"])


def test_a_batch_goes_out_when_it_is_full_or_its_window_has_passed() -> None:
    rules = MappingRules(batch_size=3, window_seconds=60.0)
    assert not rules.batch(records(2), now=NOW)
    assert len(rules.batch(records(2), now=NOW, flush=True)) == 2
    assert len(rules.batch(records(2, age=60.0), now=NOW)) == 2
    assert len(rules.batch(records(3), now=NOW)) == 3
    assert len(rules.batch(records(7), now=NOW)) == 3
    assert not rules.batch([], now=NOW, flush=True)


def test_an_event_has_at_most_six_megabytes() -> None:
    rules = MappingRules(batch_size=100, window_seconds=60.0)
    assert len(rules.batch(records(5, size=2_500_000), now=NOW)) == 2
    assert len(rules.batch(records(2, size=7_000_000), now=NOW)) == 1, "one goes out whatever its size"


def test_a_mapping_is_read_as_it_was_deployed() -> None:
    mapping = {
        "BatchSize": 10_000, "MaximumBatchingWindowInSeconds": 60, "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "BisectBatchOnFunctionError": "true", "MaximumRetryAttempts": 0, "MaximumRecordAgeInSeconds": "3600",
    }  # fmt: skip
    assert MappingRules.of(mapping) == MappingRules(
        batch_size=10_000, window_seconds=60.0, reports_failures=True, bisects=True, retries=0, max_age_seconds=3600.0
    )
    assert MappingRules.of({}) == MappingRules(retries=FOREVER)
