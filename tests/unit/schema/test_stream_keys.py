"""Where a stream's records lie: named after their own time, in the same words by either kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from schema.lake_layout import firehose_prefix, quotes_key, quotes_minute, stream_key, stream_partition

AT = datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)


def test_a_record_lies_in_the_five_minutes_of_its_own_time() -> None:
    assert stream_key(stream_partition("quote", AT), "s-1-2") == "raw/quotes/date=2026-11-20/2355-s-1-2.jsonl.gz"
    assert stream_key(stream_partition("bar", AT), "s-1-2") == "raw/minutes/date=2026-11-20/2355-s-1-2.jsonl.gz"


def test_the_day_is_the_one_in_utc() -> None:
    in_new_york = (AT + timedelta(seconds=1)).astimezone(timezone(timedelta(hours=-5)))
    assert stream_partition("quote", in_new_york) == {"folder": "quotes", "date": "2026-11-21", "slot": "0000"}


def test_a_delivery_streams_keys_are_read_as_a_shards() -> None:
    key = firehose_prefix()
    for name, value in stream_partition("quote", AT).items():
        key = key.replace(f"!{{partitionKeyFromLambda:{name}}}", value)
    key = key.replace("!{timestamp:yyyyMMddHHmmss}", "20261121000102") + "papertape-stream-1-2026-11-21-00-01-02-uuid.jsonl.gz"
    slot = AT.replace(minute=55, second=0)
    assert quotes_minute(key) == quotes_minute(stream_key(stream_partition("quote", AT), "s-1-2")) == slot
    assert sorted([key, quotes_key(slot), quotes_key(slot - timedelta(minutes=1))])[0] == quotes_key(slot - timedelta(minutes=1))


@pytest.mark.parametrize("key", ["raw/quotes/date=2026-11-20/readme.txt", "raw/minutes/date=2026-11-20/2355-s.jsonl.gz", ""])
def test_another_key_is_an_error(key: str) -> None:
    with pytest.raises(ValueError, match=r"a key must be like raw/quotes/date=2020-01-02/1430\.jsonl\.gz, was"):
        quotes_minute(key)
