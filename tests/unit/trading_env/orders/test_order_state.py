"""The order's machine, state by state, and the table that the documentation shows of it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from trading_env.orders.order_state import ENDED, LAST_WORDS, OURS, WORKING_WORDS, Event, Life, markdown, rise

ROOT = Path(__file__).resolve().parents[4]
VENDOR_WORDS = {
    *("new", "accepted", "pending_new", "accepted_for_bidding", "partially_filled", "filled", "done_for_day", "canceled", "expired"),
    *("replaced", "pending_cancel", "pending_replace", "rejected", "suspended", "stopped", "calculated", "held"),
}


def test_every_word_of_the_vendor_is_known():
    assert set(LAST_WORDS) | set(WORKING_WORDS) == VENDOR_WORDS


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


@pytest.mark.parametrize("word", sorted(VENDOR_WORDS | {"levitating"}))
@pytest.mark.parametrize("status", ["pending", "unknown", "refused", "rejected", "expired"])
def test_the_broker_s_word_wins_over_ours_even_over_an_end_of_ours(status, word):
    life = Life(status=status).told(word)
    assert (life.status, life.shown, life.ended) == (word, True, word in LAST_WORDS)


@pytest.mark.parametrize("word", sorted(set(WORKING_WORDS) | {"levitating"}))
def test_a_last_word_is_not_taken_back(word):
    for last in LAST_WORDS:
        assert Life(status=last, shown=True).told(word).status == last


def test_what_fills_while_it_is_cancelled_is_kept():
    canceled = Life().told("partially_filled", filled=Decimal(3), average=Decimal(10)).told("canceled", filled=Decimal(3))
    late = canceled.told("canceled", filled=Decimal(5), average=Decimal(11))
    assert (late.status, late.filled, late.average) == ("canceled", Decimal(5), Decimal(11))
    whole = late.told("filled", filled=Decimal(10), average=Decimal(12))
    assert (whole.status, whole.filled) == ("filled", Decimal(10))


def test_an_older_story_changes_neither_word_nor_fills():
    life = Life().told("partially_filled", filled=Decimal(4), average=Decimal(10))
    assert life.told("new") == life
    assert life.told("partially_filled", filled=Decimal(2), average=Decimal(9)) == life
    assert life.told("suspended", filled=Decimal(4), average=Decimal(10)).status == "suspended"


@pytest.mark.parametrize("word", sorted(OURS))
def test_a_word_of_the_broker_s_that_is_ours_is_not_what_we_mean(word):
    life = Life().told(word)
    assert life.status not in OURS
    assert not life.ended


def test_a_fill_costs_what_the_averages_say():
    before = Life(status="partially_filled", shown=True, filled=Decimal(3), average=Decimal("10.10"))
    after = before.told("filled", filled=Decimal(7), average=Decimal("10.40"))
    quantity, price = rise(before, after) or (Decimal(0), Decimal(0))
    assert quantity == 4
    assert 3 * Decimal("10.10") + quantity * price == 7 * Decimal("10.40")
    assert rise(after, after.told("filled", filled=Decimal(7), average=Decimal("10.40"))) is None


def test_the_documentation_shows_the_machine():
    """Write it with `python -m trading_env.orders.order_state`."""
    assert markdown() in (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")


def test_the_ledger_asks_for_what_has_not_ended():
    from lambdas.common.ledger.records import TERMINAL

    assert TERMINAL == ENDED
    assert {"pending", "unknown", *WORKING_WORDS, "levitating"}.isdisjoint(TERMINAL)
