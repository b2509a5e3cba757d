"""What the benchmark of a fill's delay deploys and how it sums up; the sessions themselves are those of tests/e2e/test_realtime.py."""

from __future__ import annotations

import pytest

from benchmarks.fill_delay import settings, summary


def test_a_summary_is_of_all_delays_the_worst_among_them() -> None:
    assert summary([0.1] * 19 + [2.0]) == {"fills": 20, "p50": 0.1, "p95": pytest.approx(0.1, abs=0.1), "worst": 2.0}
    assert summary([1.0, 2.0, 3.0, 4.0, 5.0]) == {"fills": 5, "p50": 3.0, "p95": 4.8, "worst": 5.0}


def test_the_runner_is_on_with_everything_or_alone() -> None:
    everything, alone = settings(alone=False), settings(alone=True)
    assert (everything.runner.enabled, everything.stream.kind, everything.dashboard.enabled) == (True, "firehose", True)
    assert (alone.runner.enabled, alone.stream.kind, alone.dashboard.enabled) == (True, "none", False)
