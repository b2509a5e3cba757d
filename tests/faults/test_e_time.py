"""E. Time: holidays, half days, clocks that differ, events that arrive late."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lambdas.common.broker.alpaca import AlpacaBroker
from lambdas.common.broker.port import RateLimited
from tests.faults.agent import Agent
from tests.faults.simulation import CLOSE, SLOT, Simulation, decision

Open = Callable[..., Simulation]
LEASE_OVER = timedelta(seconds=61)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_e1_a_holiday(opened: Open) -> None:
    """Every schedule fires on New Year's Day, and a decision for that day arrives."""
    simulation = opened(now=at("2020-01-01T14:35"))
    agent = Agent(simulation)
    skipped = agent.decide(simulation.now)
    assert skipped is not None
    assert skipped["outcome"] == "skipped"
    answer = simulation.accept(decision(session="2020-01-01"))
    assert answer is not None
    assert (answer.status, answer.body["verdict"]) == (200, "refused")
    passed = simulation.reconcile()
    assert passed is not None
    assert passed["session"] is None
    assert simulation.alerts() == []
    assert simulation.ours_accepted == 0


def test_e2_a_half_day(opened: Open) -> None:
    """The session closes at 13:00 in New York: what is open ends then, the snapshot is taken then, and nothing is sent after it."""
    simulation = opened(now=at("2020-11-27T14:35"))
    simulation.misbehave(partial_fill={"rate": 1, "expires": 1})
    simulation.accept(decision(session="2020-11-27", as_of="2020-11-25"))
    simulation.advance(at("2020-11-27T18:02"))
    simulation.end_orders()
    done = simulation.reconcile()
    assert done is not None
    assert done["snapshot"] == "taken before"
    assert simulation.statuses() == ["expired"] * 3
    late = simulation.order("late", "SPY", "buy", "1")
    assert late is not None
    assert late.status == 422
    assert "closed" in str(late.body)
    assert simulation.ours_accepted == 3
    simulation.agrees()


@pytest.mark.parametrize(
    ("session", "as_of", "opens"),
    [
        ("2020-03-06", "2020-03-05", "14:30"),
        ("2020-03-09", "2020-03-06", "13:30"),
        ("2020-10-30", "2020-10-29", "13:30"),
        ("2020-11-02", "2020-10-30", "14:30"),
    ],
    ids=["winter's last", "summer's first", "summer's last", "winter's first"],
)
def test_e3_the_clocks_change(opened: Open, session: str, as_of: str, opens: str) -> None:
    """The last session before and the first after the clocks change: refused a minute before its slot in New York, traded in it."""
    slot = at(f"{session}T{opens}") + timedelta(minutes=5)
    early = opened(now=slot - timedelta(minutes=1))
    refused = early.accept(decision(session=session, as_of=as_of))
    assert refused is not None
    assert refused.body["verdict"] == "refused"
    simulation = opened(now=slot)
    answer = simulation.accept(decision(session=session, as_of=as_of))
    assert answer is not None
    assert answer.body["verdict"] == "accepted"
    simulation.advance(at(f"{session}T{opens}") + timedelta(hours=6, minutes=31))
    done = simulation.reconcile()
    assert done is not None
    assert done["snapshot"] == "taken"
    assert (simulation.ours_accepted, simulation.alerts()) == (3, [])


@pytest.mark.parametrize("minutes", [5, -5])
def test_e4_a_clock_that_is_wrong(simulation: Simulation, minutes: int) -> None:
    """A function's own clock is five minutes off: it takes the lease too early from one that works, or too late; the broker's clock
    counts."""

    def another() -> None:
        simulation.story.append("a process with another clock")
        simulation.skew = timedelta(minutes=minutes)
        simulation.reconcile()
        simulation.skew = timedelta(0)

    simulation.interrupt("ledger write order pending", another, nth=2)
    answer = simulation.accept()
    assert answer is not None
    assert answer.status in {200, 202}
    simulation.end_orders()
    assert simulation.ours_accepted == 3
    assert simulation.statuses() == ["filled"] * 3
    assert all(order.created_at < "2020-01-02T14:37" for order in simulation.orders())
    simulation.agrees()


def test_e4_the_event_of_a_clock_that_is_early(simulation: Simulation) -> None:
    """The slot's decision arrives five minutes before the slot, by the broker's clock."""
    simulation.venue.reset(cash=simulation.book.cash, now=SLOT - timedelta(minutes=5))
    answer = simulation.accept()
    assert answer is not None
    assert answer.body["verdict"] == "refused"
    assert "the window is from" in answer.body["reason"]
    assert simulation.ours_accepted == 0


def test_e5_an_order_that_would_arrive_after_the_close(opened: Open) -> None:
    """A person's order comes eight seconds before the session's last minute, and each call takes a second: nothing is sent that might wait
    for the next open."""
    simulation = opened(now=CLOSE - timedelta(seconds=68))
    simulation.edges.latency = lambda: simulation.sleep(1)
    answer = simulation.order("late", "SPY", "buy", "1")
    simulation.edges.latency = lambda: None
    assert answer is not None
    assert answer.status in {200, 202}
    assert simulation.book.open_orders == [], "an order after the close waits for tomorrow's open"
    simulation.advance(CLOSE + timedelta(minutes=5))
    simulation.end_orders()
    assert simulation.ours_accepted == 0
    simulation.agrees()


@pytest.mark.parametrize("seconds", [10, 50])
def test_e5_an_order_that_arrives_after_the_close(opened: Open, seconds: int) -> None:
    """A person's order comes so many seconds before the close, and its POST would stall until after it: it is refused, for the broker would
    fill it at the next open."""
    simulation = opened(now=CLOSE - timedelta(seconds=seconds))
    simulation.interrupt("POST /v2/orders", lambda: simulation.advance(timedelta(seconds=seconds + 10)))
    late = simulation.order("late", "SPY", "buy", "1")
    assert late is not None
    assert late.status == 422
    assert "the window is from" in str(late.body)
    for _ in range(3):
        simulation.advance(timedelta(minutes=5))
        simulation.reconcile()
    assert simulation.book.open_orders == []
    simulation.advance("2020-01-03T14:31:00+00:00")
    simulation.end_orders()
    assert simulation.held == {}
    simulation.agrees()


def test_e5_an_order_that_stalls_before_the_close(opened: Open) -> None:
    """The last order of the session that may be sent stalls for as long as a POST may take: the broker has it before the close."""
    simulation = opened(now=CLOSE - timedelta(seconds=61))
    simulation.interrupt("POST /v2/orders", lambda: simulation.advance(timedelta(seconds=13)))
    answer = simulation.order("last", "SPY", "buy", "1")
    assert answer is not None
    assert answer.statuses == ["filled"]
    assert simulation.venue.now < CLOSE
    simulation.agrees()


def test_e5_a_slow_batch_at_the_window_s_end(opened: Open) -> None:
    """The decision comes ten seconds before its window ends, and each call takes two seconds: what is not sent by then is not sent."""
    simulation = opened(now=SLOT + timedelta(minutes=30) - timedelta(seconds=10))
    simulation.edges.latency = lambda: simulation.sleep(2)
    simulation.accept()
    simulation.edges.latency = lambda: None
    simulation.end_orders()
    assert simulation.ours_accepted == 0
    (made,) = simulation.ledger.decisions("2020-01")
    assert made.state == "done"
    assert all(order.submitted_at < SLOT + timedelta(minutes=30) for order in simulation.book.orders.values())
    simulation.agrees()


def test_e5_a_budget_that_is_back_after_the_window(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A POST is answered with 429 ten seconds before the window ends, and the broker's budget is back at its end: it is not waited for."""
    simulation = opened(now=SLOT + timedelta(minutes=30) - timedelta(seconds=10))
    waited: list[float] = []

    def no_budget(_broker: AlpacaBroker, _order: Any, *, retry_timeout: float) -> None:
        waited.append(retry_timeout)
        raise RateLimited("429, the budget is back in 10 s")

    with monkeypatch.context() as without:
        without.setattr(AlpacaBroker, "submit", no_budget)
        answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.statuses) == (202, ["pending", "planned", "planned"])
    assert waited == [5.0], "the time left, by a clock that may be five seconds old"
    simulation.advance(SLOT + timedelta(minutes=30))
    simulation.end_orders()
    assert simulation.ours_accepted == 0


def test_e6_an_unscheduled_closure(simulation: Simulation) -> None:
    """The exchange closes in the middle of a batch: the broker's clock says closed from the second order on."""

    def closes() -> None:
        simulation.retell("GET /v2/clock", lambda told: {**told, "is_open": False})
        simulation.advance(timedelta(seconds=6))

    simulation.interrupt("POST /v2/orders", closes, after=True)
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.body["verdict"]) == (200, "partial")
    assert "the market is closed" in answer.body["reason"]
    simulation.end_orders()
    assert simulation.ours_accepted == 1
    simulation.agrees()


def test_e6_a_halt_of_one_name(simulation: Simulation) -> None:
    """IBM halts after its order was accepted and before it fills, and trades again twenty minutes later."""
    simulation.misbehave(unknown_status={"rate": 1, "seconds": 1200, "symbols": ["IBM"], "status": "suspended"})
    answer = simulation.accept()
    assert answer is not None
    assert answer.status == 202
    assert simulation.ours_accepted == 3
    simulation.end_orders()
    assert simulation.statuses() == ["filled"] * 3
    simulation.agrees()


def test_e7_a_run_that_spans_midnight(simulation: Simulation) -> None:
    """Reconcile runs every half hour across midnight in UTC: the session is New York's, its snapshot is one."""
    simulation.accept()
    simulation.advance("2020-01-02T22:00:00+00:00")
    sessions = []
    for _ in range(16):
        done = simulation.reconcile()
        assert done is not None
        sessions.append(done["session"])
        simulation.advance(timedelta(minutes=30))
    assert sessions == ["2020-01-02"] * 14 + ["2020-01-03"] * 2
    assert [one.session for one in simulation.ledger.snapshots("2020-01-01", "2020-01-31")] == ["2020-01-02"]
    assert simulation.alerts() == []


@pytest.mark.parametrize(
    ("session", "as_of", "following"),
    [("2016-02-29", "2016-02-26", "2016-03-01"), ("2020-12-31", "2020-12-30", "2021-01-04")],
    ids=["leap day", "year's end"],
)
def test_e8_leap_day_and_year_s_end(opened: Open, session: str, as_of: str, following: str) -> None:
    """A decision on the day, its snapshot, and the decision of the session after it."""
    simulation = opened(now=at(f"{session}T14:35"))
    simulation.accept(decision(session=session, as_of=as_of))
    simulation.advance(at(f"{session}T21:05"))
    simulation.reconcile()
    simulation.advance(at(f"{following}T14:35"))
    answer = simulation.accept(decision(session=following, as_of=session, weights={"SPY": 0.5, "IBM": 0.3}))
    assert answer is not None
    assert answer.body["verdict"] == "accepted"
    simulation.advance(at(f"{following}T21:05"))
    simulation.reconcile()
    assert [one.session for one in simulation.ledger.snapshots("2016-01-01", "2021-12-31")] == [session, following]
    assert simulation.alerts() == []
    simulation.agrees()


def test_e8_the_first_session_of_a_year(simulation: Simulation) -> None:
    """The close that is observed is of the year before: no bar is set aside for want of a calendar."""
    agent = Agent(simulation)
    agent.decide()
    assert agent.record()["quarantined"] == 0
