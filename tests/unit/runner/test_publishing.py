"""What cannot be sent is sent again, first and in order; what is given up is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber

from runner import publishing
from runner.publishing import Outbox
from runner.sinks import DeliveryStream, EventBus, Line, Shard
from schema.realtime.events import FeedResumed, MarketEvent

AT = datetime(2020, 1, 2, 14, 30, tzinfo=UTC)
KEYS = {"region_name": "us-east-1", "aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
LINES = [Line("SPY", f"{number}\n".encode()) for number in range(5)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(publishing, "LONGEST_PAUSE", 0.002)


def event(number: int) -> MarketEvent:
    return FeedResumed(at=AT + timedelta(seconds=number), received_at=AT, feed="orders", seconds=number)


def sent_through(sink: Any, entries: Sequence[Any], *, capacity: int = 1000, drain: float = 5.0) -> Outbox[Any]:
    async def through() -> Outbox[Any]:
        box: Outbox[Any] = Outbox(sink, name="test", capacity=capacity)
        for entry in entries:
            box.put(entry)
        running = asyncio.create_task(box.run())
        await box.drain(seconds=drain)
        running.cancel()
        return box

    return asyncio.run(through())


def records_of(lines: Sequence[Line], *, keyed: bool) -> list[dict[str, Any]]:
    return [{"Data": line.data, **({"PartitionKey": line.symbol} if keyed else {})} for line in lines]


def test_a_delivery_streams_partial_failure_is_sent_again_in_order() -> None:
    client = boto3.client("firehose", **KEYS)
    failed, good = {"ErrorCode": "ServiceUnavailableException", "ErrorMessage": "slow down"}, {"RecordId": "1"}
    with Stubber(client) as stub:
        for lines, answers in ((LINES, [good, failed, good, failed, good]), ([LINES[1], LINES[3]], [failed, good]), ([LINES[1]], [good])):
            expected = {"DeliveryStreamName": "quotes", "Records": records_of(lines, keyed=False)}
            count = sum(answer is failed for answer in answers)
            stub.add_response("put_record_batch", {"FailedPutCount": count, "RequestResponses": answers}, expected)
        box = sent_through(DeliveryStream("quotes", client), LINES)
        stub.assert_no_pending_responses()
    assert (box.sent, box.lost, box.waiting) == (5, 0, 0)


def test_a_shards_partial_failure_is_sent_again_before_what_came_later() -> None:
    client = boto3.client("kinesis", **KEYS)
    failed = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "too much"}
    good = {"SequenceNumber": "1", "ShardId": "s"}
    with Stubber(client) as stub:
        for lines, answers in ((LINES[:3], [good, failed, good]), ([LINES[1], *LINES[3:]], [good, good, good])):
            expected = {"StreamName": "quotes", "Records": records_of(lines, keyed=True)}
            stub.add_response("put_records", {"Records": answers}, expected)
        box = sent_through(Shard("quotes", client, most=3), LINES)
        stub.assert_no_pending_responses()
    assert (box.sent, box.lost) == (5, 0)


def test_events_go_ten_a_call_with_their_type_and_time_and_again_if_turned_down() -> None:
    client = boto3.client("events", **KEYS)
    given = [event(number) for number in range(12)]

    def body(one: MarketEvent) -> dict[str, Any]:
        content = {"EventBusName": "bus", "Source": "papertape.runner", "DetailType": "feed resumed"}
        return {**content, "Detail": one.model_dump_json(), "Time": one.at}

    with Stubber(client) as stub:
        answers = [{"EventId": "1"}] * 9 + [{"ErrorCode": "ThrottlingException", "ErrorMessage": "slow"}]
        stub.add_response("put_events", {"FailedEntryCount": 1, "Entries": answers}, {"Entries": [body(one) for one in given[:10]]})
        stub.add_response("put_events", {"FailedEntryCount": 0, "Entries": [{}] * 3}, {"Entries": [body(one) for one in given[9:]]})
        box = sent_through(EventBus("bus", client), given)
        stub.assert_no_pending_responses()
    assert (box.sent, box.lost) == (12, 0)


def test_a_call_that_fails_as_a_whole_is_made_again() -> None:
    client = boto3.client("kinesis", **KEYS)
    with Stubber(client) as stub:
        stub.add_client_error("put_records", "InternalFailure", http_status_code=500)
        stub.add_response("put_records", {"Records": [{"SequenceNumber": "1", "ShardId": "s"}] * 5})
        box = sent_through(Shard("quotes", client), LINES)
    assert (box.sent, box.lost) == (5, 0)


class Unreachable:
    most = 10
    parallel = 1

    def send(self, _entries: Sequence[Line]) -> list[int]:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


class TurnsDown:
    most = 10
    parallel = 1

    def __init__(self, bad: Callable[[Line], bool]) -> None:
        self.bad, self.kept = bad, list[Line]()

    def send(self, entries: Sequence[Line]) -> list[int]:
        self.kept += [one for one in entries if not self.bad(one)]
        return [position for position, one in enumerate(entries) if self.bad(one)]


def test_what_a_full_queue_and_the_end_lose_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    box = sent_through(Unreachable(), LINES, capacity=3, drain=0.05)
    assert (box.sent, box.lost) == (0, 5)
    assert "lost" in [record.message for record in caplog.records if record.levelname == "ERROR"]


def test_an_entry_that_is_always_turned_down_is_given_up_and_holds_nothing_up() -> None:
    sink = TurnsDown(lambda line: line.data == b"2\n")
    box = sent_through(sink, LINES)
    assert sink.kept == [LINES[0], LINES[1], LINES[3], LINES[4]]
    assert (box.sent, box.lost, box.waiting) == (4, 1, 0)


class TakesSoManyPerSecond:
    """A shard's limit: so many entries per second since the first call; the others of a batch are turned down. A call takes a moment."""

    most = 500
    parallel = 1

    def __init__(self, rate: float) -> None:
        self.rate, self.began, self.kept = rate, monotonic(), list[Line]()

    def send(self, entries: Sequence[Line]) -> list[int]:
        sleep(0.005)
        room = int(self.rate * (monotonic() - self.began)) - len(self.kept)
        self.kept += entries[: max(room, 0)]
        return list(range(min(max(room, 0), len(entries)), len(entries)))


def test_what_waits_for_a_shards_limit_is_sent_in_order_and_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(publishing, "LONGEST_PAUSE", 0.1)
    sink, lines = TakesSoManyPerSecond(1500), [Line("SPY", f"{number}\n".encode()) for number in range(400)]
    box = sent_through(sink, lines, drain=60.0)
    assert (box.sent, box.lost) == (400, 0)
    assert sink.kept == lines
