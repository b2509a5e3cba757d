"""What the dashboard shows of trading, as metrics: a pure function of `Facts`.

Promise: what is not known has no value, never zero. Few on purpose: CloudWatch gives ten metrics for nothing, and each more costs thirty
cents a month.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from lambdas.common.health.checks import Facts
from lambdas.common.telemetry import MetricUnit

STATES: Mapping[str, int] = {"halted": 0, "reduce_only": 1, "active": 2}


def measured(facts: Facts) -> dict[str, tuple[MetricUnit, float]]:
    """Metric -> unit and value. Equity in dollars and drawdown in percent are of the last close, orders of today."""
    values = {
        "Orders": (MetricUnit.Count, facts.orders),
        "OrdersInDoubt": (MetricUnit.Count, sum(order.in_doubt for order in facts.unsettled)),
        "TradingState": (MetricUnit.NoUnit, STATES[facts.state]),
        "BreakersTripped": (MetricUnit.Count, len(facts.tripped)),
        "DataAgeSessions": (MetricUnit.Count, _sessions_without_a_bar(facts)),
        "ModelAgeDays": (MetricUnit.Count, facts.model_age_days),
        **_of_the_book(facts),
    }
    return {name: (unit, float(value)) for name, (unit, value) in values.items() if value is not None}


def _sessions_without_a_bar(facts: Facts) -> int | None:
    """How many sessions have closed since the newest bar that decisions are made on; 0 is as fresh as can be, None without a calendar."""
    if not facts.earlier:
        return None
    newest = facts.newest_observed
    return sum(newest is None or day > newest for day in facts.earlier)


def _of_the_book(facts: Facts) -> dict[str, tuple[MetricUnit, float | None]]:
    book, peak = facts.last_snapshot, facts.peak_equity
    if book is None:
        return {}
    fallen = None if peak <= 0 else float(100 * max(Decimal(0), 1 - book.equity / peak))
    return {"Equity": (MetricUnit.NoUnit, float(book.equity)), "Drawdown": (MetricUnit.Percent, fallen)}
