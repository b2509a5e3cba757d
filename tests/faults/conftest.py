"""Fixtures of the fault tests, and the plugin that writes docs/faults.md from their run, or compares it: see `page`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.endpoint
import pytest
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber

from lambdas.common.ledger.ledger import Ledger, ledger_of
from lambdas.decide import handler as deciding
from lambdas.health import handler as watching
from tests.faults import page
from tests.faults.simulation import Simulation
from tests.quick_cloud import hurry
from tests.tables import create_ledger_table

TABLE = "faults"
REGION = "us-east-1"
#: What botocore waits between two attempts, on the simulated clock.
BACKOFF = 0.1


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-page", metavar="PATH", help="write docs/faults.md from this run instead of comparing it")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption(page.OPTION, default=None)
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(page.Writer(Path(path)), "faults-page")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if call.when != "call":
        return
    row = page.row_of(item, report)
    if row is not None:
        report.user_properties.append(page.properties(row))
        written, drawn_anew = item.config.getoption(page.OPTION, default=None), "PAPERTAPE_FAULT_EXAMPLES" in os.environ
        if written is None and not drawn_anew:
            page.compare(row, report)


@pytest.fixture(scope="module")
def cloud() -> Iterator[SimpleNamespace]:
    """AWS in this process, with every call announced to the simulation that is open."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "ALPACA_", "ALLOW_LIVE"))]:
            patch.delenv(name)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.setenv(name, "testing")
        for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
            patch.setenv(name, REGION)
        with mock_aws():
            opened = SimpleNamespace(simulation=None)

            def announce(hook: str) -> Callable[..., Any]:
                def announced(**told: Any) -> Any:
                    return None if opened.simulation is None else getattr(opened.simulation.edges, hook)(**told)

                return announced

            def pause(_seconds: float) -> None:
                if opened.simulation is not None:
                    opened.simulation.sleep(BACKOFF)

            boto3.setup_default_session(region_name=REGION)
            events = boto3.DEFAULT_SESSION.events  # type: ignore[union-attr]
            for hook, event in (("before_call", "before-call"), ("after_call", "after-call")):
                events.register(event, announce(hook))
            patch.setattr(BotocoreStubber, "__call__", _instead(BotocoreStubber.__call__, opened))
            patch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=pause))
            hurry(patch)
            _forget_clients()
            yield opened
            _forget_clients()


def _forget_clients() -> None:
    """Clients that functions keep for the life of a process."""
    for kept in (ledger_of, deciding._runtime, watching._sns):
        kept.cache_clear()


def _instead(answer: Callable[..., Any], opened: SimpleNamespace) -> Callable[..., Any]:
    """moto, unless the simulation answers in its place: then it must not see the request, or a refused write would be done."""

    def answered(stubber: BotocoreStubber, event_name: str, request: Any, **more: Any) -> Any:
        said = None if opened.simulation is None else opened.simulation.edges.instead_of_aws(request)
        return said if said is not None else answer(stubber, event_name, request, **more)

    return answered


@pytest.fixture
def ledger(cloud: SimpleNamespace) -> Iterator[Ledger]:
    """An empty ledger, with the keys and indexes that the lake stack gives it."""
    create_ledger_table(TABLE)
    yield ledger_of(TABLE)
    boto3.client("dynamodb").delete_table(TableName=TABLE)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> page.Tally:
    """What the simulations of this test that are closed were left with."""
    return page.tally_of(request.node)


@pytest.fixture
def opened(cloud: SimpleNamespace, ledger: Ledger, tally: page.Tally) -> Iterator[Callable[..., Simulation]]:
    """Open a simulation, with an empty ledger; the one before is closed, and what must hold whatever happened is checked."""

    def close() -> None:
        simulation, cloud.simulation = cloud.simulation, None
        tally.count()
        if simulation is not None:
            simulation.check()

    def opened(**terms: Any) -> Simulation:
        if cloud.simulation is not None:
            close()
            boto3.client("dynamodb").delete_table(TableName=TABLE)
            create_ledger_table(TABLE)
        tally.simulation = cloud.simulation = Simulation(ledger=ledger, **terms)
        return cloud.simulation  # type: ignore[no-any-return]

    yield opened
    close()


@pytest.fixture
def verdict(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say for docs/faults.md what a test saw that the ledger does not tell."""

    def said(text: str) -> None:
        request.node.stash[page.VERDICT] = text

    return said


@pytest.fixture
def simulation(opened: Callable[..., Simulation]) -> Simulation:
    """The first slot of 2020, 100,000 dollars, nothing held."""
    return opened()
