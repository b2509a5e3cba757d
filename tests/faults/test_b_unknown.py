"""B. The outcome of a call is unknown, or the broker cannot be asked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.faults.simulation import NAMES, SLOT, Simulation, decision

LEASE_OVER = timedelta(seconds=61)
SESSION_OVER = "2020-01-02T21:05:00+00:00"


def all_ended(simulation: Simulation, *, accepted: int = 3, statuses: list[str] | None = None) -> None:
    simulation.end_orders()
    assert simulation.ours_accepted == accepted
    assert simulation.statuses() == (["filled"] * 3 if statuses is None else statuses)
    simulation.agrees()


def test_b1_504_after_the_order_was_accepted(simulation: Simulation) -> None:
    """Every order is accepted and answered with a gateway's 504."""
    simulation.misbehave(post_504_accepted={"rate": 1})
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.statuses) == (200, ["filled"] * 3)
    assert len(simulation.edges.posts) == 3
    all_ended(simulation)


def test_b2_a_read_timeout_after_the_order_was_accepted(simulation: Simulation) -> None:
    """Every order is accepted, and its answer never comes: ten seconds each, of a budget of twenty."""
    simulation.misbehave(post_timeout_accepted={"rate": 1})
    answer = simulation.accept()
    assert answer is not None
    assert answer.status == 202
    all_ended(simulation)
    assert len(simulation.edges.posts) == 3


def test_b3_a_reset_before_the_order_was_accepted(simulation: Simulation) -> None:
    """Every order's first POST is reset before the exchange sees it."""
    simulation.misbehave(post_reset_unaccepted={"rate": 1, "first": 1})
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.statuses) == (202, ["unknown"] * 3)
    all_ended(simulation)
    posted = [post["client_order_id"] for post in simulation.edges.posts]
    assert (len(posted), len(set(posted))) == (6, 3)


def test_b4_an_answer_that_is_not_json(simulation: Simulation) -> None:
    """Every order is accepted and answered with half a body."""
    simulation.misbehave(post_garbled={"rate": 1})
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.statuses) == (200, ["filled"] * 3)
    all_ended(simulation)


def test_b5_a_crash_between_the_post_and_the_ledger(simulation: Simulation) -> None:
    """The function dies when the second order's answer has come, before it is written down."""
    simulation.kill("POST /v2/orders", nth=2, after=True)
    assert simulation.accept() is None
    simulation.advance(LEASE_OVER)
    all_ended(simulation)
    assert len(simulation.edges.posts) == 3


def test_b6_a_crash_between_pending_and_the_post(simulation: Simulation) -> None:
    """The function dies when the second order is PENDING, before it is sent."""
    simulation.kill("POST /v2/orders", nth=2)
    assert simulation.accept() is None
    assert simulation.statuses() == ["filled", "pending"]
    simulation.advance(LEASE_OVER)
    all_ended(simulation)
    assert len(simulation.edges.posts) == 3


def test_b7_an_order_that_is_404_and_then_found(simulation: Simulation) -> None:
    """Every order is accepted with a 504, and unknown to the broker's reads for five seconds."""
    simulation.misbehave(post_504_accepted={"rate": 1}, hidden_order={"rate": 1, "seconds": 5})
    answer = simulation.accept()
    assert answer is not None
    assert answer.status == 202
    simulation.advance(timedelta(seconds=10))
    all_ended(simulation)
    assert len(simulation.edges.posts) == 3, "found is found: nothing was sent again"


def test_b8_client_order_id_must_be_unique(simulation: Simulation) -> None:
    """Every order is accepted with a 504 and stays hidden beyond the grace: the same id is sent again, and refused as used."""
    simulation.misbehave(post_504_accepted={"rate": 1, "first": 1}, hidden_order={"rate": 1, "seconds": 600})
    simulation.accept(decision(weights=dict.fromkeys(NAMES, 0.15)))
    all_ended(simulation)
    posted = [post["client_order_id"] for post in simulation.edges.posts]
    assert len(posted) > 3
    assert (len(set(posted)), simulation.book.duplicates) == (3, len(posted) - 3)


@pytest.mark.parametrize("with_reset", [True, False], ids=["with reset", "without reset"])
def test_b9_429(simulation: Simulation, with_reset: bool) -> None:
    """Every order's first POST, and every third read, is answered with 429."""
    simulation.misbehave(seed=1, too_many_requests={"rate": 0.3, "requests": ["GET "], "with_reset": with_reset})
    simulation.instead("POST /v2/orders", 429, b"{}", times=1)
    answer = simulation.accept()
    assert answer is not None
    assert answer.status in {200, 202, 503}
    simulation.accept()
    all_ended(simulation)
    assert simulation.venue.fault_sampler.counts["too_many_requests"] >= 3


def test_b9_a_storm_of_429(simulation: Simulation) -> None:
    """Every request is answered with 429 for ten minutes, while the event is retried and reconcile runs; then the storm is over."""
    simulation.misbehave(too_many_requests={"rate": 1})
    asked = 0
    for _ in range(10):
        life = len(simulation.lives)
        answer = simulation.accept()
        simulation.reconcile()
        assert answer is not None
        assert answer.status == 503
        requests = [call for one in simulation.lives[life:] for call in one.calls if call.startswith(("GET", "POST", "DELETE"))]
        asked = max(asked, len(requests))
        simulation.advance(timedelta(minutes=1))
    assert asked <= 6, "a 429 is not answered with more questions"
    assert simulation.ours_accepted == 0
    simulation.calm()
    simulation.accept()
    all_ended(simulation)


def test_b9_the_budget_of_a_minute(simulation: Simulation) -> None:
    """The broker answers eight requests a minute, of trading and of data each, and 429 to the others; a batch needs nine of trading."""
    simulation.misbehave(budget={"per_minute": 8})
    for _ in range(10):
        simulation.accept()
        simulation.advance(timedelta(minutes=1))
    all_ended(simulation)
    assert 0 < simulation.venue.fault_sampler.counts["budget"] <= 30


def test_b10_reads_that_fail_for_ten_minutes(simulation: Simulation) -> None:
    """Every read answers 5xx for ten minutes; the event is retried, reconcile runs; then the broker is back within the window."""
    simulation.misbehave(get_5xx={"rate": 1})
    for _ in range(2):
        began = simulation.monotonic()
        answer = simulation.accept()
        assert answer is not None
        assert answer.status == 503
        assert simulation.monotonic() - began < 20
        assert simulation.reconcile() is None, "its error is the function's: the alarm on errors speaks"
        simulation.advance(timedelta(minutes=5))
    assert simulation.orders() == []
    simulation.calm()
    simulation.accept()
    all_ended(simulation)


def test_b10_posts_that_fail_until_the_window_has_ended(simulation: Simulation) -> None:
    """Every POST answers 503 without being seen, until long after the window."""
    simulation.instead("POST /v2/orders", 503, b"unavailable")
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.statuses) == (202, ["unknown"] * 3)
    simulation.end_orders()
    simulation.calm()
    simulation.advance(SLOT + timedelta(hours=2))
    all_ended(simulation, accepted=0, statuses=["expired"] * 3)


def test_b10_the_broker_is_gone_all_day(simulation: Simulation) -> None:
    """Every read answers 5xx until the close; then it is back."""
    simulation.misbehave(get_5xx={"rate": 1})
    simulation.accept()
    simulation.advance(SESSION_OVER)
    simulation.reconcile()
    simulation.calm()
    done: dict[str, Any] = simulation.reconcile() or {}
    assert done["snapshot"] == "taken"
    assert simulation.alerts() == ["slot-missed:open+5"]
    assert simulation.ours_accepted == 0
