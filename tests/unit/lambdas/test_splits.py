"""Splits of what is held: what explains a position, and what only looks like a fall of the price."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from lambdas.common.orders.splits import Splits

MONDAY = date(2020, 8, 31)


def splits(ratio: str, *more: str) -> Splits:
    return Splits(tuple(("S", MONDAY, Decimal(value)) for value in (ratio, *more)))


@pytest.mark.parametrize(
    ("ratio", "before", "traded", "now", "explained"),
    [
        ("4", "12.5", "0", "50", True),
        ("4", "12.5", "-10.25", "39.75", True),
        ("4", "12.5", "0", "12.5", False),  # announced and not applied
        ("1", "12.5", "0", "12", False),  # nothing split: half a share is missing
        ("0.1", "125", "0", "12.5", True),
        ("0.1", "125", "0", "12", True),  # half a share was paid for in cash
        ("0.1", "125", "3.5", "15.5", True),  # the same, and then some were bought
        ("0.1", "125", "0", "11", False),  # a share and a half is more than cash in lieu
        ("0.1", "125", "0", "12.2", False),  # what is left is not whole shares
        ("0.1", "125", "0", "13", False),  # more than there was
        ("0.1", "5", "0", "0", True),  # all of it was a fraction
        ("0.3333333333333333", "3000", "0", "1000", True),  # one for three, as a float tells it
        ("1.5", "1.000000001", "0", "1.500000001", True),  # the grid's last digit
        ("1.5", "1.000000001", "0", "1.500000003", True),
        ("1.5", "1.000000001", "0", "1.500000004", False),
    ],
)
def test_a_position_is_explained_by_splits_and_fills_or_it_is_drift(
    ratio: str, before: str, traded: str, now: str, explained: bool
) -> None:
    found = splits(ratio).explain("S", before=Decimal(before), traded=Decimal(traded), now=Decimal(now))
    assert found == explained


def test_several_splits_multiply_and_those_of_another_name_or_an_earlier_day_do_not() -> None:
    two = splits("4", "0.5")
    assert (two.ratio("S"), two.ratio("OTHER"), two.ratio("S", after=MONDAY)) == (2, 1, 1)
    assert two.kept("S", Decimal("0.333333333")) == Decimal("0.666666666")


@pytest.mark.parametrize(
    ("ratio", "traded", "now", "waits"),
    [
        ("4", "0", "100", True),
        ("4", "0", "400", False),
        ("4", "-20", "80", True),
        ("4", "0", "0", False),  # gone: drift, and no split to wait for
        ("1", "0", "100", False),
        ("0.1", "0", "100", True),
    ],
)
def test_a_split_is_waited_for_while_the_position_is_what_it_was(ratio: str, traded: str, now: str, waits: bool) -> None:
    found = splits(ratio).pending({"S": Decimal(100)}, {"S": Decimal(traded)}, {"S": Decimal(now)})
    assert bool(found) == waits
    if ratio == "4" and waits and traded == "0":
        assert found == {"S": "S splits 4 for 1, and the broker holds 100 still, not 400"}
