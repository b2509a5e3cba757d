"""B. The outcome of a call is unknown, or the broker cannot be asked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.faults.desk import NAMES, SLOT, Floor, decision

LEASE_OVER = timedelta(seconds=61)
SESSION_OVER = "2020-01-02T21:05:00+00:00"


def settled(floor: Floor, *, accepted: int = 3, statuses: list[str] | None = None) -> None:
    floor.settle()
    assert floor.ours_accepted == accepted
    assert floor.statuses() == (["filled"] * 3 if statuses is None else statuses)
    floor.agrees()


def test_b1_504_after_the_order_was_accepted(floor: Floor) -> None:
    """Every order is accepted and answered with a gateway's 504."""
    floor.misbehave(post_504_accepted={"rate": 1})
    answer = floor.accept()
    assert answer is not None
    assert (answer.status, answer.statuses) == (200, ["filled"] * 3)
    assert len(floor.edges.posts) == 3
    settled(floor)


def test_b2_a_read_timeout_after_the_order_was_accepted(floor: Floor) -> None:
    """Every order is accepted, and its answer never comes: ten seconds each, of a budget of twenty."""
    floor.misbehave(post_timeout_accepted={"rate": 1})
    answer = floor.accept()
    assert answer is not None
    assert answer.status == 202
    settled(floor)
    assert len(floor.edges.posts) == 3


def test_b3_a_reset_before_the_order_was_accepted(floor: Floor) -> None:
    """Every order's first POST is reset before the exchange sees it."""
    floor.misbehave(post_reset_unaccepted={"rate": 1, "first": 1})
    answer = floor.accept()
    assert answer is not None
    assert (answer.status, answer.statuses) == (202, ["unknown"] * 3)
    settled(floor)
    posted = [post["client_order_id"] for post in floor.edges.posts]
    assert (len(posted), len(set(posted))) == (6, 3)


def test_b4_an_answer_that_is_not_json(floor: Floor) -> None:
    """Every order is accepted and answered with half a body."""
    floor.misbehave(post_garbled={"rate": 1})
    answer = floor.accept()
    assert answer is not None
    assert (answer.status, answer.statuses) == (200, ["filled"] * 3)
    settled(floor)


def test_b5_a_crash_between_the_post_and_the_ledger(floor: Floor) -> None:
    """The function dies when the second order's answer has come, before it is written down."""
    floor.kill("POST /v2/orders", nth=2, after=True)
    assert floor.accept() is None
    floor.advance(LEASE_OVER)
    settled(floor)
    assert len(floor.edges.posts) == 3


def test_b6_a_crash_between_pending_and_the_post(floor: Floor) -> None:
    """The function dies when the second order is PENDING, before it is sent."""
    floor.kill("POST /v2/orders", nth=2)
    assert floor.accept() is None
    assert floor.statuses() == ["filled", "pending"]
    floor.advance(LEASE_OVER)
    settled(floor)
    assert len(floor.edges.posts) == 3


def test_b7_an_order_that_is_404_and_then_found(floor: Floor) -> None:
    """Every order is accepted with a 504, and unknown to the broker's reads for five seconds."""
    floor.misbehave(post_504_accepted={"rate": 1}, hidden_order={"rate": 1, "seconds": 5})
    answer = floor.accept()
    assert answer is not None
    assert answer.status == 202
    floor.advance(timedelta(seconds=10))
    settled(floor)
    assert len(floor.edges.posts) == 3, "found is found: nothing was sent again"


def test_b8_client_order_id_must_be_unique(floor: Floor) -> None:
    """Every order is accepted with a 504 and stays hidden beyond the grace: the same id is sent again, and refused as used."""
    floor.misbehave(post_504_accepted={"rate": 1, "first": 1}, hidden_order={"rate": 1, "seconds": 600})
    floor.accept(decision(weights=dict.fromkeys(NAMES, 0.15)))
    settled(floor)
    posted = [post["client_order_id"] for post in floor.edges.posts]
    assert len(posted) > 3
    assert (len(set(posted)), floor.book.duplicates) == (3, len(posted) - 3)


@pytest.mark.parametrize("with_reset", [True, False], ids=["with reset", "without reset"])
def test_b9_429(floor: Floor, with_reset: bool) -> None:
    """Every order's first POST, and every third read, is answered with 429."""
    floor.misbehave(seed=1, too_many_requests={"rate": 0.3, "requests": ["GET "], "with_reset": with_reset})
    floor.instead("POST /v2/orders", 429, b"{}", times=1)
    answer = floor.accept()
    assert answer is not None
    assert answer.status in {200, 202, 503}
    floor.accept()
    settled(floor)
    assert floor.venue.fault_sampler.counts["too_many_requests"] >= 3


def test_b9_a_storm_of_429(floor: Floor) -> None:
    """Every request is answered with 429 for ten minutes, while the event is retried and reconcile runs; then the storm is over."""
    floor.misbehave(too_many_requests={"rate": 1})
    asked = 0
    for _ in range(10):
        life = len(floor.lives)
        answer = floor.accept()
        floor.reconcile()
        assert answer is not None
        assert answer.status == 503
        requests = [call for one in floor.lives[life:] for call in one.calls if call.startswith(("GET", "POST", "DELETE"))]
        asked = max(asked, len(requests))
        floor.advance(timedelta(minutes=1))
    assert asked <= 6, "a 429 is not answered with more questions"
    assert floor.ours_accepted == 0
    floor.calm()
    floor.accept()
    settled(floor)


def test_b9_the_budget_of_a_minute(floor: Floor) -> None:
    """The broker answers eight requests a minute, of trading and of data each, and 429 to the others; a batch needs nine of trading."""
    floor.misbehave(budget={"per_minute": 8})
    for _ in range(10):
        floor.accept()
        floor.advance(timedelta(minutes=1))
    settled(floor)
    assert 0 < floor.venue.fault_sampler.counts["budget"] <= 30


def test_b10_reads_that_fail_for_ten_minutes(floor: Floor) -> None:
    """Every read answers 5xx for ten minutes; the event is retried, reconcile runs; then the broker is back within the window."""
    floor.misbehave(get_5xx={"rate": 1})
    for _ in range(2):
        began = floor.monotonic()
        answer = floor.accept()
        assert answer is not None
        assert answer.status == 503
        assert floor.monotonic() - began < 20
        assert floor.reconcile() is None, "its error is the function's: the alarm on errors speaks"
        floor.advance(timedelta(minutes=5))
    assert floor.orders() == []
    floor.calm()
    floor.accept()
    settled(floor)


def test_b10_posts_that_fail_until_the_window_has_ended(floor: Floor) -> None:
    """Every POST answers 503 without being seen, until long after the window."""
    floor.instead("POST /v2/orders", 503, b"unavailable")
    answer = floor.accept()
    assert answer is not None
    assert (answer.status, answer.statuses) == (202, ["unknown"] * 3)
    floor.settle()
    floor.calm()
    floor.advance(SLOT + timedelta(hours=2))
    settled(floor, accepted=0, statuses=["expired"] * 3)


def test_b10_the_broker_is_gone_all_day(floor: Floor) -> None:
    """Every read answers 5xx until the close; then it is back."""
    floor.misbehave(get_5xx={"rate": 1})
    floor.accept()
    floor.advance(SESSION_OVER)
    floor.reconcile()
    floor.calm()
    done: dict[str, Any] = floor.reconcile() or {}
    assert done["snapshot"] == "taken"
    assert floor.alerts() == ["slot-missed:open+5"]
    assert floor.ours_accepted == 0
