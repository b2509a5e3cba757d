"""A. The same trigger more than once, one after the other and at once."""

from __future__ import annotations

import ast
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from tests.faults.simulation import ROOT, SLOT, Answer, Simulation, decision, ids

Open = Callable[..., Simulation]
LEASE_OVER = timedelta(seconds=61)


def test_a1_the_same_event_twice(simulation: Simulation) -> None:
    """The decision's event is delivered again after its batch has ended."""
    first, again = simulation.accept(), simulation.accept()
    assert first is not None
    assert (first.status, first.statuses) == (200, ["filled"] * 3)
    assert again == first
    assert simulation.ours_accepted == 3
    simulation.agrees()


def test_a2_the_same_event_at_once(opened: Open) -> None:
    """The event is delivered twice at the same time; their calls alternate, in eight orders."""
    for seed in range(8):
        simulation = opened()
        simulation.story.append("two at once")
        answers = simulation.together(simulation.accept, simulation.accept, seed=seed)
        assert {answer.status for answer in answers} <= {200, 202}
        simulation.end_orders()
        assert simulation.ours_accepted == len(ids(answers)) == 3
        assert simulation.statuses() == ["filled"] * 3
        simulation.agrees()


def test_a3_two_schedulers_at_once(opened: Open) -> None:
    """A batch was left after its first order; the event's retry and two passes of reconcile then run at the same time, in eight orders."""
    for seed in range(8):
        simulation = opened()
        simulation.kill("POST /v2/orders", after=True)
        simulation.accept()
        simulation.advance(LEASE_OVER)
        answer, *passes = simulation.together(simulation.accept, simulation.reconcile, simulation.reconcile, seed=seed)
        assert answer.status in {200, 202}
        assert all(one is not None for one in passes), "who does not get the lease goes home without an error"
        simulation.end_orders()
        assert simulation.ours_accepted == 3
        simulation.agrees()


@pytest.mark.parametrize(
    "call",
    ["ledger write order pending", "ledger read", "POST /v2/orders", "ledger write order filled"],
    ids=["PENDING", "state and risk", "POST", "the answer written down"],
)
def test_a4_a_holder_that_pauses_past_its_lease(simulation: Simulation, call: str) -> None:
    """The holder of the lease is stopped before a call of its second order; another finishes the batch; then the first goes on."""
    simulation.platform = False
    nth = {"ledger read": 8}.get(call, 2)

    def overtaken() -> None:
        simulation.story.append("overtaken")
        simulation.advance(LEASE_OVER)
        simulation.reconcile()
        simulation.advance(LEASE_OVER)
        simulation.reconcile()

    simulation.interrupt(call, overtaken, nth=nth)
    answer = simulation.accept()
    assert answer is not None
    assert simulation.ours_accepted == 3
    simulation.end_orders()
    assert simulation.statuses() == ["filled"] * 3
    simulation.agrees()


def test_a4_a_fenced_holder_writes_nothing(simulation: Simulation) -> None:
    """The holder is stopped before it puts its second order into the ledger; meanwhile another takes the lease and dies."""
    simulation.platform = False

    def overtaken() -> None:
        simulation.advance(LEASE_OVER)
        simulation.kill("GET /v2/positions")
        simulation.reconcile()

    simulation.interrupt("ledger write order pending", overtaken, nth=2)
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.body["state"]) == (202, "working")
    assert (simulation.ours_accepted, len(simulation.orders())) == (1, 1)
    simulation.advance(LEASE_OVER)
    simulation.end_orders()
    assert simulation.ours_accepted == 3
    simulation.agrees()


def test_a5_a_retry_after_a_death_in_the_middle_of_a_batch(simulation: Simulation) -> None:
    """The function dies after the second of three orders was accepted; its event is retried at once, and again when the lease is over."""
    simulation.kill("POST /v2/orders", nth=2, after=True)
    assert simulation.accept() is None
    assert simulation.ours_accepted == 2
    at_once = simulation.accept()
    assert at_once is not None
    assert at_once.status == 202
    assert simulation.ours_accepted == 2
    simulation.advance(LEASE_OVER)
    later = simulation.accept()
    assert later is not None
    assert (later.status, later.statuses) == (200, ["filled"] * 3)
    assert simulation.ours_accepted == 3
    simulation.agrees()


def test_a6_the_same_key_with_another_body(simulation: Simulation) -> None:
    """A decision's id, and a person's key, are used again with another body."""
    assert simulation.accept() is not None
    other = simulation.accept(decision(model_version="another"))
    assert other is not None
    assert other.status == 409
    first, second = simulation.order("k", "SPY", "sell", "1"), simulation.order("k", "SPY", "sell", "2")
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert (first.status, second.status) == (200, 409)
    assert simulation.ours_accepted == 4


def test_a7_at_least_once_delivery(simulation: Simulation) -> None:
    """Every event of a session is delivered three times: the decision's, reconcile's, and the decision's again on the next day."""
    for _ in range(3):
        simulation.accept()
    for _ in range(3):
        simulation.reconcile()
    simulation.advance("2020-01-02T21:05:00+00:00")
    closes = [simulation.reconcile() for _ in range(3)]
    assert [one["snapshot"] for one in closes if one] == ["taken", "taken before", "taken before"]
    simulation.advance(SLOT + timedelta(days=1))
    for _ in range(3):
        answer = simulation.accept()
        assert answer is not None
        assert answer.status == 200
    assert simulation.ours_accepted == 3
    simulation.agrees()


def test_a7_an_order_s_event_many_times(opened: Open) -> None:
    """Orders fill after the answer; the runner's event of each comes before the fill, three times after it, two at once, and a day late."""
    simulation = opened(fills="after")
    simulation.accept()
    events = [simulation.updated(order.client_order_id, order.symbol) for order in simulation.orders()]
    for event in events:
        simulation.hear(event)
    simulation.advance(timedelta(seconds=1))
    for event in events * 3:
        simulation.hear(event)
    simulation.together(*(partial(simulation.hear, event) for event in events[:2]), seed=3)
    assert simulation.statuses() == ["filled"] * 3, "heard of, without a pass of the schedule's"
    simulation.agrees()
    fills = sum(len(simulation.ledger.fills_of(order.client_order_id)) for order in simulation.orders())
    simulation.advance(SLOT + timedelta(days=1))
    for event in events:
        told = simulation.hear(event)
        assert told is not None
        assert told["order"] == "known"
    assert sum(len(simulation.ledger.fills_of(order.client_order_id)) for order in simulation.orders()) == fills == 3
    assert simulation.ours_accepted == 3


def test_a8_an_id_knows_no_clock(opened: Open) -> None:
    """The same decision at another minute, by another process; and no module that makes or stores an id reads a clock or a random
    number."""
    made = []
    for later in (0, 9):
        simulation = opened()
        simulation.advance(timedelta(minutes=later))
        simulation.accept()
        made.append({order.client_order_id for order in simulation.orders()})
    assert made[0] == made[1]
    assert len(made[0]) == 3
    for module in [*ROOT.glob("trading_env/*.py"), *ROOT.glob("lambdas/common/*.py"), *ROOT.glob("lambdas/*/service.py")]:
        assert not _clocks(ast.parse(module.read_text(encoding="utf-8"))), f"{module} makes ids and may not read a clock"


def _clocks(tree: ast.AST) -> list[str]:
    """Calls of a wall clock, and modules of random identities."""
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    calls = [node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [name for name in names if name in {"uuid", "secrets"}] + [call for call in calls if call in {"now", "utcnow", "today", "uuid4"}]


def test_a9_yesterday_s_event_today(simulation: Simulation) -> None:
    """Yesterday's decision arrives for the first time in today's slot."""
    simulation.advance(SLOT + timedelta(days=1))
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.body["verdict"]) == (200, "refused")
    assert "is not of today's session" in answer.body["reason"]
    assert simulation.ours_accepted == 0
