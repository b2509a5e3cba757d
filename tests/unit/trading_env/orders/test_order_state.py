"""The order's machine, state by state, and the table that the documentation shows of it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from trading_env.orders.order_state import ENDED, ENDS, OURS, WORKING, Event, Life, OrderStatus, markdown, rise

ROOT = Path(__file__).resolve().parents[4]


def test_a_status_is_ours_or_at_the_broker_working_or_ended():
    assert [*OURS, *WORKING, *ENDS] == list(dict.fromkeys([*OURS, *WORKING, *ENDS]))
    assert {*OURS, *WORKING, *ENDS} == set(OrderStatus)
    assert {*ENDS, OrderStatus.REFUSED} == ENDED


@pytest.mark.parametrize(
    ("status", "event", "follows"),
    [
        ("pending", Event.OPENED, "pending"),
        ("pending", Event.SENT, "pending"),
        ("pending", Event.DOUBT, "unknown"),
        ("pending", Event.MISSING, "unknown"),
        ("pending", Event.REFUSED, "refused"),
        ("pending", Event.TURNED_DOWN, "rejected"),
        ("pending", Event.WINDOW_ENDED, "pending"),
        ("unknown", Event.OPENED, "unknown"),
        ("unknown", Event.SENT, "unknown"),
        ("unknown", Event.DOUBT, "unknown"),
        ("unknown", Event.MISSING, "unknown"),
        ("unknown", Event.REFUSED, "unknown"),
        ("unknown", Event.TURNED_DOWN, "unknown"),
        ("unknown", Event.WINDOW_ENDED, "expired"),
    ],
)
def test_what_follows_from_our_events_while_the_broker_may_have_the_order(status, event, follows):
    assert Life(status=status).after(event).status == follows


@pytest.mark.parametrize("shown", [*WORKING, *ENDS])
@pytest.mark.parametrize("status", ["pending", "unknown", "refused", "rejected", "expired"])
def test_the_broker_s_status_wins_over_ours_even_over_an_end_of_ours(status, shown):
    life = Life(status=status).observed(shown)
    assert (life.status, life.shown, life.ended) == (shown, True, shown in ENDS)


@pytest.mark.parametrize("shown", WORKING)
def test_an_end_is_not_taken_back(shown):
    for end in ENDS:
        assert Life(status=end, shown=True).observed(shown).status == end


def test_what_fills_while_it_is_cancelled_is_kept():
    canceled = Life().observed("partially_filled", filled=Decimal(3), average=Decimal(10)).observed("canceled", filled=Decimal(3))
    late = canceled.observed("canceled", filled=Decimal(5), average=Decimal(11))
    assert (late.status, late.filled, late.average) == ("canceled", Decimal(5), Decimal(11))
    whole = late.observed("filled", filled=Decimal(10), average=Decimal(12))
    assert (whole.status, whole.filled) == ("filled", Decimal(10))


def test_an_older_story_changes_neither_status_nor_fills():
    life = Life().observed("partially_filled", filled=Decimal(4), average=Decimal(10))
    assert life.observed("new") == life
    assert life.observed("partially_filled", filled=Decimal(2), average=Decimal(9)) == life
    assert life.observed("new", filled=Decimal(4), average=Decimal(10)).status == "new"


def test_a_fill_costs_what_the_averages_say():
    before = Life(status="partially_filled", shown=True, filled=Decimal(3), average=Decimal("10.10"))
    after = before.observed("filled", filled=Decimal(7), average=Decimal("10.40"))
    quantity, price = rise(before, after) or (Decimal(0), Decimal(0))
    assert quantity == 4
    assert 3 * Decimal("10.10") + quantity * price == 7 * Decimal("10.40")
    assert rise(after, after.observed("filled", filled=Decimal(7), average=Decimal("10.40"))) is None


def test_the_documentation_shows_the_machine():
    """Write it with `python -m trading_env.orders.order_state`."""
    assert markdown() in (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")


def test_the_ledger_asks_for_what_has_not_ended():
    from lambdas.common.ledger.records import TERMINAL

    assert TERMINAL == ENDED
    assert {"pending", "unknown", *WORKING}.isdisjoint(TERMINAL)
