"""The stream's function, over S3 and SQS in process: a shard's batches and a delivery stream's, poison and repeats among them."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import pandas as pd
import pytest
from aws_lambda_powertools.utilities.batch.exceptions import BatchProcessingError

from glue_jobs.files import Bucket
from glue_jobs.quotes_job import build_minute_bars
from lambdas.common.lake.lake import Lake, pack
from lambdas.consume_stream.handler import handler
from lambdas.dashboard.market.quotes import last_quotes
from papertape.market_data import bundled
from schema.exchange_time import iso
from schema.lake_layout import quotes_key, stream_prefix

ARRIVED = datetime(2026, 11, 20, 14, 36, tzinfo=UTC).timestamp()
QUOTE: dict[str, Any] = {
    "symbol": "SPY", "ts": "2026-11-20T14:35:00.123456789Z", "bid": 600.1, "bid_size": 100.0, "ask": 600.2, "ask_size": 200.0,
    "received_at": "2026-11-20T14:35:00.2Z", "feed": "iex", "kind": "quote",
}  # fmt: skip
BAR: dict[str, Any] = {
    "symbol": "SPY", "ts": "2026-11-20T14:35:00Z", "received_at": "2026-11-20T14:36:00Z", "feed": "iex", "kind": "bar", "open": 600.0,
    "high": 601.0, "low": 599.0, "close": 600.5, "volume": 1000.0, "trades": 12, "vwap": 600.3, "bid": 600.1, "ask": 600.2, "quotes": 5,
    "source": "trades", "flaws": ["partial"],
}  # fmt: skip
POISON = {
    "not JSON": (b"\xff{", "Invalid JSON"),
    "no object": (b"[1]", "object"),
    "another kind": (json.dumps({**QUOTE, "kind": "bars/timeframe=1Day/symbol=SPY"}).encode(), "'quote', 'bar'"),
    "no kind": (json.dumps({k: v for k, v in QUOTE.items() if k != "kind"}).encode(), "Unable to extract tag"),
    "a text for a price": (json.dumps({**QUOTE, "bid": "600"}).encode(), "bid: Input should be a valid number"),
    "a price that is none": (json.dumps({**QUOTE, "ask": float("nan")}).encode(), "ask: Input should be a finite number"),
    "a time without its zone": (json.dumps({**QUOTE, "ts": "2026-11-20T14:35:00"}).encode(), "timezone"),
    "a time of another age": (json.dumps({**QUOTE, "ts": "1926-11-20T14:35:00Z"}).encode(), "ts: must be from 2000 to 2099, was 1926"),
    "a field too many": (json.dumps({**QUOTE, "path": "../../models/"}).encode(), "path: Extra inputs"),
    "a megabyte": (json.dumps({**QUOTE, "feed": "x" * 1_000_000}).encode(), "at most 4096 bytes, was 1000"),
}


@pytest.fixture
def raw(buckets: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DEAD_LETTERS_URL", boto3.client("sqs").create_queue(QueueName="dead")["QueueUrl"])
    return str(buckets.raw)


def line(record: dict[str, Any], **changed: Any) -> bytes:
    return json.dumps({**record, **changed}).encode()


def shard(records: Sequence[bytes], *, first: int = 1) -> dict[str, Any]:
    """A batch as Lambda hands it over; sequence numbers of equal length sort as they came."""
    return {
        "Records": [
            {
                "kinesis": {
                    "partitionKey": "SPY",
                    "sequenceNumber": f"{number:056d}",
                    "data": base64.b64encode(data).decode(),
                    "approximateArrivalTimestamp": ARRIVED,
                },
                "eventSource": "aws:kinesis",
                "eventID": f"shardId-000000000000:{number:056d}",
            }
            for number, data in enumerate(records, start=first)
        ]
    }


def delivery(records: Sequence[bytes]) -> dict[str, Any]:
    """A batch as Firehose hands it to a transformation."""
    return {
        "invocationId": "5cafc4b4",
        "records": [
            {"recordId": str(n), "approximateArrivalTimestamp": int(ARRIVED * 1000), "data": base64.b64encode(data).decode()}
            for n, data in enumerate(records)
        ],
    }


def failed(answer: dict[str, Any]) -> list[int]:
    return [int(item["itemIdentifier"]) for item in answer["batchItemFailures"]]


def stored(bucket: str) -> dict[str, list[dict[str, Any]]]:
    """Every object of the raw bucket, key -> lines."""
    client = boto3.client("s3")
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=bucket).get("Contents", ())]
    bodies = {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
    return {key: [json.loads(one) for one in gzip.decompress(body).splitlines()] for key, body in bodies.items()}


def dead_letters() -> Iterator[dict[str, Any]]:
    client = boto3.client("sqs")
    (url,) = client.list_queues()["QueueUrls"]
    while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        yield from (json.loads(one["Body"]) for one in messages)


def test_a_batch_becomes_an_object_per_kind_and_five_minutes(raw: str) -> None:
    later = line(QUOTE, symbol="QQQ", ts="2026-11-20T14:40:00Z")
    assert handler(shard([line(QUOTE), line(BAR), line(QUOTE, symbol="QQQ"), later]), None) == {"batchItemFailures": []}
    name, zeros = "shardId-000000000000", "0" * 55
    assert stored(raw) == {
        f"raw/quotes/date=2026-11-20/1435-{name}-{zeros}1-{zeros}3.jsonl.gz": [QUOTE, {**QUOTE, "symbol": "QQQ"}],
        f"raw/minutes/date=2026-11-20/1435-{name}-{zeros}2-{zeros}2.jsonl.gz": [BAR],
        f"raw/quotes/date=2026-11-20/1440-{name}-{zeros}4-{zeros}4.jsonl.gz": [{**QUOTE, "symbol": "QQQ", "ts": "2026-11-20T14:40:00Z"}],
    }
    assert not list(dead_letters())


def test_a_batch_that_comes_twice_is_there_once(raw: str) -> None:
    batch = shard([line(QUOTE), line(BAR), b"{", line(QUOTE, symbol="QQQ")])
    handler(batch, None)
    before = stored(raw)
    handler(batch, None)
    assert stored(raw) == before


@pytest.mark.parametrize("name", POISON)
def test_poison_is_set_aside_with_its_reason_and_the_rest_arrive(raw: str, name: str) -> None:
    data, reason = POISON[name]
    assert handler(shard([line(QUOTE), data, line(QUOTE, symbol="QQQ")]), None) == {"batchItemFailures": []}
    found = stored(raw)
    (quarantined,) = [key for key in found if key.startswith("raw/quarantine/stream/date=2026-11-20/shardId-000000000000-")]
    (row,) = found.pop(quarantined)
    assert reason in row["reason"]
    assert base64.b64decode(row["data_base64"]) == data
    assert [one["symbol"] for rows in found.values() for one in rows] == ["SPY", "QQQ"]
    (letter,) = dead_letters()
    assert (letter["function"], letter["set_aside"], letter["object"]) == ("consume_stream", 1, quarantined)
    assert reason in letter["reasons"][0]
    assert len(json.dumps(letter)) < 1000, "what a queue is told stays small"


def test_what_cannot_be_written_fails_from_its_first_record_on(raw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its queue, nobody would hear of the poison: that record is reported, and comes again with those after it."""
    queue = boto3.client("sqs").list_queues()["QueueUrls"][0]
    monkeypatch.setenv("DEAD_LETTERS_URL", queue.replace("dead", "gone"))
    poison = (b"{", b"[")
    records = [line(QUOTE), line(BAR), poison[0], line(BAR, ts="2026-11-20T14:40:00Z"), poison[1]]
    assert failed(handler(shard(records), None)) == [3]
    monkeypatch.setenv("DEAD_LETTERS_URL", queue)
    assert failed(handler(shard(records[2:], first=3), None)) == []
    lines = [one for key, rows in stored(raw).items() if "quarantine" not in key for one in rows]
    assert sorted(one["ts"] for one in lines) == sorted(json.loads(one)["ts"] for one in records if one not in poison)
    assert len(list(dead_letters())) == 1


def test_a_bucket_that_refuses_everything_fails_the_batch(raw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAW_BUCKET", "papertape-nowhere")
    with pytest.raises(BatchProcessingError, match="NoSuchBucket"):
        handler(shard([line(QUOTE)]), None)
    with pytest.raises(Exception, match="NoSuchBucket"):
        handler(delivery([b"{"]), None)


def test_a_delivery_stream_is_told_where_each_record_belongs(raw: str) -> None:
    answer = handler(delivery([line(QUOTE), b"{", line(BAR)]), None)["records"]
    assert [(one["recordId"], one["result"]) for one in answer] == [("0", "Ok"), ("1", "Dropped"), ("2", "Ok")]
    places = [one["metadata"]["partitionKeys"] for one in answer if one["result"] == "Ok"]
    assert places == [{"folder": folder, "date": "2026-11-20", "slot": "1435"} for folder in ("quotes", "minutes")]
    assert [base64.b64decode(one["data"]) for one in answer if one["result"] == "Ok"] == [
        json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in (QUOTE, BAR)
    ]
    ((key, rows),) = stored(raw).items()
    assert key == "raw/quarantine/stream/date=2026-11-20/5cafc4b4-1-1.jsonl.gz"
    assert rows[0]["reason"].startswith("Invalid JSON")
    assert [letter["object"] for letter in dead_letters()] == [key]


def test_the_dashboard_shows_the_last_quote_of_each_name(raw: str) -> None:
    """A slot that has just begun holds few names: those of the slot before are shown until then."""
    old = line(QUOTE, symbol="IWM", ts="2026-11-20T14:29:59Z")
    handler(shard([old, line(QUOTE, ts="2026-11-20T14:36:00Z", bid=600.15), line(QUOTE), line(QUOTE, symbol="QQQ")]), None)
    handler(shard([line(QUOTE, ts="2026-11-20T14:40:01Z", bid=600.12)], first=9), None)
    lake = Lake(s3=boto3.client("s3"), raw_bucket=raw)
    assert lake.last_quotes(day=date(2026, 11, 20)) == datetime(2026, 11, 20, 14, 40, tzinfo=UTC)
    shown = last_quotes(lake, now="2026-11-20T14:41:00Z")
    assert {symbol: quote.bid for symbol, quote in shown.items()} == {"SPY": 600.12, "QQQ": 600.1}


def test_a_day_gives_the_same_bars_by_minute_and_by_stream(raw: str, buckets: SimpleNamespace) -> None:
    """Real quotes of a day: an object per minute, as `ingest_quotes` writes it, or a shard's batches, some of them twice."""
    quotes = bundled.minute_quotes()
    day = quotes["ts"].dt.date.min()
    own = quotes[(quotes["ts"].dt.date == day) & (quotes["ts"].dt.hour < 16)].sort_values("ts", kind="stable")
    rows = [{**row, "ts": iso(row["ts"]), "received_at": iso(row["ts"]), "feed": "iex"} for row in own.to_dict("records")]
    assert len(rows) > 100
    client, bars = boto3.client("s3"), []
    for minute, held in own.assign(place=range(len(own))).groupby(own["ts"].dt.floor("min")):
        client.put_object(Bucket=raw, Key=quotes_key(minute), Body=pack([rows[place] for place in held["place"]]))
    bars.append(_bars(buckets, day))
    for key in stored(raw):
        client.delete_object(Bucket=raw, Key=key)
    sent = [line(row, kind="quote") for row in rows]
    for start, stop in ((0, 70), (40, 90), (90, len(sent)), (0, 10)):  # batches that no shard would cut: lines lie in two objects
        handler(shard(sent[start:stop], first=1 + start), None)
    assert all(key.startswith(stream_prefix("quotes", str(day), "")[:-1]) for key in stored(raw))
    bars.append(_bars(buckets, day))
    pd.testing.assert_frame_equal(bars[0], bars[1])


def _bars(buckets: SimpleNamespace, day: date) -> pd.DataFrame:
    lake = {"raw": Bucket(buckets.raw), "processed": Bucket(buckets.processed)}
    built = build_minute_bars(**lake, day=day, built_for=datetime(2026, 1, 1, tzinfo=UTC))
    tables = [pd.read_parquet(io.BytesIO(Bucket(buckets.processed).get(key) or b"")) for key in built["files"]]
    return pd.concat(tables).sort_values(["symbol", "ts"]).reset_index(drop=True)
