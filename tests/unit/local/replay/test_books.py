"""What the replay reads from the exchange's books: two orders of one session's name are a duplicate whatever their ids."""

from __future__ import annotations

from decimal import Decimal

import pytest

from lambdas.common.ledger.records import Fill
from local.replay.driver import LAST_DECIMAL, duplicates, fill_differences

ORDERS = [
    {"client_order_id": "a", "symbol": "SPY", "submitted_at": "2020-01-02T14:35:00Z"},
    {"client_order_id": "b", "symbol": "IBM", "submitted_at": "2020-01-02T14:35:00Z"},
    {"client_order_id": "c", "symbol": "SPY", "submitted_at": "2020-01-03T14:35:00Z"},
]


AGAIN = {**ORDERS[0], "client_order_id": "d"}


@pytest.mark.parametrize(("more", "found"), [([], 0), ([AGAIN], 1), ([{**AGAIN, "submitted_at": "2020-01-02T14:40:00Z"}], 1)])
def test_an_order_beyond_one_a_name_and_session_is_a_duplicate(more: list[dict[str, str]], found: int) -> None:
    assert duplicates({"orders": [*ORDERS, *more]}) == found


@pytest.mark.parametrize(
    ("quantity", "price", "rounded", "same"),
    [
        ("30", "100", False, True),
        ("30", "100.00005", False, False),
        ("30", "100.00005", True, True),
        ("30", "100.0002", True, False),
        ("29.999999999", "100", True, False),
    ],
)
def test_fills_agree_to_the_last_digit_or_to_the_last_decimal_that_is_shown(quantity: str, price: str, rounded: bool, same: bool) -> None:
    theirs = [{"client_order_id": "a", "quantity": part, "price": "100"} for part in ("10", "20")]
    ours = Fill(
        client_order_id="a",
        decision_id="agent:1",
        sequence=1,
        symbol="SPY",
        side="buy",
        quantity=Decimal(quantity),
        price=Decimal(price),
        cumulative=Decimal(quantity),
        time="2020-01-02T14:35:00Z",
    )
    apart = LAST_DECIMAL if rounded else Decimal(0)
    assert (fill_differences([ours], theirs, apart=apart) == []) is same
    assert fill_differences([], theirs, apart=apart) != []
