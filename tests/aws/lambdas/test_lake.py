"""The lake against S3 in process: bytes, keys, the cache's honesty, and what happens to what cannot be read."""

from __future__ import annotations

import gzip
from collections import Counter
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from lambdas.common.lake.lake import Lake, LakeError, pack, unpack
from schema.lake_layout import BARS, bars_key, calendar_key, features_manifest, quotes_key

ROW = {"symbol": "AAPL", "ts": "2019-01-02T05:00:00Z", "open": 154.89, "volume": 37039737.0}


@pytest.fixture
def lake(buckets: SimpleNamespace) -> Lake:
    return Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw, processed_bucket=buckets.processed, audit_bucket=buckets.audit)


def counted(lake: Lake) -> Counter[str]:
    """Counts the calls that this client makes from now on."""
    calls: Counter[str] = Counter()
    lake.s3.meta.events.register("before-call.s3.*", lambda model, **_: calls.update([model.name]))
    return calls


def test_equal_rows_are_equal_bytes_and_come_back() -> None:
    assert pack([ROW]) == pack([dict(ROW)])
    assert unpack(pack([ROW])) == [ROW]
    with pytest.raises(ValueError, match="JSON compliant"):
        pack([{"open": float("nan")}])


def test_keys_are_of_utc() -> None:
    assert quotes_key(datetime.fromisoformat("2020-01-02T09:35:00-05:00")) == "raw/quotes/date=2020-01-02/1435.jsonl.gz"
    assert bars_key("AAPL", 2019) == "raw/bars/timeframe=1Day/symbol=AAPL/2019.jsonl.gz"


def test_a_warm_process_reads_only_what_changed(lake: Lake) -> None:
    keys = [bars_key(symbol, 2019) for symbol in ("AAPL", "IBM", "SPY")]
    Lake(s3=lake.s3, raw_bucket=lake.raw_bucket).write({key: [ROW] for key in keys})
    calls = counted(lake)
    assert set(lake.read(keys, prefix=BARS)) == set(keys)
    assert calls == {"ListObjectsV2": 1, "GetObject": 3}

    Lake(s3=lake.s3, raw_bucket=lake.raw_bucket).write({keys[1]: [{**ROW, "open": 1.0}]})
    calls.clear()
    assert lake.read(keys, prefix=BARS)[keys[1]][0]["open"] == 1.0
    assert calls == {"ListObjectsV2": 1, "GetObject": 1}


def test_what_is_unchanged_is_not_written_and_what_vanished_is(lake: Lake) -> None:
    key = bars_key("AAPL", 2019)
    assert lake.write({key: [ROW]}) == [key]
    lake.read([key], prefix=BARS)
    assert lake.write({key: [ROW]}) == []
    lake.s3.delete_object(Bucket=lake.raw_bucket, Key=key)
    assert lake.read([key], prefix=BARS) == {}
    assert lake.write({key: [ROW]}) == [key]


def test_an_object_that_is_no_gzip_is_named(lake: Lake) -> None:
    key = bars_key("AAPL", 2019)
    for body in (b"not gzip", gzip.compress(b'{"half": ')):
        lake.s3.put_object(Bucket=lake.raw_bucket, Key=key, Body=body)
        with pytest.raises(LakeError, match=f"s3://{lake.raw_bucket}/{key}"):
            lake.read([key], prefix=BARS)


def test_the_calendar_knows_sessions_and_hours(lake: Lake) -> None:
    rows = [
        {"session": "2020-11-25", "open": "2020-11-25T14:30:00Z", "close": "2020-11-25T21:00:00Z"},
        {"session": "2020-11-27", "open": "2020-11-27T14:30:00Z", "close": "2020-11-27T18:00:00Z"},
    ]
    lake.write({calendar_key(2020): rows})
    calendar = lake.calendar(years=(2019, 2020))
    assert not calendar.is_session(date(2020, 11, 26))
    assert calendar.before(date(2020, 11, 27)) == (date(2020, 11, 25),)
    assert calendar.hours(date(2020, 11, 27)) == (datetime(2020, 11, 27, 14, 30, tzinfo=UTC), datetime(2020, 11, 27, 18, tzinfo=UTC))
    assert calendar.hours(date(2020, 11, 26)) is None


def test_the_last_quotes_are_the_newest_minute_of_the_day(lake: Lake) -> None:
    assert lake.last_quotes(day=date(2020, 1, 2)) is None
    lake.write({quotes_key(datetime(2020, 1, 2, hour, 5, tzinfo=UTC)): [ROW] for hour in (14, 20, 9)})
    assert lake.last_quotes(day=date(2020, 1, 2)) == datetime(2020, 1, 2, 20, 5, tzinfo=UTC)


def test_no_manifest_is_none_and_a_broken_one_is_an_error(lake: Lake) -> None:
    assert lake.manifest("1Day") is None
    lake.s3.put_object(Bucket=lake.processed_bucket, Key=features_manifest(), Body=b"{")
    with pytest.raises(LakeError, match=r"manifest\.json: is not JSON"):
        lake.manifest("1Day")


def test_audit_records_refuse_what_is_not_a_number(lake: Lake) -> None:
    document: dict[str, Any] = {"observation": [0.5, float("nan")]}
    with pytest.raises(ValueError, match="JSON compliant"):
        lake.put_decision_record("audit/decisions/x.json", document)
    assert "Contents" not in lake.s3.list_objects_v2(Bucket=lake.audit_bucket)
