"""A row and its records: the same bits there and back, nothing made up, names that the service allows."""

from __future__ import annotations

import re
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.features.groups import groups_in_table
from schema.features.records import record_of, store_name, values_of

IN_TABLE = groups_in_table(sentiment=False)

VOLUME = next(group for group in IN_TABLE if group.name == "volume")
TRENDS = next(group for group in IN_TABLE if group.name == "price_trends")
CLOSE = datetime(2020, 1, 2, 21, tzinfo=UTC)


def bits(number: float) -> bytes:
    return struct.pack("<d", number)


@given(st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True))
def test_a_number_comes_back_with_the_same_bits(number: float) -> None:
    record = record_of({"symbol": "A", "volume_z": number}, VOLUME, known_at=CLOSE)
    assert bits(values_of(record, VOLUME)["volume_z"]) == bits(number)


def test_what_is_not_known_is_left_out_and_is_no_zero() -> None:
    row = {"symbol": "A", **dict.fromkeys(TRENDS.columns, 0.0), "momentum_12_1": float("nan")}
    record = record_of(row, TRENDS, known_at=CLOSE)
    assert [entry["FeatureName"] for entry in record] == ["symbol", "event_time", *(c for c in TRENDS.columns if c != "momentum_12_1")]
    back = values_of(record, TRENDS)
    assert [column for column, number in back.items() if number != number] == ["momentum_12_1"]
    assert {number for column, number in back.items() if column != "momentum_12_1"} == {0.0}


def test_a_record_says_whose_it_is_and_when_it_was_known() -> None:
    assert record_of({"symbol": "BRK.B", "volume_z": 1.5}, VOLUME, known_at=CLOSE) == [
        {"FeatureName": "symbol", "ValueAsString": "BRK.B"},
        {"FeatureName": "event_time", "ValueAsString": "2020-01-02T21:00:00Z"},
        {"FeatureName": "volume_z", "ValueAsString": "1.5"},
    ]


def test_an_infinite_number_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="volume_z of A must be finite or missing, was -inf"):
        record_of({"symbol": "A", "volume_z": float("-inf")}, VOLUME, known_at=CLOSE)


def test_names_are_those_that_the_service_allows() -> None:
    for group in IN_TABLE:
        assert re.fullmatch(r"[a-zA-Z0-9]([_-]*[a-zA-Z0-9]){0,63}", store_name("a" * 21, group))
        assert all(re.fullmatch(r"[a-zA-Z0-9]([-_]*[a-zA-Z0-9]){0,63}", column) for column in group.columns)
        assert not {"write_time", "api_invocation_time", "is_deleted", "year", "month", "day", "hour"} & set(group.columns)
