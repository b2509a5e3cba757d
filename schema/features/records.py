"""A row of the feature table as records of SageMaker Feature Store, and back: the same bits.

Promise: a number is written as the shortest text that reads back as the same float64, so `values_of(record_of(row))` is `row`, bit for bit.
What is not known is left out of the record, never a zero. Failure: ValueError for an infinite number, which no feature has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from schema.exchange_time import iso
from schema.features.groups import FeatureGroup

IDENTIFIER, EVENT_TIME = "symbol", "event_time"

Entry = dict[str, str]


def store_name(app: str, group: FeatureGroup) -> str:
    """The feature group's name in the service, which knows hyphens."""
    return f"{app}-{group.name.replace('_', '-')}"


def record_of(row: Mapping[str, Any], group: FeatureGroup, *, known_at: datetime) -> list[Entry]:
    """The record of a group of a row (`symbol`, and its columns as floats), known from `known_at` on."""
    numbers = {column: float(row[column]) for column in group.columns}
    if infinite := [column for column, number in numbers.items() if math.isinf(number)]:
        raise ValueError(f"{', '.join(infinite)} of {row[IDENTIFIER]} must be finite or missing, was {numbers[infinite[0]]}")
    known = {column: repr(number) for column, number in numbers.items() if not math.isnan(number)}
    return [_entry(IDENTIFIER, str(row[IDENTIFIER])), _entry(EVENT_TIME, iso(known_at)), *(_entry(*one) for one in known.items())]


def values_of(record: Iterable[Mapping[str, str]], group: FeatureGroup) -> dict[str, float]:
    """The numbers of a group's record by column; NaN for what it leaves out."""
    held = {entry["FeatureName"]: entry["ValueAsString"] for entry in record}
    return {column: float(held.get(column, "nan")) for column in group.columns}


def _entry(name: str, value: str) -> Entry:
    return {"FeatureName": name, "ValueAsString": value}
