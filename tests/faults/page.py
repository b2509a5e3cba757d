"""docs/faults.md: what the run of these tests showed, a row per test; and the cases of the catalogue that cannot occur here.

A row is made of the test's docstring (what was injected) and of what the simulation was left with: the faults that struck,
the intents of the ledger, the orders of ours that the broker accepted, and what became of them.
`pytest tests/faults --faults-page docs/faults.md` writes the page; without the option each test fails whose row is not in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults.simulation import ROOT, Simulation

PAGE = ROOT / "docs" / "faults.md"
OPTION = "faults_page"
PROPERTY = "fault_row"
TALLY = pytest.StashKey["Tally"]()
VERDICT = pytest.StashKey[str]()

TITLES = {
    "A": "Duplicate and concurrent triggers",
    "B": "Unknown outcome",
    "C": "Order life cycle",
    "D": "Data",
    "E": "Time",
    "F": "Model",
    "G": "Risk and kill switch",
    "H": "Platform",
    "I": "Properties",
}
#: The catalogue: how many cases each letter has.
CASES = {"A": 9, "B": 10, "C": 11, "D": 12, "E": 8, "F": 8, "G": 9, "H": 12, "I": 8}

#: Cases, or parts of one, that cannot occur here, with the reason.
NOT_HERE: Mapping[str, str] = {
    "A3, Lambda and Fargate": "The runner's task orders nothing: reconcile acts on its events, and those are tested. Two schedulers "
    "are two invocations of a function, and those are tested.",
    "A7, SQS and Kinesis": "No queue or stream triggers what trades: scheduler, EventBridge and API do; their repeats are tested.",
    "E2 and G4, OPG and CLS": "Only market orders for the day are sent, so that no auction's cutoff can be missed; on a closed market a "
    "flatten says so, lets nothing buy, and waits: reconcile sells from a minute after the next open on.",
    "H6, memory": "A process without memory is killed at some call, as those of H6 are.",
}

HEADER = "| case | injected | struck | intents | accepted | verdict |"
HEAD = """\
# Faults

What can go wrong between a decision and the broker, and what was seen when it did: the catalogue's cases A1 to I8, each a test.

Written from a run of `tests/faults`, by `make faults`; a test fails when its row differs. Each test drives the functions' own code, with
the broker's real client, against the local exchange and a DynamoDB in process, on one simulated clock. *Struck* counts the faults that
took effect. *Intents* are the orders in the ledger, one an intent and attempt; *accepted* are the orders of ours that the broker took.
No order was accepted twice in any row, and cash was never below zero: that is checked at the end of every test.
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    case: str
    line: int
    injected: str
    struck: str
    intents: str
    accepted: str
    verdict: str

    @property
    def place(self) -> tuple[str, int, int, str]:
        return self.case[0], int(self.case.partition(",")[0][1:]), self.line, self.injected

    def markdown(self) -> str:
        cells = (self.case, self.injected, self.struck, self.intents, self.accepted, self.verdict)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


@dataclass
class Tally:
    """What the floors of one test were left with."""

    simulation: Simulation | None = None
    intents: int = 0
    accepted: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)

    def count(self) -> None:
        """Take in the simulation that is open, once."""
        simulation, self.simulation = self.simulation, None
        if simulation is None:
            return
        orders = simulation.orders()
        self.intents += len(orders)
        self.accepted += simulation.ours_accepted
        self.struck += simulation.venue.fault_sampler.counts + Counter(simulation.story)
        self.decisions.update(decision.verdict for month in simulation.months for decision in simulation.ledger.decisions(month))
        self.statuses.update(order.status for order in orders)
        state = simulation.ledger.trading_state().state
        self.ends.update([f"trading {state}"] if state != "active" else [])
        self.ends.update(f"alert {rule}" for rule in {rule.partition(":")[0] for rule in simulation.alerts()})

    def verdict(self) -> str:
        return "; ".join(part for part in (counted(self.decisions) or "no decision", counted(self.statuses), counted(self.ends)) if part)


def tally_of(item: pytest.Item) -> Tally:
    return item.stash.setdefault(TALLY, Tally())


def case_of(name: str) -> str | None:
    """The catalogue's id, or ids, in a test's name."""
    found = re.match(r"test_((?:[a-i]\d+_)+)", name)
    return None if found is None else found[1].strip("_").upper().replace("_", ", ")


def row_of(item: pytest.Item, report: pytest.TestReport) -> Row | None:
    """The row of a test that has just run; None for a test that is no case. A `drawn` test's row has no counts."""
    case, function = case_of(item.name), getattr(item, "function", None)
    if case is None or function is None:
        return None
    assert function.__doc__, f"{item.nodeid} must say in its docstring what it injects"
    parameters = re.search(r"\[(.*)\]$", item.name)
    injected = " ".join(function.__doc__.split()) + (f" [{parameters[1]}]" if parameters else "")
    tally = item.stash.get(TALLY, None) if item.get_closest_marker("drawn") is None else None
    verdict = item.stash.get(VERDICT, "holds")
    if tally is not None:
        tally.count()
        verdict = tally.verdict() + (f"; {verdict}" if VERDICT in item.stash else "")
    if hasattr(report, "wasxfail"):
        verdict = f"open: {report.wasxfail.removeprefix('reason: ')}"
    return Row(
        case=case,
        line=item.location[1] or 0,
        injected=injected,
        struck="" if tally is None else counted(tally.struck),
        intents="" if tally is None else str(tally.intents),
        accepted="" if tally is None else str(tally.accepted),
        verdict=verdict,
    )


def counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in sorted(counts.items()) if count)


def render(rows: Iterable[Row]) -> str:
    lines = [HEAD.rstrip()]
    letter = ""
    for row in sorted(rows, key=lambda row: row.place):
        if row.case[0] != letter:
            letter = row.case[0]
            lines += ["", f"## {letter}. {TITLES[letter]}", "", HEADER, "|--|--|--|--|--|--|"]
        lines.append(row.markdown())
    lines += ["", "## Not here", "", "| case | why it cannot occur |", "|--|--|"]
    lines += [f"| {case} | {reason} |" for case, reason in NOT_HERE.items()]
    return "\n".join(lines) + "\n"


class Writer:
    """Collects the rows of all processes of a run, and writes the page at its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, Row] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, dict):
                self._rows[report.nodeid] = Row(**value)

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(render(self._rows.values()), encoding="utf-8")


def compare(row: Row, report: pytest.TestReport) -> None:
    """Fail a test whose row is not in the page."""
    if report.passed and row.markdown() not in PAGE.read_text(encoding="utf-8").splitlines():
        report.outcome = "failed"
        report.longrepr = f"docs/faults.md does not have this row; `make faults` writes it anew:\n{row.markdown()}"


def properties(row: Row) -> tuple[str, dict[str, Any]]:
    return PROPERTY, asdict(row)
