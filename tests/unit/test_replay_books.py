"""What the replay reads from the exchange's books: two orders of one session's name are a duplicate whatever their ids."""

from __future__ import annotations

import pytest

from local.replay import duplicates

ORDERS = [
    {"client_order_id": "a", "symbol": "SPY", "submitted_at": "2020-01-02T14:35:00Z"},
    {"client_order_id": "b", "symbol": "IBM", "submitted_at": "2020-01-02T14:35:00Z"},
    {"client_order_id": "c", "symbol": "SPY", "submitted_at": "2020-01-03T14:35:00Z"},
]


AGAIN = {**ORDERS[0], "client_order_id": "d"}


@pytest.mark.parametrize(("more", "found"), [([], 0), ([AGAIN], 1), ([{**AGAIN, "submitted_at": "2020-01-02T14:40:00Z"}], 1)])
def test_an_order_beyond_one_a_name_and_session_is_a_duplicate(more: list[dict[str, str]], found: int) -> None:
    assert duplicates({"orders": [*ORDERS, *more]}) == found
