"""How Lambda hands a shard's records to a function: in order, a batch at a time, until each is done with or given up.

Promises, as AWS's: a batch that fails holds up what comes after it; a reported failure is the place to resume at, and what lies before it
is done; a batch that fails from its first record on is halved where the mapping says so, which counts as no retry; after the retries, or
when a record is too old, a batch is given up and told to the mapping's destination. `done` is called in order, and what is done is never
delivered again. Pure but for the functions that are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

FOREVER = -1
#: Of one invocation's event, in bytes of base64; Lambda's own limit is 6 MB.
PAYLOAD = 6_000_000
Condition = Literal["RetryAttemptsExhausted", "RecordAgeExceeded"]
Record = dict[str, Any]
Answer = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class MappingRules:
    """What an event source mapping says; FOREVER for a limit that is none."""

    batch_size: int = 100
    window_seconds: float = 0.0
    reports_failures: bool = False
    bisects: bool = False
    retries: int = FOREVER
    max_age_seconds: float = FOREVER

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> MappingRules:
        """The rules of a mapping as CreateEventSourceMapping has it; CloudFormation's texts for numbers and truths are read as well."""
        return cls(
            batch_size=int(mapping.get("BatchSize", 100)),
            window_seconds=float(mapping.get("MaximumBatchingWindowInSeconds", 0)),
            reports_failures="ReportBatchItemFailures" in (mapping.get("FunctionResponseTypes") or ()),
            bisects=str(mapping.get("BisectBatchOnFunctionError", False)).lower() == "true",
            retries=int(mapping.get("MaximumRetryAttempts", FOREVER)),
            max_age_seconds=float(mapping.get("MaximumRecordAgeInSeconds", FOREVER)),
        )

    def batch(self, waiting: Sequence[Record], *, now: float, flush: bool = False) -> Sequence[Record]:
        """What of the records `waiting` goes out at `now` (seconds since 1970): nothing before the window's end or a full batch."""
        taken, size = 0, 0
        for record in waiting[: self.batch_size]:
            size += len(record["Data"])
            if taken and size > PAYLOAD:
                break
            taken += 1
        full = taken < len(waiting) or taken == self.batch_size
        if full or flush or (taken and now - waiting[0]["ApproximateArrivalTimestamp"] >= self.window_seconds):
            return waiting[:taken]
        return ()


@dataclass(frozen=True, kw_only=True)
class _Part:
    records: Sequence[Record]
    failed: int = 0


def deliver(
    batch: Sequence[Record],
    *,
    rules: MappingRules,
    invoke: Callable[[Sequence[Record]], Answer | None],
    give_up: Callable[[Sequence[Record], Condition, int], None],
    done: Callable[[str], None],
    now: Callable[[], float],
    pause: Callable[[int], None],
) -> None:
    """Deliver one batch to its end.

    `invoke` returns the function's answer, None if it failed; `give_up` gets the records, why, and how often they were tried; `done` the
    last sequence number that needs nothing more; `pause` waits after that many failures in a row.
    """
    parts = [_Part(records=batch)]
    while parts:
        part = parts.pop(0)
        old, young = _by_age(part.records, rules=rules, now=now())
        if old:
            give_up(old, "RecordAgeExceeded", part.failed)
            done(old[-1]["SequenceNumber"])
        if not young:
            continue
        resume = _first_failed(invoke(young), young, rules=rules)
        if resume > 0:
            done(young[resume - 1]["SequenceNumber"])
        if resume < len(young):
            parts[:0] = _after_failure(young, resume, part.failed, rules=rules, give_up=give_up, done=done, pause=pause)


def _by_age(records: Sequence[Record], *, rules: MappingRules, now: float) -> tuple[Sequence[Record], Sequence[Record]]:
    if rules.max_age_seconds == FOREVER:
        return (), records
    old = sum(now - record["ApproximateArrivalTimestamp"] > rules.max_age_seconds for record in records)
    return records[:old], records[old:]


def _first_failed(answer: Answer | None, records: Sequence[Record], *, rules: MappingRules) -> int:
    """Where the batch is to be resumed, its length if nowhere. An answer that names no record of the batch is a failure of all of it."""
    if answer is None:
        return 0
    if not rules.reports_failures:
        return len(records)
    places = {record["SequenceNumber"]: place for place, record in enumerate(records)}
    failures = answer.get("batchItemFailures") or ()
    return min((places.get(item.get("itemIdentifier"), 0) for item in failures), default=len(records))


def _after_failure(
    records: Sequence[Record],
    resume: int,
    failed: int,
    *,
    rules: MappingRules,
    give_up: Callable[[Sequence[Record], Condition, int], None],
    done: Callable[[str], None],
    pause: Callable[[int], None],
) -> Iterator[_Part]:
    """What is to be delivered next, in order."""
    if resume > 0:
        return iter([_Part(records=records[resume:])])
    if rules.bisects and len(records) > 1:
        half = len(records) // 2
        return iter([_Part(records=records[:half], failed=failed), _Part(records=records[half:], failed=failed)])
    if rules.retries != FOREVER and failed >= rules.retries:
        give_up(records, "RetryAttemptsExhausted", failed + 1)
        done(records[-1]["SequenceNumber"])
        return iter(())
    pause(failed + 1)
    return iter([_Part(records=records, failed=failed + 1)])
