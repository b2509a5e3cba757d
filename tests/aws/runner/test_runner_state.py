"""The runner's beat in the ledger: the newest runner's, whoever writes last."""

from __future__ import annotations

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.runner_state import RunnerState

FIRST = RunnerState(
    runner="a",
    state="following",
    since="2020-01-02T14:20:00+00:00",
    beat_at="2020-01-02T14:40:00+00:00",
    market_open=True,
    symbols=("AAPL", "SPY"),
    heard_data="2020-01-02T14:39:59+00:00",
    minutes=10,
)


def test_nobody_ran_yet(ledger_table: Ledger) -> None:
    assert ledger_table.runner_state() is None


def test_a_beat_replaces_the_one_before(ledger_table: Ledger) -> None:
    assert ledger_table.put_runner_state(FIRST)
    later = FIRST.model_copy(update={"beat_at": "2020-01-02T14:40:20+00:00", "reconnects": 1, "lost": 2, "queued": 3})
    assert ledger_table.put_runner_state(later)
    assert ledger_table.runner_state() == later


def test_a_runner_that_leaves_does_not_speak_for_the_one_that_came_after(ledger_table: Ledger) -> None:
    successor = FIRST.model_copy(update={"runner": "b", "since": "2020-01-02T14:39:00+00:00"})
    ledger_table.put_runner_state(successor)
    assert not ledger_table.put_runner_state(FIRST.model_copy(update={"state": "stopped"}))
    assert ledger_table.runner_state() == successor
